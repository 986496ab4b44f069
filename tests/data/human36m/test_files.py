"""Positions, videos and names of files: what is read, what is left out, and what is wrong with them."""

import cdflib.cdfwrite
import numpy as np
import pytest

from dal_jax.data.human36m import release
from dal_jax.runtime.errors import InputError
from tests.data.human36m import release as release_lib


def test_seventeen_of_thirty_two_joints_are_read_in_our_order(tmp_path):
    joints = np.random.default_rng(0).uniform(-900, 900, (5, 17, 3))
    path = release_lib.write_cdf(tmp_path / "Directions 1.cdf", joints)
    assert release.read_joints(path, 3) == pytest.approx(joints.astype(np.float32), abs=0)
    assert len(set(release.MOVING)) == 17


def _write_pose(path, values, name="Pose"):
    file = cdflib.cdfwrite.CDF(path, delete=True)
    about = {"Variable": name, "Data_Type": 45, "Num_Elements": 1, "Rec_Vary": True}
    file.write_var({**about, "Dim_Sizes": list(values.shape[1:])}, var_data=values)
    file.close()


def _cut(path):
    path.write_bytes(path.read_bytes()[:300])


def _hole(path):
    values = np.zeros((1, 4, 96))
    values[0, 2, 3 * 6 + 1] = np.nan
    _write_pose(path, values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_text("no CDF"), "'Pose' cannot be read from this .cdf"),
        (_cut, "'Pose' cannot be read from this .cdf"),
        (lambda path: _write_pose(path, np.zeros((1, 4, 96)), "Angles"), "'Pose' cannot be read from this .cdf"),
        (
            lambda path: _write_pose(path, np.zeros((1, 4, 64))),
            "shape (1, 4, 64), not numbers of shape (1, frames, 96)",
        ),
        (_hole, "frame 2: joint 6 is [0.0, nan, 0.0]"),
    ],
)
def test_damaged_positions_are_one_line(tmp_path, damage, message):
    path = release_lib.write_cdf(tmp_path / "Directions 1.cdf", np.zeros((4, 17, 3)))
    damage(path)
    with pytest.raises(InputError) as caught:
        release.read_joints(path, 3)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def _touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_sequences_are_found_by_protocol_and_actions_have_one_name(tmp_path):
    _touch(
        tmp_path,
        "S1/Videos/Photo 1.54138969.mp4",
        "S1/Videos/_ALL 1.54138969.mp4",
        "S5/Videos/WalkingDog.60457274.mp4",
        "S6/Videos/TakingPhoto.60457274.mp4",
        "S7/Videos/WalkTogether 2.58860488.mp4",
        "S2/Videos/Directions.54138969.mp4",
        "S9/Videos/Posing.55011271.mp4",
        "S11/Videos/Phoning 3.55011271.mp4",
    )
    train, test = (release.find_videos(tmp_path, split) for split in ("train", "test"))
    assert [one.action for one in train] == ["Photo", "WalkDog", "Photo", "WalkTogether"]
    assert [one.name for one in test] == ["S9/Posing.55011271", "S11/Phoning 3.55011271"]
    assert train[0].positions("D3_Positions") == tmp_path / "S1/MyPoseFeatures/D3_Positions/Photo 1.cdf"
    assert train[0].positions("D2_Positions") == tmp_path / "S1/MyPoseFeatures/D2_Positions/Photo 1.54138969.cdf"
    assert train[0].video == tmp_path / "S1/Videos/Photo 1.54138969.mp4"


def test_known_bad_videos_are_named(tmp_path):
    names = ("Directions.54138969", "Directions.55011271", "Greeting.54138969")
    _touch(tmp_path, *(f"{subject}/Videos/{name}.mp4" for subject in ("S9", "S11") for name in names))
    bad = [one.name for one in release.find_videos(tmp_path, "test") if one.fault]
    assert bad == ["S9/Greeting.54138969", "S11/Directions.54138969"]


@pytest.mark.parametrize("name", ["Dancing 1.54138969", "Directions 1.12345678", "Directions"])
def test_a_strange_name_is_refused(tmp_path, name):
    _touch(tmp_path, f"S1/Videos/{name}.mp4")
    with pytest.raises(InputError, match=f"{name}.mp4: is not named as a video of the release"):
        release.find_videos(tmp_path, "train")
