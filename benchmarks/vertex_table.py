"""Whole IUV pictures at once: the nearest template vertex of every pixel in (u, v), part by part (section 6.1).

Pictures hold u and v in 8 bits, so that there are 24 x 256 x 256 different pixels in all: the nearest vertex of each is
found once, exactly, and a picture is then one table look-up a pixel.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from dal_jax.observations.chart import PARTS, Chart

BACKGROUND = -1
_LEVELS = 256


@flax.struct.dataclass
class VertexTable:
    """A chart's vertices, sorted by part, u, v (each once), and the nearest one of every possible pixel.

    nearest: row ((part x 256) + u) x 256 + v of 8-bit u and v; `BACKGROUND` for part 0.
    part, uv: of the vertices. face, barycentric: the points of the body's surface that they are.
    """

    nearest: Int[Array, "1638400"]
    part: Int[Array, "k"]
    uv: Float[Array, "k 2"]
    face: Int[Array, "k"]
    barycentric: Float[Array, "k 3"]


def build(chart: Chart) -> VertexTable:
    """Measure the distance of every pixel value to every vertex of its part, about a second.

    Of equally near vertices the first is taken: that of smaller u, then of smaller v.
    """
    part, uv = np.repeat(chart.part, 3), chart.uv.reshape(-1, 2)
    order = np.lexsort((uv[:, 1], uv[:, 0], part))
    key = np.column_stack([part, uv])[order]
    first = np.append(True, (key[1:] != key[:-1]).any(axis=1))
    kept = order[first]  # lexsort is stable: of corners at one place that of the first triangle
    nearest = np.full((PARTS + 1, _LEVELS, _LEVELS), BACKGROUND, np.int32)
    for number in np.unique(part):
        rows = np.flatnonzero(part[kept] == number)
        nearest[number] = rows[_nearest_of_part(uv[kept[rows]])]
    return VertexTable(
        nearest=nearest.ravel(),
        part=part[kept].astype(np.int32),
        uv=uv[kept].astype(np.float32),
        face=chart.corner_face.reshape(-1)[kept].astype(np.int32),
        barycentric=chart.corner_barycentric.reshape(-1, 3)[kept].astype(np.float32),
    )


def nearest_vertices(table: VertexTable, picture: UInt8[Array, "h w 3"]) -> Int[Array, "h w"]:
    """Return the nearest vertex of each pixel, `BACKGROUND` where there is no part 1 to 24.

    Channels as a reader in RGB order finds them in DensePose's files: v, u, part (`iuv.read_iuv`).
    """
    v, u, part = (picture[..., channel].astype(jnp.int32) for channel in range(3))
    vertex = table.nearest[(part * _LEVELS + u) * _LEVELS + v]  # of a part above 24 it is anything
    return jnp.where(part > PARTS, BACKGROUND, vertex)


@jax.jit
def decode(table: VertexTable, pictures: UInt8[Array, "n h w 3"]) -> Int[Array, "n h w"]:
    """Return `nearest_vertices` of pictures of one size."""
    return jax.vmap(nearest_vertices, in_axes=(None, 0))(table, pictures)


def _nearest_of_part(uv: Float[np.ndarray, "k 2"]) -> Int[np.ndarray, "256 256"]:
    """Return for every 8-bit (u, v) the row of the nearest vertex."""
    level = np.arange(_LEVELS) / (_LEVELS - 1)
    along_u, along_v = ((level[:, None] - uv[None, :, axis]) ** 2 for axis in range(2))
    return np.stack([np.argmin(row[None] + along_v, axis=1) for row in along_u])
