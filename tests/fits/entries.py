"""Entries of an annotation with nothing marked."""

import numpy as np

from dal_jax.observations import keypoints
from dal_jax.observations.person import AnnotatedPerson, Rejected


def annotated(image: int, annotation: int, file_name: str = "a.jpg", points: int = 0) -> AnnotatedPerson:
    """Return a person with so many points, all in one place."""
    box, place = np.array([0.0, 0, 50, 200]), np.zeros((points, 2))
    return AnnotatedPerson(
        image, annotation, file_name, None, box, place, np.ones(points, int), place, keypoints.missing()
    )


def rejected(image: int, annotation: int) -> Rejected:
    """Return an entry that cannot be used."""
    return Rejected(image, annotation, "a.jpg", "no points", "...")
