"""The benchmark's people: the same from the same config, visible, with as many points as it says; and their files."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from benchmarks.problems import load, read_config, tile
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import actors, view

COMMITTED = pathlib.Path(__file__).parents[2] / "benchmarks" / "people.json"
FLOAT32 = 1e-5


@pytest.fixture(scope="module")
def config():
    return dataclasses.replace(read_config(COMMITTED), people=4, points=130)


@pytest.fixture(scope="module")
def made(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return folder, load(config, folder)


def test_the_committed_config_has_the_sizes_that_are_promised():
    config = read_config(COMMITTED)
    assert config.people >= 512 and config.points == 480 and config.split == "test"


def test_everybody_has_all_points_each_on_a_vertex_of_their_own(config, made):
    observed = made[1].observations
    assert observed.point_face.shape == (4, 130) and np.all(observed.point_confidence == 1)
    corner = observed.point_barycentric.argmax(axis=-1)
    np.testing.assert_array_equal(observed.point_barycentric, np.eye(3, dtype=np.float32)[corner])
    vertex = np.take_along_axis(actors.surface().faces[observed.point_face], corner[..., None], axis=-1)[..., 0]
    assert all(len(set(row)) == config.points for row in vertex)
    assert np.abs(observed.point_position).max() < 1, "inside the crop"


def test_depth_is_the_truth_plus_noise_and_hidden_joints_are_left_out(config, made):
    problems = made[1]
    observed, true_m = problems.observations, problems.joints_true_mm / 1000
    scale = 2 * view.FOCAL_PX / (true_m[:, :1, 2] * observed.box_px[:, 2:3])
    noise_m = observed.depth / scale - (true_m[..., 2] - true_m[:, :1, 2])
    assert 0.5 * config.depth_noise_m < noise_m.std() < 1.5 * config.depth_noise_m
    assert set(np.unique(observed.keypoint_confidence)) == {0, 1}
    np.testing.assert_array_equal(observed.depth_confidence, observed.keypoint_confidence)
    px = view.project(true_m.astype(np.float64))
    off = (observed.keypoint_position + 1) / 2 * observed.box_px[:, None, 2:] + observed.box_px[:, None, :2] - px
    share = (off / observed.box_px[:, None, 2:])[observed.keypoint_confidence > 0]
    assert 0.5 * config.keypoint_noise < share.std() < 1.5 * config.keypoint_noise


def test_made_again_they_are_the_same(config, made, tmp_path):
    folder, problems = made
    again = load(config, tmp_path)
    np.testing.assert_array_equal(again.observations.point_position, problems.observations.point_position)
    np.testing.assert_array_equal(again.observations.depth, problems.observations.depth)
    before = [path.stat().st_mtime_ns for path in folder.iterdir()]
    load(config, folder)
    assert [path.stat().st_mtime_ns for path in folder.iterdir()] == before, "kept, not made again"
    assert dataclasses.replace(config, seed=4).digest() != config.digest()


def test_first_people_and_points(made):
    some = made[1].take(2, 10)
    assert some.observations.point_position.shape == (2, 10, 2) and some.joints_true_mm.shape == (2, 17, 3)
    np.testing.assert_array_equal(some.observations.point_face, made[1].observations.point_face[:2, :10])
    five = tile(some.observations, 5)
    np.testing.assert_array_equal(five.depth, some.observations.depth[[0, 1, 0, 1, 0]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"people": 0}, "people is 0"),
        ({"points": -1}, "points is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"split": "both"}, "split is 'both'"),
        ({"depth_noise_m": "a"}, "depth_noise_m is 'a'"),
        ({"more": 1}, "fields must be"),
    ],
)
def test_a_bad_config_names_what_is_wrong(tmp_path, change, said):
    path = tmp_path / "people.json"
    path.write_text(json.dumps({**json.loads(COMMITTED.read_text()), **change}))
    with pytest.raises(InputError, match=said) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


def test_too_many_points_for_anybody(config, tmp_path):
    with pytest.raises(InputError, match="raise grid_px"):
        load(dataclasses.replace(config, grid_px=24), tmp_path)
