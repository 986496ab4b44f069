"""Deform-and-Learn in JAX: 3D human shape and pose from 2D annotation alone."""

__version__ = "0.1.0"
