"""Which way is up in a recording: looked at, because few formats say, and exporters turn worlds as they like."""

import pathlib

import numpy as np
from jaxtyping import Float

TO_Y_UP = {
    "x": np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    "-x": np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    "y": np.eye(3),
    "-y": np.diag([1.0, -1.0, -1.0]),
    "z": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
    "-z": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),
}
"""The rotation to a world whose y is up, of one where another axis is: that axis is the second row."""

_UPRIGHT = np.cos(np.pi / 4)  # a trunk that leans no further than 45 degrees is upright along one axis at most
_MOST = 0.9  # share of the frames in which the trunk is upright along an axis that is not the usual one
_FAR = 2.0  # lengths of the trunk: people who go further, and not along it, are on their feet
_LEVEL = 3.0  # times as far across the trunk as along it


def find(
    path: pathlib.Path,
    trunk: Float[np.ndarray, "frames 3"],
    usual: str,
    places: Float[np.ndarray, "frames 3"] | None = None,
    rest: Float[np.ndarray, "2 3"] | None = None,
) -> tuple[Float[np.ndarray, "3 3"], str]:
    """Return the rotation to a world whose y is up, and a note where up is not what it usually is, else ''.

    The usual axis is up where the trunk is upright along it in half of the frames. Another one is up where the trunk
    is upright along it in nearly all of them and these are not people who lie or swim: it is the usual one upside down,
    the skeleton at rest stands along it, or people go far across their trunks. Else the usual one is kept.

    Args:
      path: of the recording, for the note.
      trunk: from the hips to the shoulders. usual: the format's axis, of `TO_Y_UP`.
      places: of the hips, in the trunk's unit, None if unknown.
      rest: of the skeleton at rest, trunk and legs, both upwards; None of a format that fixes it.
    """
    along = _along(trunk)
    if np.mean(along[usual] > _UPRIGHT) >= 0.5:
        return TO_Y_UP[usual], ""
    best = max(along, key=lambda axis: np.mean(along[axis] > _UPRIGHT))
    upright = along[best] > _UPRIGHT
    if np.mean(upright) >= _MOST and (
        np.array_equal(TO_Y_UP[best][1], -TO_Y_UP[usual][1])
        or (rest is not None and (_along(rest)[best] > _UPRIGHT).all())
        or (places is not None and _walks(places[upright], trunk, TO_Y_UP[best][1]))
    ):
        return TO_Y_UP[best], f"{path}: {best} is up, not {usual} as usual"
    return TO_Y_UP[usual], f"{path}: {usual} is taken for up as usual, though people are not upright along it"


def _along(vectors: Float[np.ndarray, "n 3"]) -> dict[str, Float[np.ndarray, "n"]]:
    """Return the cosine of each vector with each axis; 0 of a vector without length."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return {axis: unit @ rotation[1] for axis, rotation in TO_Y_UP.items()}


def _walks(places: Float[np.ndarray, "k 3"], trunk: Float[np.ndarray, "frames 3"], up: Float[np.ndarray, "3"]) -> bool:
    """Tell whether people go far, and hardly up or down."""
    extent = np.ptp(places, axis=0)
    across = np.max(extent * (up == 0))
    size = np.linalg.norm(trunk, axis=-1).mean()
    return bool(across > _FAR * size and across > _LEVEL * np.max(extent * (up != 0)))
