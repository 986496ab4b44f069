"""Exported meshes: read again they are the same body, upright, under a name that stays in its folder."""

import io

import jax
import numpy as np
import pytest
import trimesh

from dal_jax.body import parameters
from dal_jax.fits import export
from dal_jax.runtime.errors import InputError

_METRES = 1e-6  # text with 8 decimals, float32


@pytest.mark.parametrize("file_format", export.FORMATS)
def test_vertices_and_faces_survive_a_round_trip(ball, file_format):
    content = export.mesh_bytes(ball.vertices, ball.faces, file_format)
    mesh = trimesh.load(io.BytesIO(content), file_type=file_format, force="mesh", process=False)
    np.testing.assert_allclose(mesh.vertices, ball.vertices, atol=_METRES)
    np.testing.assert_array_equal(mesh.faces, ball.faces)


def test_a_person_who_faces_the_camera_stands_upright_and_faces_the_viewer(ball):
    """Body and viewer frames are then the same, whatever the camera's scale and the place in the crop."""
    upright = parameters.t_pose(2.7).replace(translation=np.float32([0.3, -0.4]))
    np.testing.assert_allclose(export.viewer_vertices(ball, upright), ball.vertices, atol=_METRES)


def test_every_fit_gets_its_files_and_a_broken_one_none(ball, tmp_path):
    one = parameters.t_pose()
    batch = jax.tree.map(lambda leaf: np.stack([leaf] * 3), one)
    batch.camera_scale[:] = 5.0
    batch.rotation[1, 0, 0] = np.nan
    written = export.export_fits(
        tmp_path / "meshes", ["../a/b.jpg", "broken", "../a/b.jpg"], batch, ball, ("glb", "obj")
    )
    assert [path.name for path in written] == ["a_b.jpg.glb", "a_b.jpg.obj", "a_b.jpg-2.glb", "a_b.jpg-2.obj"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(p.name for p in written)
    assert {path.parent for path in written} == {tmp_path / "meshes"}
    np.testing.assert_allclose(
        trimesh.load(written[0], force="mesh").extents, np.ptp(ball.vertices, axis=0), atol=_METRES
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "etc_passwd"),
        ("", "person"),
        ("..", "person"),
        (".hidden", "hidden"),
        ("a\x00b\nc", "a_b_c"),
        ("günter 7", "g_nter_7"),
        ("C:\\x", "C_x"),
        ("000042", "000042"),
    ],
)
def test_names_from_outside_become_safe_file_names(name, expected):
    assert export.file_names([name]) == [expected]


def test_file_names_are_distinct_also_where_case_does_not_count():
    assert export.file_names(["a", "A", "a-2", "a"]) == ["a", "A-2", "a-2-2", "a-3"]
    assert len(export.file_names(["x" * 400])[0]) < 120


def test_formats_are_parsed_or_named():
    assert export.parse_formats("glb, OBJ,glb") == ("glb", "obj")
    assert export.parse_formats("") == ()
    with pytest.raises(InputError, match="'fbx' is not one of glb, obj"):
        export.parse_formats("glb,fbx")
