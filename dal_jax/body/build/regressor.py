"""The 17 Human3.6M joints as convex combinations of skin vertices, by non-negative least squares.

The rows are fitted to joint centres of every person's rest shape and of randomly posed and scaled bodies, so that
they stay inside differently shaped people and follow the bones.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy import optimize

from dal_jax.body import kinematics, skeleton
from dal_jax.body.template import Template

_POSES_A_SHAPE = 8
_POSE_SIGMA = 0.45  # radians, each component of each joint's axis-angle
_SCALE_SIGMA = 0.1  # of log segment scale
_CANDIDATES = 800
_LARGEST_ROW = 32
_SUM_WEIGHT = 10.0  # weight of "the row sums to 1", in metres

# H36M joint: (SMPL joint whose centre it is, segments whose skin may carry it)
_CENTRES = {
    "hip": ("pelvis", ("pelvis", "spine1", "left_hip", "right_hip")),
    "left_hip": ("left_hip", ("pelvis", "spine1", "left_hip")),
    "left_knee": ("left_knee", ("left_hip", "left_knee")),
    "left_foot": ("left_ankle", ("left_knee", "left_ankle")),
    "spine": ("spine2", ("spine1", "spine2")),
    "thorax": (None, ("spine3", "left_collar", "right_collar", "neck")),
    "left_shoulder": ("left_shoulder", ("spine2", "spine3", "left_collar", "left_shoulder")),
    "left_elbow": ("left_elbow", ("left_shoulder", "left_elbow")),
    "left_wrist": ("left_wrist", ("left_elbow", "left_wrist")),
}


@dataclasses.dataclass(frozen=True)
class _Bodies:
    """Posed bodies, flattened over shapes and poses: vertices (bodies, n, 3), joint centres by H36M name."""

    vertices: Float[np.ndarray, "bodies n 3"]
    centres: dict[str, Float[np.ndarray, "bodies 3"]]


def fit(
    template: Template, shapes: Float[np.ndarray, "k n 3"], joints: Float[np.ndarray, "k 24 3"]
) -> Float[np.ndarray, "17 n"]:
    """Fit the regressor; `template` gives weights, faces and mirror map, `shapes` and `joints` the rest shapes."""
    mirror = np.asarray(template.mirror)
    bodies = _pose_all(template, shapes, joints)
    names = skeleton.H36M_JOINT_NAMES
    rows = np.zeros((17, len(mirror)))
    for name in _CENTRES:
        middle = name in ("hip", "spine", "thorax")
        row = _fit_row(template, bodies, name, joints[0], mirror if middle else None)
        rows[names.index(name)] = row
        if not middle:
            rows[names.index(name.replace("left", "right"))] = row[mirror]
    on_middle = mirror == np.arange(len(mirror))
    head = on_middle & (np.asarray(template.skin_weight)[:, skeleton.SMPL_JOINT_NAMES.index("head")] > 0.9)
    rest = shapes[0]
    rows[names.index("head"), np.argmax(np.where(head, rest[:, 1], -np.inf))] = 1.0
    rows[names.index("neck_nose"), np.argmax(np.where(head, rest[:, 2], -np.inf))] = 1.0
    return rows.astype(np.float32)


def _pose_all(template: Template, shapes: np.ndarray, joints: np.ndarray) -> _Bodies:
    random = np.random.default_rng(0)
    posed, centres = [], {name: [] for name in _CENTRES}
    weight = np.asarray(template.skin_weight, np.float64)
    for shape, rest in zip(shapes, joints, strict=True):
        pose = random.normal(0, _POSE_SIGMA, (_POSES_A_SHAPE, 23, 3))
        scale = np.exp(random.normal(0, _SCALE_SIGMA, (_POSES_A_SHAPE, 24)))
        pose[0], scale[0] = 0.0, 1.0
        own = template.replace(joints=rest.astype(np.float32))
        segments = jax.vmap(lambda a, s, own=own: kinematics.pose_skeleton(own, np.eye(3, dtype=np.float32), a, s))(
            pose.astype(np.float32), scale.astype(np.float32)
        )
        linear = np.asarray(segments.rotation, np.float64) * scale[:, :, None, None]
        position = np.asarray(segments.position, np.float64)
        thorax = rest[[16, 17]].mean(axis=0) - rest[9]
        for one in range(_POSES_A_SHAPE):
            carried = linear[one] @ np.moveaxis(shape[None] - rest[:, None], 1, 2) + position[one][:, :, None]
            posed.append(np.einsum("kin,nk->ni", carried, weight))
            for name, (joint, _) in _CENTRES.items():
                if joint is None:
                    centres[name].append(position[one, 9] + linear[one, 9] @ thorax)
                else:
                    centres[name].append(position[one, skeleton.SMPL_JOINT_NAMES.index(joint)])
    return _Bodies(np.stack(posed), {name: np.stack(c) for name, c in centres.items()})


def _fit_row(
    template: Template, bodies: _Bodies, name: str, rest: np.ndarray, mirror: np.ndarray | None
) -> Float[np.ndarray, " n"]:
    target = bodies.centres[name]
    candidates = _nearest(template, bodies.vertices[0], target[0], _CENTRES[name][1])
    columns = bodies.vertices[:, candidates]
    if mirror is not None:
        columns = (columns + bodies.vertices[:, mirror[candidates]]) / 2
    chosen = np.arange(len(candidates))
    limit = _LARGEST_ROW if mirror is None else _LARGEST_ROW // 2
    while True:
        matrix = columns[:, chosen].transpose(0, 2, 1).reshape(-1, len(chosen))
        matrix = np.concatenate([matrix, np.full((1, len(chosen)), _SUM_WEIGHT * np.sqrt(len(target)))])
        value = np.append(target.ravel(), _SUM_WEIGHT * np.sqrt(len(target)))
        solution = optimize.nnls(matrix, value)[0]
        support = np.flatnonzero(solution > 1e-4)
        if len(support) <= limit and len(support) == len(chosen):
            break
        chosen = chosen[support[np.argsort(-solution[support], kind="stable")[:limit]]]
    row = np.zeros(bodies.vertices.shape[1])
    row[candidates[chosen]] = solution
    if mirror is not None:
        row = (row + row[mirror]) / 2
    return row / row.sum()


def _nearest(
    template: Template, rest: np.ndarray, centre: np.ndarray, segments: tuple[str, ...]
) -> Int[np.ndarray, " c"]:
    index = [skeleton.SMPL_JOINT_NAMES.index(s) for s in segments]
    allowed = np.asarray(template.skin_weight)[:, index].sum(axis=1) > 0.95
    distance = np.where(allowed, np.linalg.norm(rest - centre, axis=1), np.inf)
    order = np.argsort(distance, kind="stable")[:_CANDIDATES]
    return order[np.isfinite(distance[order])]
