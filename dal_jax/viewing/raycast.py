"""Ray casting of a triangle mesh: which face a ray meets first, where on it, and how far away.

Embree (the `embreex` wheel) runs on any CPU: no GL context, no display and no EGL driver, the usual trouble on servers.
One cast gives visibility, depth, shading and surface coordinates, so everything that draws a body starts here. A
perspective camera casts its own fan of rays through `Scene.cast`; the weak-perspective one (paper, eq. 1) sees along
parallel rays, which is `Scene.cast_grid`. What a camera sees of a posed body becomes annotation: surface points, spread
over the parts, each with its exact projection (`exact_points`).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Float, Int, Integer

MISS = -1
"""The face number of a ray that meets nothing."""


class Hits(NamedTuple):
    """The first face that each ray meets; of a ray that meets none: face `MISS`, barycentric 0, distance infinite."""

    face: Int[np.ndarray, "*rays"]
    barycentric: Float[np.ndarray, "*rays 3"]
    distance: Float[np.ndarray, "*rays"]

    @property
    def mask(self) -> np.ndarray:
        """True where a ray meets the mesh, (*rays,) bool."""
        return self.face != MISS


class Scene:
    """A mesh that rays can be cast at; building it takes about 20 ms for 27,000 faces, casting is faster."""

    def __init__(self, vertices: Float[np.ndarray, "n _"], faces: Int[np.ndarray, "m _"]):
        """Build the search tree of vertices (n, 3) and faces (m, 3).

        Raises:
          ValueError: a shape is wrong, a vertex is not finite, or a face names a vertex that is not there (Embree
            would read foreign memory).
        """
        vertices, faces = np.asarray(vertices), np.asarray(faces)
        for name, array in (("vertices", vertices), ("faces", faces)):
            if array.ndim != 2 or array.shape[1] != 3 or not len(array):
                raise ValueError(f"{name} must have shape (n, 3), got {array.shape}")
        if not np.isfinite(vertices).all():
            raise ValueError(f"vertex {np.argwhere(~np.isfinite(vertices))[0, 0]} is not finite")
        if faces.min() < 0 or faces.max() >= len(vertices):
            raise ValueError(f"faces name vertices {faces.min()}..{faces.max()}, but there are {len(vertices)}")
        # Robust traversal: without it a ray through an edge that two triangles share can slip between them.
        self._scene = EmbreeScene(robust=True)
        TriangleMesh(
            scene=self._scene,
            vertices=np.ascontiguousarray(vertices, np.float32),
            indices=np.ascontiguousarray(faces, np.int32),
        )
        self._nearest_z = float(vertices[:, 2].min())
        self._depth = float(np.ptp(vertices[:, 2]))

    def cast(self, origins: Float[np.ndarray, "*rays 3"], directions: Float[np.ndarray, "*rays 3"]) -> Hits:
        """Follow each ray to the first face it meets, from either side.

        `barycentric` weighs the face's corners in their order; the point met is `origin + distance * direction`, so
        the distance is in units of the direction's own length.
        """
        rows = (np.ascontiguousarray(rays.reshape(-1, 3), np.float32) for rays in (origins, directions))
        answer = self._scene.run(*rows, output=1)
        face, second, third, distance = (
            answer[name].reshape(directions.shape[:-1]) for name in ("primID", "u", "v", "tfar")
        )
        mask = face != MISS
        barycentric = np.empty((*face.shape, 3), np.float32)
        barycentric[..., 0], barycentric[..., 1], barycentric[..., 2] = 1.0 - second - third, second, third
        barycentric[~mask] = 0.0
        return Hits(face, barycentric, np.where(mask, distance, np.inf).astype(np.float32))

    def cast_grid(self, columns: Float[np.ndarray, " w"], rows: Float[np.ndarray, " h"]) -> Hits:
        """Cast parallel rays along +z through every (column x, row y), as a weak-perspective camera sees the mesh.

        The mesh must stand in the frame of `columns` and `rows`. `Hits` has leading axes (h, w); `distance` is the z
        of the point that is met, in that frame.
        """
        margin = 0.01 * self._depth + 1e-3
        start = self._nearest_z - margin
        x, y = np.meshgrid(columns, rows)
        origins = np.stack([x, y, np.full_like(x, start)], axis=-1)
        hits = self.cast(origins, np.broadcast_to(np.array([0.0, 0.0, 1.0], np.float32), origins.shape))
        return hits._replace(distance=hits.distance + np.float32(start))


def pixel_centres(size: int, low: float | int = -1.0, high: float | int = 1.0) -> Float[np.ndarray, " size"]:
    """Return where the centres of `size` pixels lie on [low, high]: by default the square crop's own [-1, 1]."""
    return low + (np.arange(size) + 0.5) * ((high - low) / size)


FEWEST, MOST = 100, 150
"""How many points are asked for on a person; a small or hidden one may show fewer."""


class Points(NamedTuple):
    """Annotated points: where in the photograph, and which surface point each shows."""

    px: Float[np.ndarray, "p 2"]
    face: Int[np.ndarray, "p"]
    barycentric: Float[np.ndarray, "p 3"]


def exact_points(
    cast: Callable[[Float[np.ndarray, "p 2"]], Hits],
    faces: int,
    part: Integer[np.ndarray, "s s"],
    grid_px: Float[np.ndarray, "s s 2"],
    random: np.random.Generator,
) -> Points:
    """Return visible surface points and their exact projections, spread over the parts seen.

    A point lies anywhere in its pixel; one that misses the body there, at an outline, is put in the pixel's middle.

    Args:
      cast: returns what rays through photograph pixels meet first.
      faces: how many faces the body has; those beyond are other things.
      part: of each pixel of the grid; 0 where the body is not seen.
      grid_px: the pixels' centres in the photograph.
      random: of the choice.
    """
    rows, columns = spread(part, int(random.integers(FEWEST, MOST + 1)), random)
    step = grid_px[0, 1, 0] - grid_px[0, 0, 0]
    centre = grid_px[rows, columns]
    px = centre + random.uniform(-0.5, 0.5, (len(rows), 2)) * step
    hits = cast(px)
    missed = (hits.face < 0) | (hits.face >= faces)
    px = np.where(missed[:, None], centre, px)
    hits = cast(px)
    return Points(px, hits.face, hits.barycentric.astype(np.float64))


def pixel_grid_px(box_px: Float[np.ndarray, "4"], size: int) -> Float[np.ndarray, "size size 2"]:
    """Return where the centres of a crop's pixels lie in the photograph."""
    step = (np.arange(size) + 0.5) / size * box_px[2]
    x, y = np.meshgrid(box_px[0] + step, box_px[1] + step)
    return np.stack([x, y], axis=-1)


def spread(part: Integer[np.ndarray, "s s"], count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose `count` pixels (rows, columns), or all: each part seen gets a share, evenly spread over it.

    A part's share grows with the square root of its size in the picture, for annotators give small parts more clicks a
    pixel than large ones.
    """
    body = np.flatnonzero(part)
    numbers, sizes = np.unique(part.ravel()[body], return_counts=True)
    place = _z_order(part.shape[0])
    chosen = np.zeros(part.size, bool)
    for number, size, share in zip(numbers, sizes, np.sqrt(sizes) / max(np.sqrt(sizes).sum(), 1e-9), strict=True):
        wanted = min(size, max(1, round(share * count)))
        pixels = np.flatnonzero(part == number)
        pixels = pixels[np.argsort(place[pixels])]
        stratum = (np.arange(wanted) + random.uniform(0, 1, wanted)) * size / wanted
        chosen[pixels[np.minimum(stratum.astype(int), size - 1)]] = True
    spare = body[~chosen[body]]
    missing = np.clip(count - chosen.sum(), 0, len(spare))  # small parts could not take their share
    chosen[random.choice(spare, missing, replace=False)] = True
    flat = random.permutation(np.flatnonzero(chosen))[:count]
    return flat // part.shape[1], flat % part.shape[1]


@functools.cache
def _z_order(size: int) -> Int[np.ndarray, "pixels"]:
    """Return the place of each pixel on a Z-order curve, along which neighbours stay neighbours."""
    row, column = (index.ravel() for index in np.indices((size, size)))
    code = np.zeros(size * size, np.int64)
    for bit in range(size.bit_length()):
        code |= ((row >> bit) & 1) << (2 * bit + 1) | ((column >> bit) & 1) << (2 * bit)
    return code
