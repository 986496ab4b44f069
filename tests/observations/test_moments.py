"""Who is who over cameras, by the rule of names and by rays; and which camera contradicts the others."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.observations import cameras_file, moments
from dal_jax.observations.observations import Observations
from dal_jax.runtime.errors import InputError
from tests.observations.test_cameras_file import rig

FRAMES = 4
PLACE = 0.02  # metres: crops hold pixels in float32
TURNED_DEG, ANGLE = 5.0, 0.2  # degrees


def recorded(cameras, bodies, noise_px=0.5, names="{camera}/{frame:04d}.jpg"):
    """Return what cameras see of bodies (people, frames, 17, 3); each frame's people in another order a camera."""
    random, seen, files = np.random.default_rng(0), [], []
    for camera in cameras:
        for frame in range(bodies.shape[1]):
            for person in random.permutation(len(bodies)):
                pixels = camera.project(bodies[person, frame])
                seen.append(pixels + random.normal(0.0, noise_px, pixels.shape))
                files.append(names.format(camera=camera.name, frame=frame))
    people = Observations.from_points(keypoints_px=np.array(seen))
    return dataclasses.replace(people, file_name=files)


def two_people():
    """Return two people who stand a metre apart, and sway."""
    random = np.random.default_rng(1)
    one = random.uniform(-0.5, 0.5, (17, 3)) + random.normal(0.0, 0.05, (FRAMES, 1, 3))
    return np.stack([one, one[:, ::-1] + np.array([0.8, 0.3, 0.6])])


def found_in(people, cameras):
    straight = moments.straight(people, cameras)
    return straight, moments.find(straight, cameras)


def test_two_people_are_told_apart_and_followed():
    bodies, cameras = two_people(), rig()
    _, found = found_in(recorded(cameras, bodies), cameras)
    assert (found.rows >= 0).all()
    assert len(found.rows) == 2 * FRAMES
    for person in range(2):
        own = found.person == person
        np.testing.assert_array_equal(found.frame[own], np.arange(FRAMES))
        middles = np.median(bodies[:, :, :], axis=2)  # people, frames, 3
        apart = np.linalg.norm(found.place[own][None] - middles, axis=-1).max(axis=1)
        assert apart.min() < PLACE
        assert apart.max() > 0.5


def test_a_person_whom_one_camera_alone_sees_is_nobody_elses():
    cameras, bodies = rig(), two_people()
    people = recorded(cameras[:2], bodies[:1])
    stranger = recorded(cameras[2:], bodies[1:])
    joined = Observations.from_points(keypoints_px=np.concatenate([_pixels(people), _pixels(stranger)]))
    joined = dataclasses.replace(joined, file_name=people.file_name + stranger.file_name)
    _, found = found_in(joined, cameras)
    np.testing.assert_array_equal(np.sort((found.rows >= 0).sum(axis=1)), [1] * FRAMES + [2] * FRAMES)


def _pixels(people):
    box = np.asarray(people.stacked.box_px, np.float64)
    return (np.asarray(people.stacked.keypoint_position) + 1.0) / 2.0 * box[:, None, 2:] + box[:, None, :2]


@pytest.mark.parametrize(("turned", "axis"), [(None, "y"), (0, "y"), (1, "x"), (2, "y"), (3, "z"), (0, "z")])
def test_a_camera_that_was_turned_is_named(turned, axis):
    quarters = Rotation.from_euler("y", [[0.0], [1.5], [3.0], [4.5]]).as_matrix()
    cameras = [dataclasses.replace(rig()[0], name=f"cam{k}", rotation=turn) for k, turn in enumerate(quarters)]
    people, wrong = recorded(cameras, two_people()[:1]), list(cameras)
    if turned is not None:
        turn, one = Rotation.from_euler(axis, TURNED_DEG, degrees=True).as_matrix(), cameras[turned]
        wrong[turned] = dataclasses.replace(one, rotation=turn @ one.rotation, translation=turn @ one.translation)
    straight, found = found_in(people, wrong)
    told = moments.agreement(straight, found, wrong)
    named = [number for number, one in enumerate(told) if one.contradicts]
    assert named == ([] if turned is None else [turned])
    if turned is not None:
        assert told[turned].turned_deg == pytest.approx(TURNED_DEG, abs=ANGLE)
        assert axis == "z" or told[turned].apart_deg == pytest.approx(TURNED_DEG, abs=ANGLE)
        assert cameras[turned].name in told[turned].line()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cam01/000012.jpg", (1, "", 12)),
        ("walk_cam02_000012.jpg", (2, "walk", 12)),
        ("cam00_json/cam00.7.png", (0, "json", 7)),
        ("day2/cam01-3", (1, "day2", 3)),
    ],
)  # fmt: skip
def test_names_tell_camera_and_moment(name, told):
    assert moments.names_of(name, "0", rig()) == told


@pytest.mark.parametrize(
    ("name", "said"), [("acam01b.jpg", "none of the cameras cam00"), ("cam01_cam02.jpg", "cam01 and cam02")]
)
def test_a_name_without_its_camera_is_refused(name, said):
    with pytest.raises(InputError, match=said):
        moments.names_of(name, "0", rig())


def test_without_calibration_ids_tell_who_is_who():
    people = recorded(rig(), two_people())
    named = cameras_file.read("cam00, cam01,cam02")
    with pytest.raises(InputError, match="shows several people; without calibration their track_id"):
        moments.by_names(people, named)
    _, true = found_in(people, rig())
    ids = true.person[true.of_rows(len(people))[0]]
    found = moments.by_names(dataclasses.replace(people, track_id=ids.tolist()), named)
    assert sorted(found.rows.tolist()) == sorted(true.rows.tolist())
    assert [len(set(ids[found.rows[found.person == person]].ravel())) for person in range(2)] == [1, 1]


@pytest.mark.parametrize("text", ["cam01,", "cam01,cam01"])
def test_cameras_without_calibration_need_names_of_their_own(text):
    with pytest.raises(InputError, match="each with a name of its own"):
        cameras_file.read(text)
