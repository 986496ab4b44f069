"""The people: phenotypes of the free body's template and of the synthetic data set's subjects."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from dal_jax.body import skeleton
from dal_jax.body.build import anny_mesh
from dal_jax.body.build.anny_mesh import AnnyBody

_YOUNG = 2 / 3  # Anny's age axis: 1/3 child, 2/3 young adult, 1 old


@dataclasses.dataclass(frozen=True)
class Person:
    """Stature in metres and Anny's phenotypes (0..1; gender 0 male, 1 female; 0.5 is average)."""

    name: str
    stature: float
    gender: float
    weight: float
    muscle: float
    proportions: float
    age: float = _YOUNG
    cupsize: float = 0.5


TEMPLATE = Person("template", 1.70, 0.5, 0.5, 0.5, 0.5)

# Names as in Human3.6M: S9 and S11 are for testing, unlike one another and unlike every training subject.
TEST_SUBJECTS = ("S9", "S11")
SUBJECTS = (
    Person("S1", 1.66, 1.0, 0.35, 0.50, 0.60, cupsize=0.4),
    Person("S5", 1.72, 1.0, 0.75, 0.45, 0.45, cupsize=0.7),
    Person("S6", 1.78, 0.0, 0.50, 0.75, 0.80),
    Person("S7", 1.86, 0.0, 0.30, 0.45, 0.40),
    Person("S8", 1.75, 0.0, 0.85, 0.60, 0.35, age=0.8),
    Person("S9", 1.92, 0.0, 0.85, 0.90, 0.95),
    Person("S11", 1.56, 1.0, 0.75, 0.15, 0.15, age=0.82, cupsize=0.6),
    Person("E1", 1.58, 1.0, 0.20, 0.35, 0.50, cupsize=0.3),
    Person("E2", 1.63, 1.0, 0.90, 0.40, 0.30, age=0.85, cupsize=0.8),
    Person("E3", 1.80, 1.0, 0.45, 0.80, 0.75),
    Person("E4", 1.68, 0.0, 0.25, 0.40, 0.30),
    Person("E5", 1.70, 0.0, 0.95, 0.35, 0.50, age=0.9),
    Person("E6", 1.95, 0.0, 0.45, 0.55, 0.60),
    Person("E7", 1.75, 0.3, 0.60, 0.65, 0.15),
    Person("E8", 1.52, 0.9, 0.45, 0.55, 0.85),
)


def shape(
    body: AnnyBody, person: Person
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "24 3"], dict[str, float]]:
    """Vertices of all of Anny's mesh and SMPL's joints in the T-pose, pelvis at the origin, and the phenotypes used.

    Anny's `height` follows from the stature: shapes are linear in it between the anchors 0, 1/2 and 1.
    """
    phenotype = {k: v for k, v in dataclasses.asdict(person).items() if k not in ("name", "stature")}
    anchors = (0.0, 0.5, 1.0)
    statures = [_stature(body, _posed(body, phenotype | {"height": h})[0]) for h in anchors]
    if not statures[0] <= person.stature <= statures[-1]:
        raise ValueError(f"{person.name}: stature {person.stature} m is outside {statures[0]:.2f}..{statures[-1]:.2f}")
    phenotype["height"] = float(np.interp(person.stature, statures, anchors))
    vertices, heads = _posed(body, phenotype)
    joints = smpl_joints(body.bones, heads)
    return vertices - joints[0], joints - joints[0], phenotype


def _posed(body: AnnyBody, phenotype: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    return anny_mesh.t_pose(body, *anny_mesh.rest_shape(body, phenotype))


def _stature(body: AnnyBody, vertices: np.ndarray) -> float:
    return float(np.ptp(vertices[np.unique(body.faces), 1]))


# --- SMPL's 24 joints and skinning weights out of Anny's 104 bones ---

_MIDDLE = {"root": "pelvis", "spine05": "pelvis", "spine04": "spine1", "spine03": "spine1", "spine02": "spine2"}
_MIDDLE |= {"spine01": "spine3", "neck01": "neck", "neck02": "neck", "neck03": "neck", "head": "head"}
_SIDE = {"pelvis": "pelvis", "upperleg": "hip", "lowerleg": "knee", "foot": "ankle", "toe": "foot"}
_SIDE |= {"clavicle": "collar", "shoulder": "collar", "upperarm": "shoulder", "lowerarm": "elbow"}
# The thumb leaves the hand before the knuckles, about which SMPL's `hand` joint rotates: it goes with the palm.
_SIDE |= {"wrist": "wrist", "metacarpal": "wrist", "finger1": "wrist", "finger": "hand", "eye": "head"}


def smpl_joints(bones: tuple[str, ...], heads: Float[np.ndarray, "bones 3"]) -> Float[np.ndarray, "24 3"]:
    """Centres of SMPL's joints, from the heads of Anny's bones."""
    at = {name: heads[i] for i, name in enumerate(bones)}
    out = {"pelvis": at["root"], "spine1": at["spine04"], "spine2": at["spine02"], "spine3": at["spine01"]}
    out |= {"neck": at["neck01"], "head": at["head"]}
    heads_of = {"hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot", "collar": "clavicle"}
    heads_of |= {"shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist"}
    for side, letter in (("left", "L"), ("right", "R")):
        out |= {f"{side}_{joint}": at[f"{bone}.{letter}"] for joint, bone in heads_of.items()}
        out[f"{side}_foot"] = np.mean([at[f"toe{i}-1.{letter}"] for i in range(1, 6)], axis=0)
        out[f"{side}_hand"] = np.mean([at[f"finger{i}-1.{letter}"] for i in range(2, 6)], axis=0)
    centres = np.stack([out[name] for name in skeleton.SMPL_JOINT_NAMES])
    return (centres + centres[list(skeleton.SMPL_MIRROR)] * [-1, 1, 1]) / 2


def joint_weights(bones: tuple[str, ...], weights: Float[np.ndarray, "v bones"]) -> Float[np.ndarray, "v 24"]:
    """Sum Anny's weights over the bones of each SMPL segment."""
    segment = np.array([skeleton.SMPL_JOINT_NAMES.index(_segment(name)) for name in bones])
    return np.stack([weights[:, segment == j].sum(axis=1) for j in range(24)], axis=1)


def sparse_weights(
    weights: Float[np.ndarray, "v 24"], mirror: Int[np.ndarray, " v"]
) -> tuple[Int[np.ndarray, "v 4"], Float[np.ndarray, "v 4"]]:
    """Four largest weights a vertex, normalised, exactly mirrored (ties broken by the joint's number)."""
    weights = (weights + weights[mirror][:, list(skeleton.SMPL_MIRROR)]) / 2
    weights = np.round(weights, 6)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :5]
    kept = np.take_along_axis(weights, order, axis=1)
    # A tie for the fourth place would be broken differently on the two sides: drop both.
    tied = kept[:, 3] == kept[:, 4]
    kept[tied, 3] = 0.0
    index, kept = order[:, :4].astype(np.int32), kept[:, :4]
    kept /= kept.sum(axis=1, keepdims=True)
    index[kept == 0] = 0
    return index, kept.astype(np.float32)


def _segment(bone: str) -> str:
    if bone in _MIDDLE:
        return _MIDDLE[bone]
    side = {"L": "left_", "R": "right_"}[bone[-1]]
    segment = next(_SIDE[k] for k in sorted(_SIDE, key=len, reverse=True) if bone.startswith(k))
    return segment if segment in skeleton.SMPL_JOINT_NAMES else side + segment
