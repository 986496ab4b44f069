"""Tracks as bodies that move: one file each, every frame at its time, lost ones filled in."""

import numpy as np
import pygltflib
import pytest

import dal_jax as dal
from dal_jax.body.formats.load import load_body
from dal_jax.body.parameters import BodyParameters
from dal_jax.fits.fits import Fits
from dal_jax.observations.following import Frames

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
