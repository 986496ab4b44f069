"""One registration problem, many solvers."""
