"""Thin binaries: flags, one library call, files and a table."""
