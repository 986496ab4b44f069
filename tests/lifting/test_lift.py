"""Laws of lifting: what is given stays, the hip is at 0, size and place do what they should."""

import functools

import jax
import numpy as np
import pytest

from dal_jax.body import cameras, skeleton
from dal_jax.lifting import lift, training
from dal_jax.lifting.config import LiftingConfig
from dal_jax.observations.following import Frames
from dal_jax.observations.observation import TYPICAL_DEPTH_SD, Observation
from dal_jax.runtime.errors import InputError
from tests.lifting import stick_people

_FLOAT32 = 5e-6  # outputs of order 1 in the pose's unit, through three float32 layers
_CONFIG = {
    "kudo": LiftingConfig(width=32),
    "best": LiftingConfig(width=32, members=2, estimated_share=0.5, complete=True, mirror_poses=True),
}
_LIFTER = {
    name: jax.tree.map(
        lambda leaf: 10 * np.asarray(leaf),
        jax.jit(functools.partial(training.initial_state, config))(jax.random.key(0)).lifter,
    )
    for name, config in _CONFIG.items()
}
_COMPILED = {name: jax.jit(functools.partial(lift.lift, config)) for name, config in _CONFIG.items()}
_POSES = np.asarray(stick_people.crowd(6, seed=1)[..., :2], np.float32)
_ALL = np.ones((6, 17), bool)
both = pytest.mark.parametrize("name", _CONFIG)


def _lift(name, poses, visible=_ALL):
    return jax.device_get(_COMPILED[name](_LIFTER[name], poses, visible))


@both
def test_x_and_y_are_the_given_ones_and_the_hip_is_the_origin(name):
    poses = 50 * _POSES + 300
    lifted = _lift(name, poses)
    np.testing.assert_allclose(lifted.joints[..., :2], poses - poses[:, :1], atol=1e-3)  # px, of coordinates around 300
    np.testing.assert_array_equal(lifted.joints[:, 0], 0)
    np.testing.assert_array_equal(lifted.joints[..., 2], lifted.depth)
    np.testing.assert_array_equal(lifted.points_sd, 0)


def test_joints_are_where_the_camera_sees_the_points():
    """A lifter that knows how near cameras stand gives x and y in space; what is given stays in `points`."""
    lifter = _LIFTER["best"].replace(inverse_distance=np.float32([0.05, 0.15]))
    lifted = jax.device_get(_COMPILED["best"](lifter, 50 * _POSES, _ALL))
    np.testing.assert_allclose(lifted.inverse_distance, 0.1 / lifted.size, rtol=1e-5)
    distance = 1 + lifted.inverse_distance[:, None] * lifted.depth
    np.testing.assert_allclose(lifted.joints[..., :2], lifted.points * distance[..., None], atol=1e-4)  # of 50
    np.testing.assert_array_equal(lifted.depth, _lift("best", 50 * _POSES).depth)


def test_a_person_beside_the_axis_is_lifted_as_on_it_and_turned():
    """As seen by the same camera after it was turned to look at the hip; the focal length tells the distance."""
    intrinsics = np.tile(np.float32([1000, 1000, 500, 400]), (6, 1))
    turn = np.asarray(cameras.ray_rotation(np.float32([900, 150]), intrinsics[0]))
    ahead = stick_people.crowd(6, seed=1) + [0, 0, 4]
    ahead -= ahead[:, :1] * [1, 1, 0]
    on_axis, beside = (
        jax.device_get(_lift_before(_LIFTER["best"], np.float32(_seen(each, intrinsics)), _ALL, intrinsics))
        for each in (ahead, ahead @ turn.T)
    )
    np.testing.assert_allclose(beside.depth, on_axis.depth, atol=2e-2)  # px, of poses 200 px large
    np.testing.assert_allclose(beside.joints, on_axis.joints @ turn.T, atol=5e-2)
    np.testing.assert_allclose(on_axis.rotation, np.tile(np.eye(3), (6, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(on_axis.inverse_distance, 1e-3, rtol=1e-5)
    assert np.abs(beside.joints - on_axis.joints).max() > 10


_lift_before = jax.jit(functools.partial(lift.lift_before, _CONFIG["best"]))


def _seen(joints, intrinsics):
    return joints[..., :2] / joints[..., 2:] * intrinsics[:, None, :2] + intrinsics[:, None, 2:]


@both
@pytest.mark.parametrize("factor", [4.0, 0.3, 700.0])
def test_a_larger_pose_is_deeper_and_less_certain_by_the_same_factor(name, factor):
    small, large = _lift(name, _POSES), _lift(name, factor * _POSES)
    assert np.abs(small.depth[:, 1:]).min() > 0
    np.testing.assert_allclose(large.depth, factor * small.depth, atol=factor * _FLOAT32)
    np.testing.assert_allclose(large.size, factor * small.size, rtol=_FLOAT32)
    if name == "best":
        np.testing.assert_allclose(large.depth_sd, factor * small.depth_sd, rtol=1e-4)
        assert (small.depth_sd[:, 1:] > 0).all() and (small.depth_sd[:, 0] == 0).all()


@both
def test_place_does_not_matter(name):
    np.testing.assert_allclose(
        _lift(name, _POSES + np.float32([5, -3])).depth, _lift(name, _POSES).depth, atol=_FLOAT32
    )


@both
def test_leading_axes_are_batch(name):
    flat = _lift(name, _POSES)
    folded = _lift(name, _POSES.reshape(2, 3, 17, 2), _ALL.reshape(2, 3, 17))
    for whole, part in zip(jax.tree.leaves(flat), jax.tree.leaves(folded), strict=True):
        np.testing.assert_allclose(part.reshape(whole.shape), whole, atol=_FLOAT32)
    np.testing.assert_allclose(_lift(name, _POSES[0], _ALL[0]).depth, flat.depth[0], atol=_FLOAT32)
    assert _lift(name, _POSES[:0], _ALL[:0]).joints.shape == (0, 17, 3)


@both
def test_what_a_missing_joint_holds_does_not_matter(name):
    visible = _ALL.copy()
    visible[:, [3, 10]] = False
    broken = _POSES.copy()
    broken[:, [3, 10]] = np.nan
    one, other = _lift(name, broken, visible), _lift(name, _POSES, visible)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)
        assert np.isfinite(left).all()


@both
@pytest.mark.parametrize("visible", [np.ones(17, bool), np.zeros(17, bool)])
def test_a_pose_of_no_size_has_no_depth(name, visible):
    np.testing.assert_array_equal(_lift(name, np.full((17, 2), 3.0, np.float32), visible).depth, 0)


def test_a_missing_joint_is_placed_by_the_others_where_there_is_a_completer():
    visible = _ALL.copy()
    visible[:, 13] = False
    kudo, best = _lift("kudo", _POSES, visible), _lift("best", _POSES, visible)
    np.testing.assert_allclose(kudo.points[:, 13], kudo.points[:, 12], atol=_FLOAT32)  # folded onto its elbow
    assert np.linalg.norm(best.points[:, 13] - best.points[:, 12], axis=-1).min() > 1e-3
    np.testing.assert_array_equal(best.points_sd[:, 13] > 0, True)
    given = np.arange(17) != 13
    np.testing.assert_allclose(best.points[:, given], (_POSES - _POSES[:, :1])[:, given], atol=1e-5)


def test_eq_4_takes_every_depth_alike_from_kudo_and_by_its_deviation_from_best():
    confidence = np.random.default_rng(0).random((6, 17)).astype(np.float32)
    confidence[:, 5] = 0
    none = np.zeros((6, 0))
    observed = Observation(
        none[..., None],
        none,
        none[..., None],
        none,
        _POSES,
        confidence,
        0 * confidence,
        0 * confidence,
        np.ones((6, 4)),
    )
    for name in _CONFIG:
        given = lift.with_lifted_depth(_CONFIG[name], _LIFTER[name], observed)
        depth, trusted = given.depth, given.depth_confidence
        lifted = _lift(name, _POSES, confidence > 0)
        np.testing.assert_allclose(depth, lifted.depth, atol=_FLOAT32)
        if name == "kudo":
            np.testing.assert_array_equal(trusted, confidence)
        else:
            expected = confidence / (1 + (lifted.depth_sd / lifted.size[:, None] / TYPICAL_DEPTH_SD) ** 2)
            np.testing.assert_allclose(trusted, expected, rtol=1e-5)


def test_a_mirror_image_is_lifted_to_the_mirror_image():
    """Exactly, where poses were mirrored in training; the published lifter knows no such law."""
    mirror = np.array(skeleton.H36M_MIRROR)
    visible = np.random.default_rng(0).random((6, 17)) < 0.8
    image, seen = (_POSES * np.float32([-1, 1]))[:, mirror], visible[:, mirror]
    whole, reflected = _lift("best", _POSES), _lift("best", image)
    np.testing.assert_allclose(reflected.depth[:, mirror], whole.depth, atol=_FLOAT32)
    np.testing.assert_allclose(reflected.depth_sd[:, mirror], whole.depth_sd, rtol=1e-4)
    assert np.abs(_lift("kudo", image).depth[:, mirror] - _lift("kudo", _POSES).depth).max() > 1e-3
    assert np.isfinite(_lift("best", image, seen).depth).all()


def _frames(track, frame, fps=30.0):
    return Frames(np.array(track), np.array(frame), fps)


def _shaking(count, missing=()):
    """Return one person who moves evenly, seen by somebody whose hand shakes, some joints unseen."""
    random = np.random.default_rng(0)
    moving = 100 * (_POSES[:1] + 0.01 * np.arange(count)[:, None, None] * random.normal(size=(17, 2)))
    moving -= moving[:, :1]
    points = moving + 3 * random.normal(size=moving.shape) * (np.arange(17) > 0)[None, :, None]
    sd = np.full((count, 17), 20.0)
    points_sd = np.zeros((count, 17))
    for row, joint in missing:
        points_sd[row, joint] = 30.0
    depth = 20 * random.normal(size=(count, 17)) * (np.arange(17) > 0)
    lifted = lift.Lifted(
        *(np.float32(each) for each in (points, depth, sd, points_sd)), np.full(count, 100.0), np.zeros(count)
    )
    return lifted, moving


def test_smooth_joints_are_the_least_squares_path():
    """Of the equation in the docstring, solved with dense matrices; two frames are missing, a joint is placed."""
    frame = np.array([4, 6, 8, 10, 16, 18])
    lifted, _ = _shaking(6, missing=[(2, 3)])
    rows = np.array([3, 0, 5, 1, 4, 2])  # frames come in any order
    shuffled = jax.tree.map(lambda leaf: leaf[rows], lifted)
    found = lift.smooth(shuffled, _frames([7] * 6, frame[rows], fps=60.0))
    back = np.argsort(rows)
    place = (frame - 4) // 2
    differences = np.diff(np.eye(place[-1] + 1), n=2, axis=0)
    seen = np.eye(place[-1] + 1)[place]
    usual = lift._ACCELERATION * 100.0  # every second frame of 60 is 30 a second
    for joint, axis in ((3, 0), (3, 1), (9, 0), (9, None)):
        values = lifted.depth[:, joint] if axis is None else lifted.points[:, joint, axis]
        sd = np.full(6, 20.0 if axis is None else lift._NOISE * 100)
        if joint == 3:
            sd[2] = 30.0
        stacked = np.concatenate([seen / sd[:, None], differences / usual])
        path = np.linalg.lstsq(stacked, np.concatenate([values / sd, np.zeros(len(differences))]), rcond=None)[0]
        smooth = found.depth[:, joint] if axis is None else found.points[:, joint, axis]
        np.testing.assert_allclose(smooth[back], path[place], atol=1e-3)
    np.testing.assert_array_equal(found.points[:, 0], 0)


def test_smooth_joints_are_nearer_to_those_that_move_evenly():
    lifted, moving = _shaking(40)
    smooth = lift.smooth(lifted, _frames([0] * 40, np.arange(40)))
    before, after = (np.sqrt(np.mean((one.points - moving) ** 2)) for one in (lifted, smooth))
    assert after < 0.5 * before
    assert np.abs(np.diff(smooth.depth, n=2, axis=0)).max() < 0.1 * np.abs(np.diff(lifted.depth, n=2, axis=0)).max()


def test_nobody_s_poses_and_paths_of_two_frames_stay():
    """A gap of more than a second ends a path."""
    lifted, _ = _shaking(6)
    cases = [_frames([-1] * 6, range(6)), _frames([0, 0, 1, 1, 2, 2], range(6))]
    for frames in [*cases, _frames([0] * 6, [0, 1, 40, 41, 90, 91])]:
        smooth = lift.smooth(lifted, frames)
        np.testing.assert_array_equal(smooth.points, lifted.points)
        np.testing.assert_array_equal(smooth.depth, lifted.depth)


def test_a_track_that_is_in_a_frame_twice_is_named():
    lifted, _ = _shaking(3)
    with pytest.raises(InputError, match="track_id 5: is in frame 2 twice"):
        lift.smooth(lifted, _frames([5, 5, 5], [2, 1, 2]))
