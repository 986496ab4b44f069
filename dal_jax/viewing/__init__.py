"""Seeing what was fitted: ray casting, overlays, plots, the report page, mesh export. NumPy; no GL, no display."""
