"""Results: the file of fits, its summary, overlays, meshes."""
