"""The actors: each subject's own rest shape, posed by linear blend skinning in NumPy.

The shapes share the free body's faces and weights, but no choice of segment scales turns one into the other, so that
fitting the free body to them is never a test of a model against itself.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.body.template import Template
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic.figure import rotation_matrix

SUBJECT_SHAPES = load.ASSETS / "synthetic_people.npz"
TORSO, HEAD = (1, 2), (23, 24)


class Subject(NamedTuple):
    """One actor in the T-pose; skinning_matrix is W (x) [v, 1]; landmarks are rest points and lengths for posing."""

    name: str
    joints: Float[np.ndarray, "24 3"]
    vertices: Float[np.ndarray, "n 3"]
    skinning_matrix: Float[np.ndarray, "n 96"]
    landmarks: dict[str, np.ndarray]


def surface() -> Template:
    """Return the free body, whose faces, parts, chart, skinning weights and regressor all subjects share."""
    return load.load_body()


@functools.cache
def corners() -> Float[np.ndarray, "m 3 3"]:
    """Return the rest positions of the corners of the free body's faces, metres."""
    return np.asarray(surface().vertices)[surface().faces]


@functools.cache
def subject(name: str) -> Subject:
    """Return a subject, by Human3.6M's name.

    Raises:
      errors.InputError: the file of shapes does not have it, or does not fit the free body.
    """
    fields = door.read_npz(SUBJECT_SHAPES)
    names = [str(one) for one in fields["subject_names"]]
    if name not in names:
        raise InputError(f"{SUBJECT_SHAPES}: no subject {name!r}; it has {', '.join(names)}")
    row = names.index(name)
    vertices, joints = fields["vertices"][row].astype(np.float64), fields["joints"][row].astype(np.float64)
    if vertices.shape != surface().vertices.shape:
        raise InputError(f"{SUBJECT_SHAPES}: {vertices.shape} vertices do not fit the free body")
    vertices, joints = vertices - joints[0], joints - joints[0]
    homogeneous = np.concatenate([vertices, np.ones_like(vertices[:, :1])], axis=1)
    matrix = (np.asarray(surface().skin_weight)[:, :, None] * homogeneous[:, None, :]).reshape(len(vertices), -1)
    return Subject(name, joints, vertices, matrix.astype(np.float32), _landmarks(vertices, joints))


def pose(
    actor: Subject, root: Float[np.ndarray, "3 3"], rotation_vectors: Float[np.ndarray, "23 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "24 3"]]:
    """Return (vertices, joints) of a posed subject, pelvis at the origin, metres."""
    rotations, positions = np.empty((24, 3, 3)), np.zeros((24, 3))
    rotations[0] = root
    for joint, parent in enumerate(skeleton.SMPL_PARENTS):
        if joint:
            positions[joint] = positions[parent] + rotations[parent] @ (actor.joints[joint] - actor.joints[parent])
            rotations[joint] = rotations[parent] @ rotation_matrix(rotation_vectors[joint - 1])
    shift = positions - np.einsum("jab,jb->ja", rotations, actor.joints)
    transforms = np.concatenate([rotations.transpose(0, 2, 1), shift[:, None]], axis=1).reshape(96, 3)
    return actor.skinning_matrix @ transforms.astype(np.float32), positions


@functools.cache
def template_landmarks() -> dict[str, np.ndarray]:
    """Return the landmarks of the free body itself."""
    return _landmarks(np.asarray(surface().vertices), np.asarray(surface().joints))


def _landmarks(vertices: np.ndarray, joints: np.ndarray) -> dict[str, np.ndarray]:
    """Measure the face and the trunk: points to lead hands to, and widths to keep them outside of."""
    regressor = np.asarray(surface().h36m_regressor)
    nose, head_top = regressor[9] @ vertices, regressor[10] @ vertices
    head = vertices[np.unique(surface().faces[np.isin(surface().part, HEAD)])]
    trunk = vertices[np.unique(surface().faces[np.isin(surface().part, (*TORSO, 7, 8, 9, 10))])]
    spine3 = joints[skeleton.SMPL_JOINT_NAMES.index("spine3")]
    cheek = head[np.abs(head[:, 1] - nose[1] - 0.01) < 0.02]
    ear_z = np.mean([cheek[:, 2].min(), nose[2]])
    return {
        "nose": nose,
        "head_top": head_top,
        "ear": np.array([np.abs(cheek[np.abs(cheek[:, 2] - ear_z) < 0.03, 0]).max(), nose[1] + 0.005, ear_z]),
        "mouth": nose + [0.0, -0.045, -0.015],
        "eyes": nose + [0.0, 0.035, -0.02],
        "chest": np.array([0.0, spine3[1], _level(trunk, float(spine3[1]))[:, 2].max()]),
        "belly": _level(trunk, 0.0)[:, 2].max(),
        "waist_width": np.abs(_level(trunk, 0.10)[:, 0]).max(),
        "hip_width": np.abs(_level(trunk, -0.03)[:, 0]).max(),
    }


def _level(points: np.ndarray, height: float) -> np.ndarray:
    return points[np.abs(points[:, 1] - height) < 0.03]
