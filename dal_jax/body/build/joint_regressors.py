"""Where key points lie on the free body: Human3.6M's 17 and BODY_25B's 25 as convex combinations of skin vertices.

A key point is a place that annotators or a motion capture rig agree on, not the centre of a rotation: on one surface
Human3.6M's hips lie 6 cm above the rig's, and COCO's shoulders further out. A row of a regressor has its place in the
T-pose from `H36M_PLACES` or `BODY_25B_PLACES`, and moves with the segments that carry it.

Sources of the places. Human3.6M: measured on the surface of a body of known shape that was registered to its joints,
left and right averaged, good to about 1 cm. BODY_25B, whose first 17 are COCO's: joint centres moved by the offsets
of Pose2Sim's marker sets for OpenPose (Pagnon et al. 2022, BSD-3) from the joint centres of its OpenSim model
(shoulders 1 cm outwards, knees 15 mm and ankles 20 mm upwards, ankles 1 cm outwards; hips at the height of the joint);
face, toes and heels are landmarks of the mesh itself.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy import optimize

from dal_jax.body import kinematics, skeleton
from dal_jax.body.kinematics import Segments
from dal_jax.body.template import Template

Places = dict[str, tuple[tuple[float, float, float], tuple[str, ...]]]
"""Name: (place in the T-pose, metres, pelvis joint at the origin; the segments that carry it). Of pairs: the left."""

H36M_PLACES: Places = {
    "hip": ((0.0, 0.052, 0.0215), ("pelvis",)),
    "left_hip": ((0.131, 0.052, 0.0215), ("pelvis",)),
    "left_knee": ((0.1395, -0.3575, 0.035), ("left_hip", "left_knee")),
    "left_foot": ((0.164, -0.779, -0.0295), ("left_knee", "left_ankle")),
    "spine": ((0.0, 0.294, 0.008), ("spine2", "spine3")),
    "thorax": ((0.0, 0.540, 0.008), ("spine3", "neck")),
    "neck_nose": ((0.0, 0.622, 0.082), ("head",)),
    "head": ((0.0, 0.720, 0.042), ("head",)),
    "left_shoulder": ((0.1605, 0.512, 0.0), ("left_collar", "left_shoulder")),
    "left_elbow": ((0.4385, 0.521, 0.0195), ("left_shoulder", "left_elbow")),
    "left_wrist": ((0.6735, 0.4945, 0.029), ("left_elbow", "left_wrist")),
}

BODY_25B_PLACES: Places = {
    "nose": ((0.0, 0.651, 0.154), ("head",)),
    "left_eye": ((0.031, 0.690, 0.129), ("head",)),
    "left_ear": ((0.083, 0.681, 0.024), ("head",)),
    "left_shoulder": ((0.195, 0.491, 0.009), ("left_collar", "left_shoulder")),
    "left_elbow": ((0.448, 0.491, 0.009), ("left_shoulder", "left_elbow")),
    "left_wrist": ((0.686, 0.491, 0.009), ("left_elbow", "left_wrist")),
    "left_hip": ((0.110, -0.010, -0.005), ("pelvis", "left_hip")),
    "left_knee": ((0.130, -0.379, 0.025), ("left_hip", "left_knee")),
    "left_ankle": ((0.162, -0.804, -0.001), ("left_knee", "left_ankle")),
    "upper_neck": ((0.0, 0.565, 0.03), ("neck",)),
    "head_top": ((0.0, 0.795, 0.055), ("head",)),
    "left_big_toe": ((0.140, -0.884, 0.198), ("left_foot",)),
    "left_small_toe": ((0.200, -0.885, 0.155), ("left_foot",)),
    "left_heel": ((0.156, -0.877, -0.055), ("left_ankle",)),
}

_POSES_A_SHAPE = 8
_POSE_SIGMA = 0.45  # radians, each component of each joint's axis-angle
_SCALE_SIGMA = 0.1  # of log segment scale
_CANDIDATES = 800
_LARGEST_ROW = 32
_SUM_WEIGHT = 10.0  # weight of "the row sums to 1", in metres


def fit(
    template: Template,
    shapes: Float[np.ndarray, "k n 3"],
    joints: Float[np.ndarray, "k 24 3"],
    places: Places,
    names: tuple[str, ...],
) -> Float[np.ndarray, "names n"]:
    """Return a regressor of non-negative rows that sum to 1, by non-negative least squares.

    The rows are fitted to the places on all rest shapes and on randomly posed and scaled bodies, so that they stay
    inside differently shaped people and move with the bones.

    Args:
      template: gives weights, joints and mirror map; its regressors are not read.
      shapes, joints: rest shapes, the template's first, metres.
      places: of the names; a right one is the mirror image of its left.
      names: of the rows.
    """
    mirror = np.asarray(template.mirror)
    vertices, segments = _posed(template, shapes, joints)
    rest_joints = np.repeat(joints.astype(np.float64), _POSES_A_SHAPE, axis=0)
    rows = np.zeros((len(names), len(mirror)))
    for name, (place, carriers) in places.items():
        middle = not name.startswith("left_")
        target = _targets(rest_joints, segments, np.asarray(place), carriers)
        candidates = _nearest(template, vertices[0], np.asarray(place), carriers)
        row = _fit_row(vertices, target, candidates, mirror if middle else None)
        rows[names.index(name)] = row
        if not middle:
            rows[names.index(name.replace("left", "right", 1))] = row[mirror]
    return rows.astype(np.float32)


def _posed(
    template: Template, shapes: np.ndarray, joints: np.ndarray
) -> tuple[Float[np.ndarray, "bodies n 3"], Segments]:
    """Return vertices and segments of posed bodies, flattened over shapes and poses."""
    random = np.random.default_rng(0)
    weight = np.asarray(template.skin_weight, np.float64)
    vertices, every = [], []
    for shape, rest in zip(shapes, joints, strict=True):
        pose = random.normal(0, _POSE_SIGMA, (_POSES_A_SHAPE, 23, 3))
        scale = np.exp(random.normal(0, _SCALE_SIGMA, (_POSES_A_SHAPE, 24)))
        pose[0], scale[0] = 0.0, 1.0
        own = dataclasses.replace(template, joints=rest.astype(np.float32))
        segments = jax.vmap(lambda a, s, own=own: kinematics.pose_skeleton(own, np.eye(3, dtype=np.float32), a, s))(
            pose.astype(np.float32), scale.astype(np.float32)
        )
        segments = dataclasses.replace(segments, scale=scale)
        linear, position = _maps(segments)
        for one in range(_POSES_A_SHAPE):
            carried = linear[one] @ np.moveaxis(shape[None] - rest[:, None], 1, 2) + position[one][:, :, None]
            vertices.append(np.einsum("kin,nk->ni", carried, weight))
        every.append(segments)
    return np.stack(vertices), jax.tree.map(lambda *each: np.concatenate(each), *every)


def _maps(segments: Segments) -> tuple[Float[np.ndarray, "bodies 24 3 3"], Float[np.ndarray, "bodies 24 3"]]:
    """Return s G and p of segments, in float64."""
    scale = np.asarray(segments.scale, np.float64)[:, :, None, None]
    return np.asarray(segments.rotation, np.float64) * scale, np.asarray(segments.position, np.float64)


def _targets(
    rest_joints: Float[np.ndarray, "bodies 24 3"], segments: Segments, place: np.ndarray, carriers: tuple[str, ...]
) -> Float[np.ndarray, "bodies 3"]:
    """Return the place on every body: its offset from the carriers' joints, by the body's size, halfway between them.

    The first body is the template in its T-pose.
    """
    size = np.ptp(rest_joints[..., 1], axis=1)
    (linear, position), targets = _maps(segments), []
    for carrier in carriers:
        segment = skeleton.SMPL_JOINT_NAMES.index(carrier)
        offset = (size / size[0])[:, None] * (place - rest_joints[0, segment])
        targets.append(np.einsum("bij,bj->bi", linear[:, segment], offset) + position[:, segment])
    return np.mean(targets, axis=0)


def _fit_row(
    vertices: Float[np.ndarray, "bodies n 3"],
    target: Float[np.ndarray, "bodies 3"],
    candidates: Int[np.ndarray, "c"],
    mirror: np.ndarray | None,
) -> Float[np.ndarray, "n"]:
    columns = vertices[:, candidates]
    if mirror is not None:
        columns = (columns + vertices[:, mirror[candidates]]) / 2
    chosen = np.arange(len(candidates))
    limit = _LARGEST_ROW if mirror is None else _LARGEST_ROW // 2
    in_t_pose = np.ones(len(target))
    in_t_pose[0] = len(target)  # where the place was measured it must be hit
    while True:
        matrix = (in_t_pose[:, None, None] * columns[:, chosen].transpose(0, 2, 1)).reshape(-1, len(chosen))
        matrix = np.concatenate([matrix, np.full((1, len(chosen)), _SUM_WEIGHT * np.sqrt(len(target)))])
        value = np.append((in_t_pose[:, None] * target).ravel(), _SUM_WEIGHT * np.sqrt(len(target)))
        solution = optimize.nnls(matrix, value)[0]
        support = np.flatnonzero(solution > 1e-4)
        if len(support) <= limit and len(support) == len(chosen):
            break
        chosen = chosen[support[np.argsort(-solution[support], kind="stable")[:limit]]]
    row = np.zeros(vertices.shape[1])
    row[candidates[chosen]] = solution
    if mirror is not None:
        row = (row + row[mirror]) / 2
    return row / row.sum()


def _nearest(
    template: Template, rest: np.ndarray, place: np.ndarray, carriers: tuple[str, ...]
) -> Int[np.ndarray, "c"]:
    """Return the nearest vertices that hang on the carriers and on their neighbours in the skeleton alone."""
    index = [skeleton.SMPL_JOINT_NAMES.index(carrier) for carrier in carriers]
    near = {*index, *(p for k in index if (p := skeleton.SMPL_PARENTS[k]) >= 0)}
    near |= {k for k, parent in enumerate(skeleton.SMPL_PARENTS) if parent in index}
    allowed = np.asarray(template.skin_weight)[:, sorted(near)].sum(axis=1) > 0.95
    distance = np.where(allowed, np.linalg.norm(rest - place, axis=1), np.inf)
    order = np.argsort(distance, kind="stable")[:_CANDIDATES]
    return order[np.isfinite(distance[order])]
