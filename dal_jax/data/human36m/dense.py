"""What either route of dense annotation says of one video frame."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Dense(NamedTuple):
    """A person's square crop and annotated surface points, on the free body."""

    box_px: Float[np.ndarray, "4"]
    point_px: Float[np.ndarray, "p 2"]
    face: Int[np.ndarray, "p"]
    barycentric: Float[np.ndarray, "p 3"]
