"""A recipe of made people: every number that their images and annotations depend on; and who annotates them by it.

A human clicks, spread over what is seen of each part, each a little off; key points likewise. A machine predicts.
"""

import dataclasses
import functools
import hashlib
import json

import numpy as np
import scipy.ndimage
import scipy.spatial
from jaxtyping import Float, Int, UInt8

from dal_jax.body import triangles
from dal_jax.body.formats import load
from dal_jax.synthetic import actors
from dal_jax.viewing.raycast import FEWEST, MOST, Points, spread

TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
ROUTES = ("annotator", "mosh", "densepose")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One data set; the same recipe gives the same bytes, whenever and in whatever order its people are made.

    route: how surface points are annotated. 'annotator': a person clicks, and errs by a little; 'mosh': exact
    projections (paper, 6.1: bodies from MoSh); 'densepose': taken from a degraded IUV prediction.
    """

    name: str
    train_count: int
    test_count: int
    image_size: int  # px, of the square crop
    seed: int = 2019
    route: str = "annotator"
    heading_spread_deg: float = 180.0  # the person faces the camera within this angle; 180: any heading
    takes: int = 24  # recordings of each action by each subject
    supersample: int = 2  # rays a pixel along each axis
    click_noise: float = 0.004  # standard deviation of an annotator's click, as a share of the crop's side
    surface_noise_m: float = 0.012  # of the surface point chosen for it, along each tangent direction
    outlier_rate: float = 0.01  # share of points put anywhere on their part
    keypoint_noise: float = 0.007  # standard deviation of a visible key point, as a share of the crop's side
    hidden_keypoint_noise: float = 0.014  # of a key point that the annotator had to guess
    clutter: float = 1.0  # how busy the walls are; 0: plain, with a gradient of light
    occluder_rate: float = 0.10  # share of people with something in front of them
    views: int = 1  # cameras that photograph every moment, of the scene's four; 1: each moment one of them
    motions: str = ""  # folder of AMASS's .npz, whose moments are taken in the place of the fifteen actions
    true_vertices: str = "test"  # 'none', 'test' or 'all': whose true vertices are kept (40 kB each)

    def subjects(self, split: str) -> tuple[str, ...]:
        """Return the names of a split's subjects (Human3.6M's protocol 1)."""
        return TRAIN_SUBJECTS if split == "train" else TEST_SUBJECTS

    def count(self, split: str) -> int:
        """Return how many people a split has."""
        return self.train_count if split == "train" else self.test_count

    def of_recordings(self, folder: str) -> "Recipe":
        """Return the same recipe, under another name, of people who do what is recorded in a folder."""
        return dataclasses.replace(self, name=f"{self.name}_recorded", motions=folder)

    def annotated_by(self, route: str) -> "Recipe":
        """Return the same people and pictures, under another name, with surface points by another of ROUTES."""
        return self if route == self.route else dataclasses.replace(self, name=f"{self.name}_{route}", route=route)

    def digest(self) -> str:
        """Return a short name of everything the data depends on: the recipe, the bodies, the version of the code."""
        values = dataclasses.asdict(self)
        if self.views == 1:  # made as before there were several
            del values["views"]
        if values.pop("motions"):
            values["motions"] = actors.recordings_digest(self.motions)  # wherever the folder is
        text = json.dumps(values, sort_keys=True) + VERSION
        content = hashlib.sha256(text.encode())
        for file in (load.FREE_BODY, actors.SUBJECT_SHAPES):
            content.update(file.read_bytes())
        return content.hexdigest()[:12]


VERSION = "1.0.0"
"""Of the code that makes people."""

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("tiny", train_count=24, test_count=12, image_size=64, true_vertices="all", occluder_rate=0.25),
        Recipe("demo", 12_000, 1_000, image_size=64, route="mosh", heading_spread_deg=90.0, clutter=0.4),
        Recipe("small", 2_000, 500, image_size=64, route="mosh", heading_spread_deg=90.0, clutter=0.4),
        Recipe("large", 24_000, 1_000, image_size=64, route="mosh", heading_spread_deg=90.0, clutter=0.4),
        Recipe("views", 16_000, 1_000, image_size=64, route="mosh", clutter=0.4, views=4),
        Recipe("full", train_count=100_000, test_count=10_000, image_size=224),
    )
}
"""tiny: tests. demo: what a small network learns in minutes; small: its first people; large: these and as many more.
views: moments that four cameras see. full: the paper's number of images, any heading.
"""


# --- Annotation by a human ---


def err(points: Points, side_px: float, recipe: Recipe, random: np.random.Generator) -> Points:
    """Return the points as a human would give them: the click off in the picture, the match off on the surface.

    A few are put anywhere on their part. A match stays on its part, because annotators work part by part.
    """
    surface = actors.surface()
    click = random.normal(0, recipe.click_noise * side_px, points.px.shape)
    corner = actors.corners()[points.face].astype(np.float64)
    rest = np.einsum("pc,pcd->pd", points.barycentric, corner)
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    off = random.normal(0, recipe.surface_noise_m, rest.shape)
    off -= np.sum(off * normal, axis=1, keepdims=True) * normal
    face, barycentric = nearest_on_surface(rest + off)
    face, barycentric = _throw(face, barycentric, recipe.outlier_rate, random)
    same = surface.part[face] == surface.part[points.face]
    face = np.where(same, face, points.face)
    barycentric = np.where(same[:, None], barycentric, points.barycentric)
    return Points(points.px + click, face, barycentric)


def keypoints(
    joints_px: Float[np.ndarray, "k 2"],
    visible: np.ndarray,
    side_px: float,
    recipe: Recipe,
    random: np.random.Generator,
) -> Float[np.ndarray, "k 2"]:
    """Return key points as annotated: a little off, hidden ones (which are guessed) more so."""
    spread_px = np.where(visible, recipe.keypoint_noise, recipe.hidden_keypoint_noise) * side_px
    return joints_px + random.normal(0, 1, joints_px.shape) * spread_px[:, None]


def nearest_on_surface(rest: Float[np.ndarray, "p 3"]) -> tuple[Int[np.ndarray, "p"], Float[np.ndarray, "p 3"]]:
    """Return (face, barycentric) of the rest surface's point near each point: on the face whose middle is nearest."""
    return triangles.nearest(rest, actors.corners().astype(np.float64), _face_tree(), neighbours=1)


@functools.cache
def _face_tree() -> scipy.spatial.KDTree:
    return scipy.spatial.KDTree(actors.corners().mean(axis=1))


def _throw(face: np.ndarray, barycentric: np.ndarray, rate: float, random: np.random.Generator):
    """Replace a share `rate` of the points by any point of their part."""
    part = actors.surface().part
    face, barycentric = face.copy(), barycentric.copy()
    for row in np.flatnonzero(random.random(len(face)) < rate):
        face[row] = random.choice(np.flatnonzero(part == part[face[row]]))
        barycentric[row] = random.dirichlet(np.ones(3))
    return face, barycentric


# --- Annotation by machine: an IUV prediction with a network's mistakes, and the points read off it (paper, 6.1) ---


def _swapped(pairs: dict[int, int]) -> np.ndarray:
    table = np.arange(25)
    for a, b in pairs.items():
        table[a], table[b] = b, a
    return table


LEFT_RIGHT = _swapped({3: 4, 5: 6, 7: 8, 9: 10, 11: 12, 13: 14, 15: 16, 17: 18, 19: 20, 21: 22, 23: 24})
"""DensePose's part on the other side, by part number."""

FRONT_BACK = _swapped({1: 2, 7: 9, 8: 10, 11: 13, 12: 14, 15: 17, 16: 18, 19: 21, 20: 22})
"""DensePose's part on the other face of the limb or trunk, by part number."""


def degrade(iuv: UInt8[np.ndarray, "s s 3"], random: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """Return an IUV map as a network would predict it.

    Outlines and borders between parts wander by about a hundredth of the picture; in blobs the side (left for right) or
    the face (front for back) is wrong; there are holes; U and V are blurred inside each part and drift.
    """
    size = len(iuv)
    rows, columns = np.indices((size, size), dtype=np.float64)
    rows += _smooth(size, random) * 0.012 * size
    columns += _smooth(size, random) * 0.012 * size
    rows, columns = (np.clip(np.round(c), 0, size - 1).astype(int) for c in (rows, columns))
    part, uv = iuv[rows, columns, 0].astype(np.int64), iuv[rows, columns, 1:].astype(np.float64)
    uv = _blur(part, uv, 0.02 * size)
    uv += np.stack([_smooth(size, random), _smooth(size, random)], axis=-1) * 7.0 + random.normal(0, 3.0, uv.shape)
    for table, rate in ((LEFT_RIGHT, 1.2), (FRONT_BACK, 1.2), (np.zeros(25, int), 1.5)):
        for _ in range(random.poisson(rate)):
            blob = _blob(part, random)
            part[blob] = table[part[blob]]
    out = np.concatenate([part[..., None], np.clip(np.round(uv), 0, 255)], axis=-1).astype(np.uint8)
    out[part == 0] = 0
    return out


def read_points(
    iuv: UInt8[np.ndarray, "s s 3"], grid_px: Float[np.ndarray, "s s 2"], random: np.random.Generator
) -> Points:
    """Return points of a prediction: pixels, and for each the template's vertex nearest in UV within its part."""
    rows, columns = spread(iuv[..., 0], int(random.integers(FEWEST, MOST + 1)), random)
    part, uv = iuv[rows, columns, 0].astype(np.int64), iuv[rows, columns, 1:] / 255.0
    face, corner = _nearest_vertex(part, uv)
    return Points(grid_px[rows, columns], face, np.eye(3)[corner])


def _nearest_vertex(part: Int[np.ndarray, "p"], uv: Float[np.ndarray, "p 2"]) -> tuple[np.ndarray, np.ndarray]:
    face, corner = np.zeros(len(part), np.int64), np.zeros(len(part), np.int64)
    for number in np.unique(part):
        tree, faces = _uv_tree(int(number))
        rows = part == number
        _, nearest = tree.query(uv[rows])
        face[rows], corner[rows] = faces[nearest // 3], nearest % 3
    return face, corner


@functools.cache
def _uv_tree(part: int) -> tuple[scipy.spatial.KDTree, np.ndarray]:
    faces = np.flatnonzero(actors.surface().part == part)
    return scipy.spatial.KDTree(actors.surface().uv[faces].reshape(-1, 2)), faces


def _smooth(size: int, random: np.random.Generator) -> Float[np.ndarray, "s s"]:
    """Return a smooth random field of standard deviation 1."""
    coarse = random.normal(0, 1, (8, 8))
    field = np.asarray(scipy.ndimage.zoom(coarse, size / 8, order=1, mode="nearest", grid_mode=True))
    return field / max(field.std(), 1e-9)


def _blob(part: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a disc about a pixel of the body."""
    body = np.flatnonzero(part)
    if not len(body):
        return np.zeros(part.shape, bool)
    row, column = divmod(int(random.choice(body)), part.shape[1])
    radius = random.uniform(0.03, 0.09) * len(part)
    rows, columns = np.indices(part.shape)
    return (part > 0) & ((rows - row) ** 2 + (columns - column) ** 2 < radius**2)


def _blur(part: np.ndarray, uv: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth U and V inside each part, without mixing parts."""
    out = uv.copy()
    for number in np.unique(part[part > 0]):
        inside = (part == number).astype(np.float64)
        weight = scipy.ndimage.gaussian_filter(inside, sigma)
        for channel in range(2):
            smooth = scipy.ndimage.gaussian_filter(uv[..., channel] * inside, sigma)
            out[..., channel] = np.where(inside > 0, smooth / np.maximum(weight, 1e-9), out[..., channel])
    return out
