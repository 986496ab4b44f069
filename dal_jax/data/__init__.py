"""Data sets: the example they store, how they are prepared, and readers of the official files."""
