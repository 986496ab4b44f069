"""Pictures of a fit: its annotation, the shaded body over the photograph, from the front and the side (Fig. 1).

Everything here stands in the crop's frame: x right, y down, z away, [-1, 1] across the square crop. Images are uint8
RGB, (height, width, 3).
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from dal_jax.body import cameras, kinematics, skeleton, skinning
from dal_jax.body.cameras import Pinhole
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations.observation import Observation, px_from_crop
from dal_jax.runtime import programs
from dal_jax.viewing import raycast
from dal_jax.viewing.raycast import Scene

Batch = TypeVar("Batch")

VIEW_PX = 384
"""Side of each of the four squares of `fit_picture`."""
BODY_COLOUR = (0.62, 0.72, 0.86)
GROUND_COLOUR = (255, 255, 255)
SIDE_COLOURS = {"left": (235, 110, 30), "right": (30, 110, 235), "middle": (60, 60, 60)}
"""Left limbs warm, right limbs cold: a mirrored fit shows at a glance."""

VIEWS = {
    "front": np.eye(3),
    "side": np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]),
    "top": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),
}
"""Rotations from the crop's frame to that of a view: as the camera sees a body, from the camera's right, where the near
side lies to the left, and from above, where it lies below."""

_SUPERSAMPLING = 2  # rays a pixel side; 2 is enough to hide the stairs at an edge
_LIGHT = np.array([-0.35, -0.55, -0.76])  # direction to the lamp: above the camera's left shoulder
_AMBIENT = 0.22
_MARGIN = 1.08  # empty border round a free-standing view


def fit_picture(
    crop: UInt8[np.ndarray, "s s 3"],
    template: Template,
    parameters: BodyParameters,
    observation: Observation,
) -> UInt8[np.ndarray, "s w 3"]:
    """Return four squares: annotation, body over the photograph, the body alone from the front and from its left.

    Args:
      crop: the person's square crop.
      template: the body.
      parameters: one person's. Of a body that is not finite the crop alone is returned.
      observation: the same person's.
    """
    vertices = posed_vertices(template, parameters, observation.pinhole)
    if not np.isfinite(vertices).all():
        return crop
    faces = np.asarray(template.faces)
    annotated = draw_observation(crop, observation)
    return np.concatenate(
        [annotated, overlay(crop, vertices, faces), *front_and_side(vertices, faces, len(crop))], axis=1
    )


def posed_vertices(
    template: Template, parameters: BodyParameters, pinhole: Pinhole | None = None
) -> Float[np.ndarray, "n 3"]:
    """Return the posed mesh in the crop's frame (eq. 1; z in the same unit, relative to the pelvis)."""
    return np.asarray(_posed_vertices(template, parameters, pinhole))


def select(batch: Batch, index: int) -> Batch:
    """Return one person of a batched struct (`BodyParameters`, `Observation`), as NumPy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[index]), batch)


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "m 3"],
    box_px: Float[np.ndarray, "4"] | None = None,
    opacity: float = 0.7,
) -> UInt8[np.ndarray, "h w 3"]:
    """Blend the shaded body over a photograph; pixels that the body does not touch are returned as they were.

    Args:
      image: the photograph, or a crop of it.
      vertices: in the crop's frame (`posed_vertices`).
      faces: of the mesh, rows of `vertices`.
      box_px: x, y, width, height of the square crop in `image`; by default `image` is the crop.
      opacity: 1 hides the photograph behind the body.

    Raises:
      ValueError: a vertex is not finite.
    """
    if not np.isfinite(vertices).all():
        raise ValueError("a body that is not finite cannot be drawn")
    height, width = image.shape[:2]
    x, y, box_width, box_height = (0.0, 0.0, width, height) if box_px is None else np.asarray(box_px, np.float64)
    to_px = np.array([box_width, box_height]) / 2.0
    vertices_px = vertices * np.append(to_px, to_px[0])
    vertices_px[:, :2] += to_px + (x, y)
    low = np.clip(np.floor(vertices_px[:, :2].min(axis=0)), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(vertices_px[:, :2].max(axis=0)), 0, (width, height)).astype(int)
    picture = image.copy()
    if (high <= low).any():
        return picture
    colour, coverage = _render(vertices_px, faces, low, high)
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    picture[window] = _blend(image[window], colour, opacity * coverage)
    return picture


def front_and_side(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], size: int
) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size 3"]]:
    """Return the body alone, as the camera sees it and from the camera's right; there the near side lies to the left.

    Both views fill their square (`size` px) at one common scale, so the viewing distance is not the photograph's (nor
    is it in the paper's Fig. 1).
    """
    return alone(vertices, faces, size, "front"), alone(vertices, faces, size, "side")


def alone(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], size: int, view: str
) -> UInt8[np.ndarray, "size size 3"]:
    """Return the body alone in one of the `VIEWS`, in a square that is as large for all of them."""
    ground = np.full((size, size, 3), GROUND_COLOUR, np.uint8)
    return overlay(ground, in_view(vertices, vertices, view), faces, opacity=1.0)


def in_view(
    points: Float[np.ndarray, "k 3"], vertices: Float[np.ndarray, "n 3"], view: str
) -> Float[np.ndarray, "k 3"]:
    """Return points of the crop's frame in the frame of the square that `alone` draws of a body: [-1, 1], y down."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return (points - (low + high) / 2.0) / view_extent(vertices) @ VIEWS[view].T


def view_extent(vertices: Float[np.ndarray, "n 3"]) -> float:
    """Return half the side of the square that `alone` draws of a body, in the crop's unit."""
    return float(np.max(np.ptp(vertices, axis=0)) / 2.0 * _MARGIN)


def draw_observation(image: UInt8[np.ndarray, "h w 3"], observation: Observation) -> UInt8[np.ndarray, "h w 3"]:
    """Draw annotated surface points (dots) and key points (stick figure: left warm, right cold, hidden ones left out).

    Args:
      image: the person's crop, of any size; a copy is returned.
      observation: one person's; what has confidence 0 is not read.
    """
    box_px = np.array([0.0, 0.0, image.shape[1], image.shape[0]])
    points_px = px_from_crop(
        np.asarray(observation.point_position)[np.asarray(observation.point_confidence) > 0], box_px
    )
    keypoints_px = np.asarray(px_from_crop(np.asarray(observation.keypoint_position), box_px))
    visible = np.asarray(observation.keypoint_confidence) > 0
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    radius = max(1.0, min(image.shape[:2]) / 200.0)
    for point in points_px:
        draw.ellipse(_disc(point, radius), fill=(40, 190, 90))
    names = skeleton.KEYPOINT_SETS[observation.keypoint_set]
    for joint, parent in enumerate(skeleton.KEYPOINT_PARENTS[observation.keypoint_set]):
        if parent >= 0 and visible[joint] and visible[parent]:
            ends = keypoints_px[[parent, joint]].ravel().tolist()
            draw.line(ends, fill=_side_colour(names[joint]), width=round(radius + 0.5))
    for joint in np.flatnonzero(visible).tolist():
        draw.ellipse(_disc(keypoints_px[joint], 1.6 * radius), fill=_side_colour(names[joint]))
    return np.asarray(picture)


def resize(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Return a square image at another resolution, so that a small crop can carry a sharp overlay."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


@programs.kept
def _posed_vertices(template: Template, parameters: BodyParameters, pinhole: Pinhole | None) -> jax.Array:
    segments = kinematics.pose_segments(template, parameters)
    return place_in_crop(skinning.skin_vertices(template, segments), parameters, pinhole)


@programs.kept
def place_in_crop(
    points_camera: Float[jax.Array | np.ndarray, "n 3"], parameters: BodyParameters, pinhole: Pinhole | None
) -> Float[jax.Array, "n 3"]:
    """Return points (camera axes, metres, relative to the pelvis) in the crop's frame, z in the same unit."""
    planar = cameras.project(jnp.asarray(points_camera), parameters.camera_scale, parameters.translation, pinhole)
    return jnp.concatenate([planar, jnp.multiply(parameters.camera_scale, points_camera[:, 2:])], axis=1)


def _render(vertices_px, faces, low, high) -> tuple[np.ndarray, np.ndarray]:
    """Return colour (h, w, 3) in [0, 1] and coverage (h, w, 1) of the pixels [low, high), from a grid of rays each."""
    (width, height), rays = (high - low).tolist(), _SUPERSAMPLING
    columns = raycast.pixel_centres(width * rays, int(low[0]), int(high[0]))
    rows = raycast.pixel_centres(height * rays, int(low[1]), int(high[1]))
    hits = Scene(vertices_px, faces).cast_grid(columns, rows)
    mask = hits.mask
    corners, weights = faces[hits.face[mask]], hits.barycentric[mask]
    normals = np.einsum("rc,rci->ri", weights, vertex_normals(vertices_px, faces)[corners])
    colour = np.zeros((*mask.shape, 3), np.float32)
    colour[mask] = _shade(normals)
    # sums over a pixel's rays, slice by slice: NumPy's over short axes takes four times as long
    pairs = [(slice(row, None, rays), slice(column, None, rays)) for row in range(rays) for column in range(rays)]
    count = np.sum([mask[pair] for pair in pairs], axis=0)[..., None]
    colour = np.sum([colour[pair] for pair in pairs], axis=0) / np.maximum(count, 1)
    return colour, count / rays**2


def _shade(normals: np.ndarray) -> np.ndarray:
    """Light a surface of `BODY_COLOUR`: a lamp, a little light from the camera, ambient, and a soft highlight."""
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    # A ray that meets the inside of the mesh (through a hole) sees the back of a face: light that side.
    normals = np.where(normals[:, 2:] > 0, -normals, normals)
    light = _LIGHT / np.linalg.norm(_LIGHT)
    lamp = np.clip(normals @ light, 0.0, None)
    headlight = np.clip(-normals[:, 2], 0.0, None)
    halfway = light + (0.0, 0.0, -1.0)
    highlight = np.clip(normals @ (halfway / np.linalg.norm(halfway)), 0.0, None) ** 30
    brightness = _AMBIENT + 0.6 * lamp + 0.3 * headlight
    return np.clip(brightness[:, None] * BODY_COLOUR + 0.12 * highlight[:, None], 0.0, 1.0)


def vertex_normals(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]) -> Float[np.ndarray, "n 3"]:
    """Return unit normals: the mean of those of the faces about a vertex, by their areas."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros(vertices.shape)
    for corner in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(faces[:, corner], face_normals[:, axis], len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


def _blend(image: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    mixed = image / 255.0 * (1.0 - alpha) + colour * alpha
    return np.where(alpha > 0, np.round(255.0 * mixed), image).astype(np.uint8)


def _disc(centre: np.ndarray, radius: float) -> tuple[float, float, float, float]:
    x, y = map(float, centre)
    return x - radius, y - radius, x + radius, y + radius


def _side_colour(name: str) -> tuple[int, int, int]:
    return SIDE_COLOURS.get(name.partition("_")[0], SIDE_COLOURS["middle"])
