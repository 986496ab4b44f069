"""Exported files: read again they are the same people, where the camera sees them, under names safe in a folder."""

import dataclasses
import io
import math

import numpy as np
import pygltflib
import pytest
import trimesh

import dal_jax as dal
from dal_jax.body import kinematics, skeleton
from dal_jax.body.formats import load
from dal_jax.body.formats.load import load_body
from dal_jax.body.kinematics import BodyParameters
from dal_jax.data.motions import bvh
from dal_jax.fits import export, file
from dal_jax.fits.fits import Fits, Report
from dal_jax.observations.following import Frames
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import Annotations
from dal_jax.runtime.errors import InputError
from tests.fits import entries
from tests.fits.gltf_scene import Scene
from tests.regressor import people

_METRES = 1e-6  # text with 8 decimals, float32
EXACT = 1e-4  # metres
PX = 0.02  # float32 rounding of a photograph of a thousand pixels
VIEWER = np.array([1.0, -1.0, -1.0])
SIZE_PX = (1000, 600)


@pytest.fixture(scope="module")
def fits() -> Fits:
    """Three people and a rejected entry in two photographs; the focal length is not known."""
    bodies = people.random_bodies(3, seed=0).replace(translation=np.zeros((3, 2), np.float32))
    box_px = np.array([[-50.0, 0.0, 120.0, 120.0], [200.0, 80.0, 100.0, 100.0], [900.0, 500.0, 90.0, 90.0]], np.float32)
    observed = people.observe(bodies, seed=0).replace(box_px=box_px)
    observations = Observations(observed, box_px, [0] * 3, [1, 2, 4], ["a.jpg"] * 3)
    known = [entries.annotated(0, 1), entries.annotated(0, 2), entries.annotated(1, 4, "../b.jpg")]
    known = [dataclasses.replace(one, picture_size=SIZE_PX) for one in known]
    annotations = Annotations([*known[:2], entries.rejected(0, 3), known[2]])
    rows = file.spread(file.rows_of(observations, load.load_body(), bodies), annotations.entries)
    return Fits(**rows, body=load.load_body(), annotations=annotations)


ROWS = {"a_1": 0, "a_2": 1, "b_4": 3}


def test_every_person_gets_its_files_and_the_rejected_none(fits, tmp_path):
    written = fits.export(tmp_path / "meshes", ("glb", "obj", "ply", "bvh"))
    names = [f"{stem}.{ending}" for stem in ROWS for ending in ("glb", "obj", "ply", "bvh")]
    assert [path.name for path in written] == names
    assert {path.parent for path in written} == {tmp_path / "meshes"}
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == sorted(names), "and nothing else"
    for stem, row in ROWS.items():
        expected = fits.vertices(row) * VIEWER
        for ending in ("obj", "ply"):
            mesh = trimesh.load(tmp_path / "meshes" / f"{stem}.{ending}", force="mesh", process=False)
            np.testing.assert_allclose(mesh.vertices, expected, atol=EXACT)
            np.testing.assert_array_equal(mesh.faces, fits.body.faces)
        vertices, faces = Scene(tmp_path / "meshes" / f"{stem}.glb").skinned()
        np.testing.assert_allclose(vertices[faces], expected[fits.body.faces], atol=EXACT)
        tracks = bvh.read(tmp_path / "meshes" / f"{stem}.bvh")
        rows = [tracks.names.index(name) for name in skeleton.SMPL_JOINT_NAMES]
        np.testing.assert_allclose(tracks.positions[0, rows], fits.joints[row] * VIEWER, atol=EXACT)


def test_a_fit_that_is_not_valid_has_no_file(fits, tmp_path):
    broken = dataclasses.replace(fits, valid=np.array([True, False, False, True]))
    assert [path.stem for path in broken.export(tmp_path)] == ["a_1", "b_4"]


def test_a_file_says_whose_body_it_is_and_what_it_is_worth(fits, tmp_path):
    quality = [Report(verdict, ["a flag"], 0.5, {}) for verdict in ("good", "doubtful", "fragment")]
    reported = dataclasses.replace(fits, quality=quality)
    paths = reported.export(tmp_path)
    assert [path.stem for path in paths] == ["a_1", "a_2"], "no fragment"
    (node,) = [node for node in Scene(paths[1]).content.nodes if node.name == "a_2"]
    assert (node.extras["file_name"], node.extras["annotation_id"]) == ("a.jpg", 2)
    assert node.extras["quality"] == {"verdict": "doubtful", "flags": ["a flag"]}
    np.testing.assert_allclose(node.extras["shape"]["segment_scale"], fits.segment_scale[1], rtol=1e-6)
    np.testing.assert_allclose(node.extras["camera"]["box_px"], fits.box_px[1])
    assert "focal_px" not in node.extras["camera"], "not known"


def _joints(scene: Scene, stem: str) -> np.ndarray:
    """Return a person's joints, camera axes."""
    nodes = scene.content.nodes
    (root,) = [number for number, node in enumerate(nodes) if node.name == stem]
    todo, found = list(nodes[root].children), {}
    while todo:
        number = todo.pop()
        found[nodes[number].name] = scene.matrix[number][:3, 3] * VIEWER
        todo += nodes[number].children or []
    return np.stack([found[name] for name in skeleton.SMPL_JOINT_NAMES])


def test_people_fitted_under_perspective_project_to_where_they_were_fitted(fits, tmp_path):
    """In their own files and in the scene; the right answer is the fit's own projection, written out."""
    focal, middle = 900.0, np.array(SIZE_PX) / 2
    seen = dataclasses.replace(fits, focal_px=np.full(4, focal), principal_px=np.tile(middle, (4, 1)))
    seen.export(tmp_path)
    scenes = seen.export_scenes(tmp_path / "scenes")
    assert [path.name for path in scenes] == ["a.glb", "b.glb"]
    for stem, row in ROWS.items():
        half = fits.box_px[row, 2] / 2
        pelvis_px, scale_px = fits.box_px[row, :2] + half * (1 + fits.translation[row]), fits.camera_scale[row] * half
        planar = pelvis_px + scale_px * fits.joints[row, :, :2] - middle
        expected = middle + planar / (1 + scale_px * fits.joints[row, :, 2:] / focal)
        for path in (tmp_path / f"{stem}.glb", tmp_path / "scenes" / f"{stem[0]}.glb"):
            joints = _joints(Scene(path), stem)
            np.testing.assert_allclose(focal * joints[:, :2] / joints[:, 2:] + middle, expected, atol=PX)
    (camera,) = Scene(scenes[0]).content.cameras
    assert math.isclose(math.tan(camera.perspective.yfov / 2), SIZE_PX[1] / 2 / focal, rel_tol=1e-6)
    assert math.isclose(camera.perspective.aspectRatio, SIZE_PX[0] / SIZE_PX[1], rel_tol=1e-6)


def test_a_scene_without_a_focal_length_assumes_one_and_says_so(fits, tmp_path):
    path = fits.export_scenes(tmp_path)[0]
    (camera,) = [node for node in Scene(path).content.nodes if node.camera is not None]
    fx, fy, cx, cy = camera.extras["intrinsics_px"]
    assert camera.extras["focal_length_is_assumed"] and fx == fy == math.hypot(*SIZE_PX)
    for stem in ("a_1", "a_2"):
        pelvis = _joints(Scene(path), stem)[0]
        projected = fx * pelvis[:2] / pelvis[2] + (cx, cy)
        np.testing.assert_allclose(projected, fits.joints_px[ROWS[stem], 0], atol=PX)


def test_people_predicted_with_a_focal_length_stand_where_their_fields_say(fits, tmp_path):
    intrinsics = np.tile(np.array([900.0, 900.0, 500.0, 300.0], np.float32), (4, 1))
    predicted = dataclasses.replace(fits, extra=file.in_camera(fits, intrinsics))
    for path, (stem, row) in zip(predicted.export(tmp_path), ROWS.items(), strict=True):
        np.testing.assert_allclose(_joints(Scene(path), stem), predicted.extra["joints_camera"][row], atol=2e-4)


def test_fits_of_a_file_have_no_scene_unless_their_camera_is_known(fits, tmp_path):
    alone = dataclasses.replace(fits, annotations=None)
    assert alone.export_scenes(tmp_path / "none") == [] and not (tmp_path / "none").exists()


def test_smpl_s_parameters_are_of_smpl_alone(fits, tmp_path):
    with pytest.raises(InputError, match="not read from a model of SMPL"):
        fits.export(tmp_path / "out", ("glb", "npz"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file_format", ["glb", "obj", "ply"])
def test_vertices_and_faces_survive_a_round_trip(ball, file_format):
    content = export.mesh_bytes(ball.vertices, ball.faces, file_format)
    mesh = trimesh.load(io.BytesIO(content), file_type=file_format, force="mesh", process=False)
    np.testing.assert_allclose(mesh.vertices, ball.vertices, atol=_METRES)
    np.testing.assert_array_equal(mesh.faces, ball.faces)


def test_a_person_who_faces_the_camera_stands_upright_and_faces_the_viewer(ball):
    """Body and viewer frames are then the same, whatever the camera's scale and the place in the crop."""
    upright = kinematics.t_pose(2.7).replace(translation=np.float32([0.3, -0.4]))
    np.testing.assert_allclose(export.viewer_vertices(ball, upright), ball.vertices, atol=_METRES)


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


# --- tracks: one file each, every frame at its time, lost ones filled in ---

FPS = 25.0
FRAMES = np.array([3, 4, 6, 3])  # the first person is lost in frame 5; the last one is somebody else


@pytest.fixture(scope="module")
def tracks():
    pose = np.zeros((4, 23, 3), np.float32)
    pose[:, 17, 1] = -0.2 * FRAMES  # the left elbow
    bodies = BodyParameters(
        pose=pose,
        segment_scale=np.ones((4, 24), np.float32),
        rotation=np.tile(np.diag([1.0, -1.0, -1.0]).astype(np.float32), (4, 1, 1)),
        camera_scale=np.ones(4, np.float32),
        translation=np.zeros((4, 2), np.float32),
    )
    keypoints = np.random.default_rng(0).uniform(0, 1, (4, 17, 3)) * (100, 100, 1)
    fits = Fits.of(dal.Observations.from_points(keypoints_px=keypoints, keypoint_set="coco"), load_body(), bodies)
    fits.follow(Frames(np.array([0, 0, 0, 1]), FRAMES, FPS), np.zeros(4, bool))
    return fits


def test_each_track_is_a_file_with_all_its_frames(tracks, tmp_path):
    names = [path.name for path in tracks.export_motion(tmp_path, ("glb", "bvh"))]
    assert names == ["track_0.glb", "track_0.bvh", "track_1.glb", "track_1.bvh"]
    moving = pygltflib.GLTF2().load(str(tmp_path / "track_0.glb"))
    times = moving.accessors[moving.animations[0].samplers[0].input]
    assert times.count == 4
    np.testing.assert_allclose([times.min[0], times.max[0]], [0.0, 3 / FPS], atol=1e-6)
    lines = (tmp_path / "track_0.bvh").read_text().splitlines()
    assert "Frames: 4" in lines and f"Frame Time: {1 / FPS:g}" in " ".join(lines).replace("0.040000", "0.04")
    values = np.array([[float(word) for word in line.split()] for line in lines[-4:]])
    swing = np.ptp(values, axis=0).argmax()
    np.testing.assert_allclose(np.abs(np.diff(values[:, swing])), np.degrees(0.2), atol=1e-3)  # in the lost frame, too


def test_photographs_have_no_motion(tracks):
    alone = Fits.of(tracks.observations, tracks.body, tracks.fitted())
    with pytest.raises(ValueError, match="motion is that of tracks"):
        alone.export_motion("nowhere")
