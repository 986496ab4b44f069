"""Skinning weights of many segments to the four a vertex that a body file has."""

import dataclasses
import functools

import numpy as np
import scipy.spatial
from jaxtyping import Float, Int

from dal_jax.body import skeleton, triangles
from dal_jax.body.formats import load
from dal_jax.body.template import Fields
from dal_jax.runtime import door

SLOTS = 4
REGRESSORS = ("h36m_regressor", "body25b_regressor")


def four_largest(weights: Float[np.ndarray, "n segments"]) -> tuple[Int[np.ndarray, "n 4"], Float[np.ndarray, "n 4"]]:
    """Return (skin_index, skin_weight): the stored weights, as they are, of a vertex that has at most four.

    Of more than four the largest are kept and made to sum to what they all had; of equal ones the first.
    """
    order = np.argsort(-weights, axis=1, kind="stable")[:, :SLOTS]
    kept = np.take_along_axis(weights, order, axis=1)
    more = np.count_nonzero(weights, axis=1) > SLOTS
    kept[more] *= (weights[more].sum(axis=1) / kept[more].sum(axis=1))[:, None]
    return np.where(kept > 0, order, 0), kept


# What other bodies lack comes from the free body: parts, chart and regressors of key points, carried over its surface.
#
# A `Placement` says where each vertex of the other mesh lies on the free body's skin. SMPL's is an asset file; that of
# a rigged glTF human is found by geometry (`fit_rig`).

SMPL_TO_FREE_BODY = load.ASSETS / "smpl_to_free_body.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """A point of the free body for each vertex of another mesh."""

    face: Int[np.ndarray, "n"]
    barycentric: Float[np.ndarray, "n 3"]

    @functools.cached_property
    def position(self) -> Float[np.ndarray, "n 3"]:
        """Those points in the free body's rest pose, metres."""
        body = free_body()
        return np.einsum("nc,ncx->nx", self.barycentric, body["vertices"][body["faces"][self.face]])


def smpl_placement() -> Placement:
    """Return where SMPL's 6890 vertices lie on the free body."""
    fields = door.read_npz(SMPL_TO_FREE_BODY)
    return Placement(fields["face_index"].astype(np.int64), fields["barycentric"].astype(np.float64))


def body_fields(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "m 3"],
    joints: Float[np.ndarray, "24 3"],
    weights: Float[np.ndarray, "n 24"],
    placement: Placement,
) -> Fields:
    """Return a body file's fields: what a mesh brings along, and what it lacks.

    Args:
      vertices, joints: of SMPL's T-pose, metres. weights: of skinning; a vertex keeps its four largest.
      placement: where the vertices lie on the free body.
    """
    part, uv = chart(placement, faces)
    skin_index, skin_weight = four_largest(weights)
    return {
        "vertices": vertices,
        "faces": faces,
        "joints": joints,
        "parents": np.array(skeleton.SMPL_PARENTS),
        "skin_index": skin_index,
        "skin_weight": skin_weight,
        "mirror": mirror(vertices),
        "part": part,
        "uv": uv,
        **regressors(placement, faces),
    }


@functools.cache
def free_body() -> Fields:
    """Return the free body's fields, positions in float64."""
    fields = load.read_fields(load.FREE_BODY)
    return fields | {name: fields[name].astype(np.float64) for name in ("vertices", "joints", "uv", *REGRESSORS)}


def chart(
    placement: Placement, faces: Int[np.ndarray, "m 3"]
) -> tuple[Int[np.ndarray, "m"], Float[np.ndarray, "m 3 2"]]:
    """Return (part, uv) of each face: the part of most of its corners (the first's, if all differ), and their (u, v).

    A corner that lies in another part, as along every border, has the (u, v) of the nearest point of the face's part:
    on the border, so that no part of a chart is stretched beyond the free body's.
    """
    body = free_body()
    corner_part = body["part"].astype(np.int64)[placement.face][faces]
    agree = corner_part[:, 1] == corner_part[:, 2]
    part = np.where(agree, corner_part[:, 1], corner_part[:, 0])
    own_uv = np.einsum("nc,ncd->nd", placement.barycentric, body["uv"][placement.face])
    uv = own_uv[faces]
    for number in np.unique(part):
        rows, columns = np.nonzero((part[:, None] == number) & (corner_part != number))
        vertex, place = np.unique(faces[rows, columns], return_inverse=True)
        if len(vertex):
            area = np.flatnonzero(body["part"] == number)
            near, weight = triangles.nearest(placement.position[vertex], body["vertices"][body["faces"][area]])
            uv[rows, columns] = np.einsum("nc,ncd->nd", weight, body["uv"][area[near]])[place]
    return part, np.clip(uv, 0.0, 1.0)


def regressors(placement: Placement, faces: Int[np.ndarray, "m 3"]) -> Fields:
    """Return the free body's over another mesh: each vertex that they read is the blend of a triangle's corners."""
    body = free_body()
    every = np.concatenate([body[name] for name in REGRESSORS])
    used = np.flatnonzero(every.any(axis=0))
    face, weight = triangles.nearest(body["vertices"][used], placement.position[faces])
    rows = np.zeros((len(every), len(placement.face)))
    for corner in range(3):
        np.add.at(rows.T, faces[face, corner], (every[:, used] * weight[:, corner]).T)
    return dict(zip(REGRESSORS, np.split(rows, [len(body[REGRESSORS[0]])]), strict=True))


def mirror(vertices: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "n"]:
    """Return for each vertex the one nearest to its mirror image in the plane x = 0."""
    return np.asarray(scipy.spatial.KDTree(vertices).query(vertices * [-1, 1, 1])[1])
