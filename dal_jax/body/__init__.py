"""Section 3: a rigged template, posed by rotations and segment scales, seen by a weak-perspective camera."""
