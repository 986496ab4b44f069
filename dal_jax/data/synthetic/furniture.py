"""The chair under somebody who sits: boxes that fit the person, for they were sat on before they were built."""

import numpy as np
from jaxtyping import Float

from dal_jax.data.synthetic import shapes, view


def chair(vertices: Float[np.ndarray, "n 3"], random: np.random.Generator) -> Float[np.ndarray, "b 8 3"]:
    """Return the corners of a chair's boxes, in the figure's frame (y up, heading +z), for a posed body.

    The seat touches the lowest point of trunk and thighs, the back the hindmost of the trunk; it may be a stool.
    """
    surface = shapes.surface()
    trunk = vertices[np.unique(surface.faces[np.isin(surface.part, (1, 2))])]
    hips = trunk[trunk[:, 1] < trunk[:, 1].min() + 0.15]
    floor, top = vertices[:, 1].min(), trunk[:, 1].min()
    half = random.uniform(0.21, 0.27)
    back, front = hips[:, 2].min() - 0.02, hips[:, 2].min() + random.uniform(0.38, 0.46)
    boxes = []
    if random.random() < 0.25:
        boxes.append(((-half, floor, back), (half, top, front)))
    else:
        boxes.append(((-half, top - 0.04, back), (half, top, front)))
        for x in (-half, half - 0.03):
            for z in (back, front - 0.03):
                boxes.append(((x, floor, z), (x + 0.03, top - 0.04, z + 0.03)))
        if random.random() < 0.7:
            behind = trunk[:, 2].min() - 0.01
            boxes.append(((-half, top + 0.2, behind - 0.03), (half, top + random.uniform(0.4, 0.5), behind)))
    return np.stack([view.box_corners(np.array(low), np.array(high)) for low, high in boxes])
