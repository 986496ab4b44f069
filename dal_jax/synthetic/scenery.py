"""What stands around a person: a wall and a floor with a shadow, things on the wall, things in front of the person."""

import numpy as np
from jaxtyping import Float

from dal_jax.synthetic import shapes, view
from dal_jax.synthetic.view import Camera


def paint(
    camera: Camera,
    points_px: Float[np.ndarray, "s s 2"],
    feet_world: Float[np.ndarray, "f 2"],
    clutter: float,
    random: np.random.Generator,
) -> Float[np.ndarray, "s s 3"]:
    """Return the colours, 0..1, of a room: the floor meets the wall where this camera would see it meet.

    feet_world: where the person touches the floor (x, z), for the shadow; clutter: how busy the wall is.
    """
    size = points_px.shape[0]
    direction = view.rays(points_px) @ camera.rotation
    down = np.maximum(-direction[..., 1], 1e-4)
    ground = camera.position + direction * (camera.position[1] / down)[..., None]
    ahead = camera.rotation[2]
    beyond = ground[..., 0] * ahead[0] + ground[..., 2] * ahead[2]
    wall = (beyond > random.uniform(1.2, 5.0)) | (direction[..., 1] > -1e-3)
    image = np.where(wall[..., None], _wall(size, clutter, random), _floor(ground, random))
    near = np.min([(ground[..., 0] - x) ** 2 + (ground[..., 2] - z) ** 2 for x, z in feet_world], axis=0)
    shadow = random.uniform(0.2, 0.55) * np.exp(-near / random.uniform(0.02, 0.09))
    image *= np.where(wall, 1.0, 1.0 - shadow)[..., None]
    return image


def occluder(size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (mask, colours) of something in front of the crop: a post, a table's edge, a ball."""
    x, y = np.meshgrid((np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size)
    kind = random.choice(["post", "table", "ellipse"])
    cx, cy = random.uniform(0.2, 0.8, 2)
    if kind == "post":
        mask = np.abs(x - cx) < random.uniform(0.03, 0.08)
    elif kind == "table":
        mask = y > random.uniform(0.62, 0.88)
    else:
        a, b = random.uniform(0.06, 0.16, 2)
        mask = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1
    shade = 0.85 + 0.3 * (x - cx)
    return mask, np.clip(random.uniform(0.1, 0.9, 3) * shade[..., None], 0, 1)


def _wall(size: int, clutter: float, random: np.random.Generator) -> np.ndarray:
    """Return a wall with a gradient of light, stains, and some rectangles on it."""
    base = random.uniform(0.15, 0.9) + random.normal(0, 0.07, 3)
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    slope = random.normal(0, 0.10, 2)
    image = (
        base + (slope[0] * x + slope[1] * y)[..., None] + _stains(size, random, clutter * random.uniform(0.01, 0.07))
    )
    for _ in range(random.binomial(5, 0.4 * clutter)):
        cx, cy = random.uniform(-1, 1, 2)
        width, height = random.uniform(0.08, 0.7, 2)
        inside = (np.abs(x - cx) < width) & (np.abs(y - cy) < height)
        image[inside] = 0.35 * image[inside] + 0.65 * random.uniform(0.05, 0.95, 3)
    return image


def _floor(ground: np.ndarray, random: np.random.Generator) -> np.ndarray:
    base = random.uniform(0.15, 0.75) + random.normal(0, 0.05, 3)
    step = random.uniform(0.15, 0.9)
    turn = random.uniform(0, np.pi)
    along = (np.cos(turn) * ground[..., 0] + np.sin(turn) * ground[..., 2]) / step
    across = (-np.sin(turn) * ground[..., 0] + np.cos(turn) * ground[..., 2]) / step
    kind = random.choice(["plain", "planks", "tiles"])
    light = 1.0 + random.normal(0, 0.03) * np.clip(ground[..., 2], -4, 4)
    if kind == "planks":
        light = light * (1 + 0.12 * np.sin(np.floor(along) * 12.9898))
    elif kind == "tiles":
        light = light * np.where((np.floor(along) + np.floor(across)) % 2 > 0, 1.0, random.uniform(0.75, 0.95))
    return base * np.clip(light, 0.4, 1.6)[..., None]


def _stains(size: int, random: np.random.Generator, amplitude: float) -> np.ndarray:
    """Return smooth coloured noise: a coarse grid, enlarged bilinearly."""
    grid = random.normal(0, amplitude, (9, 9, 1)) + random.normal(0, amplitude / 3, (9, 9, 3))
    where = np.linspace(0, 7.999, size)
    low = where.astype(int)
    part = (where - low)[:, None, None]
    rows = grid[low] * (1 - part) + grid[low + 1] * part
    part = part.transpose(1, 0, 2)
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


# --- The chair under somebody who sits: boxes that fit the person, for they were sat on before they were built ---


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
