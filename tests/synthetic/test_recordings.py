"""Synthetic people who do what was recorded: the moments of AMASS's files, heading for the camera's side."""

import dataclasses
import pathlib

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.config import demo
from dal_jax.data import catalogue
from dal_jax.data.files import Files
from dal_jax.data.preparing import prepare
from dal_jax.loop import run
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import actors, people as synthetic_people
from dal_jax.synthetic.annotator import RECIPES
from tests.data.motions import motion_files

EXACT = 1e-9
_RANDOM = np.random.default_rng(4)
_FILES, _FRAMES = 11, 3
_POSE = _RANDOM.normal(0, 0.2, (_FILES, _FRAMES, 23, 3))
_POSE[..., 21:, :] = 0.0  # AMASS keeps fingers in the place of the hands
_HEADING = _RANDOM.uniform(-np.pi, np.pi, (_FILES, _FRAMES))
_LEAN = Rotation.from_euler("x", 20, degrees=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return recordings of someone who leans forward, each moment towards another side."""
    folder = tmp_path_factory.mktemp("amass")
    for number in range(_FILES):
        turned = Rotation.from_euler("z", _HEADING[number][:, None]) * Rotation.from_euler("x", 90, degrees=True)
        upside_down = Rotation.from_euler("x", 180 * (number % 2), degrees=True)  # as some exporters turn worlds
        root = (upside_down * turned * _LEAN).as_rotvec()
        motion_files.write_amass(folder / f"{number:02d}_poses.npz", root, _POSE[number])
    np.savez(folder / "shape.npz", betas=np.zeros(16))
    return str(folder)


def test_a_posture_is_a_recorded_moment_upright_and_heading_for_z(folder):
    seen = {"train": set(), "test": set()}
    for split, moments in seen.items():
        random = np.random.default_rng(0)
        for _ in range(60):
            posture = actors.recorded_posture(folder, split, random)
            match = np.argwhere(np.abs(_POSE - posture.pose).max(axis=(2, 3)) < EXACT)
            assert len(match) == 1
            assert posture.root == pytest.approx(_LEAN.as_matrix(), abs=1e-7)
            moments.add(int(match[0, 0]))
    assert seen == {"train": {0, 1, 2, 3, 4, 5, 6, 7, 8, 10}, "test": {9}}, "test people do what nobody trained on"


def test_too_few_recordings_are_refused(tmp_path):
    motion_files.write_amass(tmp_path / "a_poses.npz", np.zeros((2, 3)), np.zeros((2, 23, 3)))
    with pytest.raises(InputError, match="1 recordings .*; 10 are needed"):
        actors.recordings(str(tmp_path), "train")


def test_people_do_what_is_recorded(folder, tmp_path):
    tiny = dataclasses.replace(RECIPES["tiny"], train_count=2, test_count=1, image_size=32)
    recipe = tiny.of_recordings(folder)
    one = synthetic_people.make_person(recipe, "train", 0)
    assert np.abs(_POSE - one["truth_pose"]).max(axis=(2, 3)).min() < 1e-6
    assert one["truth_rotation"][1, 1] < -0.8, "upright: the camera's y is down"
    again = synthetic_people.make_person(recipe, "train", 0)
    assert again["image"] == one["image"]


def test_the_digest_follows_the_recordings_and_not_their_place(folder, tmp_path):
    tiny = RECIPES["tiny"]
    (tmp_path / "moved").symlink_to(folder)
    recipe = tiny.of_recordings(folder)
    assert recipe.digest() == tiny.of_recordings(str(tmp_path / "moved")).digest() != tiny.digest()
    assert recipe.name == "tiny_recorded"


def test_the_loop_takes_them(folder, tmp_path):
    config = demo()
    config.synthetic, config.motions = "tiny", folder
    source = synthetic_people.source_of("tiny", {"motions": folder})
    prepare(source, tmp_path, workers=0)
    train, _ = run.load(config, tmp_path)
    assert len(train.names) == 24 and all("Recorded" in name for name in train.names)
    assert (tmp_path / "synthetic_people" / "tiny_recorded").is_dir()


def test_recordings_are_a_choice_of_the_embedded_people_alone(folder, tmp_path):
    source = synthetic_people.source_of("tiny", {"motions": folder})
    assert source.config == "tiny_recorded" and source.options()["motions"] == pathlib.Path(folder).name
    with pytest.raises(InputError, match="--frame_step: --dataset=synthetic_people/tiny has no such choice"):
        synthetic_people.source_of("tiny", {"frame_step": 2})
    with pytest.raises(InputError, match="--motions: --dataset=human36m has no such choice"):
        catalogue.source_of("human36m", Files(folder), {"motions": folder})
    few = dataclasses.replace(RECIPES["tiny"].of_recordings(folder), train_count=2, test_count=1)
    builder, summary = prepare(synthetic_people.source(few), tmp_path, workers=0)
    assert summary.prepared == {"train": 2, "test": 1}
    assert builder.info.metadata["options"]["motions"] not in ("", folder)
