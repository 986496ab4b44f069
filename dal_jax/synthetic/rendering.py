"""What people wear: skin, hair, top, bottoms and shoes, cut by lines on the rest body, in colours of a take's own."""

import colorsys
from collections.abc import Callable

import numpy as np
import scipy.ndimage
from jaxtyping import Float, Int, UInt8

from dal_jax.body import skeleton
from dal_jax.observations.human36m_cameras import Extrinsics
from dal_jax.synthetic import actors
from dal_jax.synthetic.view import View, box_corners, position_of, rays
from dal_jax.viewing.raycast import Hits

_LOOKS = {
    "S1": ((224, 180, 150), (92, 60, 40), "long", False),
    "S5": ((141, 96, 66), (30, 25, 23), "long", False),
    "S6": ((206, 158, 124), (40, 32, 28), "short", True),
    "S7": ((236, 196, 170), (120, 112, 104), "bald", False),
    "S8": ((244, 206, 180), (150, 92, 48), "short", False),
    "S9": ((190, 140, 104), (26, 22, 20), "cropped", True),
    "S11": ((238, 200, 172), (186, 150, 96), "long", False),
}
"""What a subject keeps whatever the day: skin and hair (red, green, blue of 255), the cut, a beard."""
_ARM_PARTS = np.isin(np.arange(25), (3, 4, *range(15, 23)))
_LEG_PARTS = np.isin(np.arange(25), range(5, 15))
_FEET = np.isin(np.arange(25), (5, 6))
_HEAD = np.isin(np.arange(25), actors.HEAD)


Clothes = Callable[[Int[np.ndarray, "p"], Float[np.ndarray, "p 3"]], Float[np.ndarray, "p 3"]]
"""Returns the albedo, 0..1, of points of the free body given by face and rest position."""


def dress(subject: str, day: np.random.Generator) -> Clothes:
    """Draw one set of clothes, which paints points of the body by where they lie on the rest surface.

    subject: whose skin and hair; day: draws the clothes, which a subject changes.
    """
    skin = _look(subject)[0]
    top_colour, top_pattern = _cloth(day), _pattern(day)
    bottom_colour = _cloth(day, dark=0.6)
    bottom_pattern = _pattern(day, plain=0.75)
    shoe_colour, sole = _cloth(day, dark=0.7), day.uniform(0.1, 0.9)
    sleeve = day.choice([-0.05, 0.32, 0.42, 0.70, 0.96, 0.96])  # share of the arm
    trousers = day.choice([0.28, 0.45, 0.55, 0.92, 0.92, 0.92, 0.92])  # share of the leg
    hem = day.uniform(-0.12, 0.06)  # where the top ends, m above the hips' middle
    neckline = day.uniform(0.01, 0.09)  # its depth, m
    shoe_top = day.choice([0.955, 0.93, 0.86])

    def colour(face: Int[np.ndarray, "p"], rest: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, "p 3"]:
        part = actors.surface().part[face]
        x, y, z = rest.T
        line = _lines()
        arm = np.where(_ARM_PARTS[part], (np.abs(x) - line["shoulder"]) / line["arm"], -1.0)
        leg = np.where(_LEG_PARTS[part], (line["hip"] - y) / line["leg"], -1.0)
        out = np.broadcast_to(skin, rest.shape).copy()
        trunk = ~_HEAD[part] & ~_ARM_PARTS[part]
        top = (trunk & (y > hem) & (y < line["neck"] - neckline * _opening(x, z))) | (_ARM_PARTS[part] & (arm < sleeve))
        bottom = trunk & ~top & (y < line["neck"] - 0.3) & (leg < trousers)
        shoe = _FEET[part] | (leg > shoe_top)
        out[top] = top_pattern(top_colour, rest[top])
        out[bottom] = bottom_pattern(bottom_colour, rest[bottom])
        out[shoe] = np.where((y[shoe] < line["sole"])[:, None], sole, shoe_colour)
        _paint_head(subject, out, _HEAD[part], rest, line)
        return np.clip(out, 0.02, 0.98)

    return colour


def _look(subject: str) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"], str, bool]:
    """Return a subject's skin and hair, 0..1, the cut, and whether there is a beard."""
    skin, hair, style, beard = _LOOKS[subject]
    return np.array(skin) / 255, np.array(hair) / 255, style, beard


def _paint_head(subject: str, out: np.ndarray, head: np.ndarray, rest: np.ndarray, line: dict) -> None:
    skin, hair_colour, style, beard = _look(subject)
    x, y, z = rest.T
    eyes, ear, nose, mouth = (line["face"][name] for name in ("eyes", "ear", "nose", "mouth"))
    front = z > ear[2] + 0.03
    red = np.array([0.62, 0.30, 0.28])
    lips = head & front & (((np.abs(x) / 0.024) ** 2 + ((y - mouth[1]) / 0.009) ** 2) < 1)
    out[lips] = 0.4 * out[lips] + 0.6 * red * skin.mean() * 1.5
    beside = np.abs(np.abs(x) - 0.031)
    white = head & front & (((beside / 0.014) ** 2 + ((y - eyes[1]) / 0.0075) ** 2) < 1)
    out[white] = 0.85
    out[head & front & ((beside**2 + (y - eyes[1]) ** 2) < 0.0065**2)] = 0.10
    out[head & front & (beside < 0.018) & (np.abs(y - eyes[1] - 0.020) < 0.0045)] = hair_colour
    if beard:
        low = head & (z > ear[2] - 0.005) & (y < nose[1] - 0.018) & ~lips & (y > line["neck"] + 0.02)
        out[low] = 0.35 * out[low] + 0.65 * hair_colour
    if style == "bald":
        return
    hairline = line["head_top"] - (0.055 if style == "cropped" else 0.075)
    back = z < ear[2] - 0.015
    nape = {"short": nose[1] - 0.03, "cropped": nose[1] + 0.01, "long": line["neck"] - 0.02}[style]
    side = z < ear[2] + 0.02
    hair = head & ((y > hairline) | (back & (y > nape)) | (side & (y > ear[1] + 0.035)))
    out[hair] = hair_colour * (0.85 + 0.3 * ((np.sin(x[hair] * 180) * np.sin(z[hair] * 140)) > 0))[:, None]


def _pattern(random: np.random.Generator, plain: float = 0.45) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Draw plain cloth, stripes, checks or a print on the chest; return (colour, rest positions) -> colours."""
    kinds = ["hoops", "pinstripe", "checks", "print", "yoke"]
    kind = "plain" if random.random() < plain else str(random.choice(kinds))
    second = _cloth(random)
    width = random.uniform(0.03, 0.09)
    shift = random.uniform(0, 1)

    def colours(colour: np.ndarray, rest: np.ndarray) -> np.ndarray:
        x, y, z = rest.T
        wave_y, wave_x = ((c / width + shift) % 1.0 for c in (y, x))
        masks = {
            "hoops": wave_y < 0.45,
            "pinstripe": wave_x < 0.22,
            "checks": (wave_y < 0.5) ^ (wave_x < 0.5),
            "print": (np.abs(x) < 0.09) & (z > 0.02) & (np.abs(y - 0.28) < 0.07),
            "yoke": y > 0.27,
            "plain": np.zeros(len(x), bool),
        }
        return np.where(masks[kind][:, None], second, colour)

    return colours


def _cloth(random: np.random.Generator, dark: float = 0.3) -> np.ndarray:
    """Draw a colour such as clothes have: often muted, sometimes black, grey, white or denim."""
    value = random.uniform(0.12, 0.45) if random.random() < dark else random.uniform(0.4, 0.92)
    saturation = random.choice([0.04, 0.25, 0.5, 0.75])
    return np.array(colorsys.hsv_to_rgb(random.uniform(), saturation, value))


def _opening(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return how deep the neckline is cut, 0..1, at a place of the trunk: in front, near the middle."""
    return np.where(z > 0, np.clip(1.2 - np.abs(x) / 0.07, 0.0, 1.0), 0.15)


def _lines() -> dict:
    """Return the lines of the rest body that clothes are cut along, metres."""
    joints = dict(zip(skeleton.SMPL_JOINT_NAMES, actors.surface().joints, strict=True))
    face = actors.template_landmarks()
    return {
        "shoulder": joints["left_shoulder"][0],
        "arm": joints["left_wrist"][0] - joints["left_shoulder"][0],
        "hip": joints["left_hip"][1],
        "leg": joints["left_hip"][1] - joints["left_ankle"][1],
        "neck": joints["neck"][1],
        "sole": actors.surface().vertices[:, 1].min() + 0.018,
        "head_top": face["head_top"][1],
        "face": face,
    }


# The photograph of a person: light on skin and cloth, in front of a backdrop; and the exact map of its surface.


Light = Callable[[Float[np.ndarray, "p 3"]], Float[np.ndarray, "p 3"]]
"""Returns how much light a surface of a normal sends back, before its own colour (Lambert)."""


def draw_light(up: Float[np.ndarray, "3"], random: np.random.Generator) -> Light:
    """Draw a picture's lamp, a weaker one from elsewhere, and light from all around.

    up: the world's upward direction in the camera's frame.
    """
    lamps = []
    for strength in (random.uniform(0.45, 0.85), random.uniform(0.0, 0.3)):
        towards = 0.6 * up + [0.0, 0.0, -0.5] + random.normal(0, 0.55, 3)
        lamps.append((strength, towards / np.linalg.norm(towards)))
    ambient = random.uniform(0.30, 0.55)
    tint = random.normal(1.0, 0.04, 3)

    def light(normal: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, "p 3"]:
        total = ambient * (0.75 + 0.25 * normal @ up)
        for strength, towards in lamps:
            total = total + strength * np.maximum(normal @ towards, 0.0)
        return total[:, None] * tint

    return light


def paint(
    view: View, hits: Hits, clothes: Clothes, light: Light, furniture: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "*b 3"]:
    """Return the colours, 0..1, of what rays met; furniture: the colour of chairs. Black where they met nothing."""
    face, barycentric = hits.face.ravel(), hits.barycentric.reshape(-1, 3)
    body = np.flatnonzero((face >= 0) & (face < view.body_faces))
    colour = np.zeros((len(face), 3))
    met, weight = face[body], barycentric[body]
    surface = actors.surface()
    rest = np.einsum("pc,pcd->pd", weight, actors.corners()[met])
    normal = np.einsum("pc,pcd->pd", weight, view.normals[surface.faces[met]])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    colour[body] = clothes(met, rest) * light(normal)
    other = np.flatnonzero(face >= view.body_faces)
    if len(other):
        shade = np.array([0.8, 0.8, 0.55, 0.65, 1.0, 0.9])[(face[other] - view.body_faces) % 12 // 2]
        colour[other] = furniture * shade[:, None]
    return colour.reshape(*hits.face.shape, 3)


def photograph(
    view: View,
    centres: Hits,
    grid_px: Float[np.ndarray, "s s 2"],
    fine: int,
    shade: Callable[[Hits], Float[np.ndarray, "k f 3"]],
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "s s"]]:
    """Return (colours times coverage, coverage) of the crop, fine x fine rays a pixel.

    centres: what the rays through the pixels' centres met; only pixels there and next to there are looked at again.
    """
    near = np.asarray(scipy.ndimage.binary_dilation(centres.mask, np.ones((3, 3), bool)), bool)
    step = grid_px[0, 1, 0] - grid_px[0, 0, 0]
    offset = ((np.arange(fine) + 0.5) / fine - 0.5) * step
    inside = np.stack(np.meshgrid(offset, offset), axis=-1).reshape(1, -1, 2)
    hits = view.cast(grid_px[near][:, None] + inside)
    image, cover = np.zeros((*near.shape, 3)), np.zeros(near.shape)
    image[near], cover[near] = shade(hits).mean(axis=1), hits.mask.mean(axis=1)
    return image, cover


def iuv_map(view: View, hits: Hits) -> UInt8[np.ndarray, "s s 3"]:
    """Return DensePose's picture of the surface: part (0: none), and u and v times 255."""
    image = np.zeros((*hits.face.shape, 3), np.uint8)
    body = (hits.face >= 0) & (hits.face < view.body_faces)
    face, weight = hits.face[body], hits.barycentric[body]
    surface = actors.surface()
    image[body, 0] = surface.part[face]
    image[body, 1:] = np.round(255 * np.clip(np.einsum("pc,pcd->pd", weight, surface.uv[face]), 0, 1))
    return image


# --- What stands around a person ---


def paint_room(
    camera: Extrinsics,
    points_px: Float[np.ndarray, "s s 2"],
    feet_world: Float[np.ndarray, "f 2"],
    clutter: float,
    random: np.random.Generator,
) -> Float[np.ndarray, "s s 3"]:
    """Return the colours, 0..1, of a room: the floor meets the wall where this camera would see it meet.

    feet_world: where the person touches the floor (x, z), for the shadow; clutter: how busy the wall is.
    """
    size = points_px.shape[0]
    rotation, position = camera[:, :3], position_of(camera)
    direction = rays(points_px) @ rotation
    down = np.maximum(-direction[..., 1], 1e-4)
    ground = position + direction * (position[1] / down)[..., None]
    ahead = rotation[2]
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
    azimuth = random.uniform(0, np.pi)
    along = (np.cos(azimuth) * ground[..., 0] + np.sin(azimuth) * ground[..., 2]) / step
    across = (-np.sin(azimuth) * ground[..., 0] + np.cos(azimuth) * ground[..., 2]) / step
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


# --- The chair under a sitting person: boxes that fit the person, for they were sat on before they were built ---


def chair(vertices: Float[np.ndarray, "n 3"], random: np.random.Generator) -> Float[np.ndarray, "b 8 3"]:
    """Return the corners of a chair's boxes, in the figure's frame (y up, facing +z), for a posed body.

    The seat touches the lowest point of trunk and thighs, the back the hindmost of the trunk; it may be a stool.
    """
    surface = actors.surface()
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
    return np.stack([box_corners(np.array(low), np.array(high)) for low, high in boxes])
