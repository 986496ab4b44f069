"""The banded system of smooth paths against dense least squares, and a whole track of a made-up person."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from dal_jax.body import kinematics, skeleton
from dal_jax.evaluation import metrics
from dal_jax.observations.following import Frames
from dal_jax.registration import register, tracks
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.synthetic import actors
from tests.registration import small_problem

_ROUNDING = 1e-6  # relative: conditions of float64 systems whose stiffness spans eight digits


def _frames(frames, track=None):
    return Frames(np.zeros(len(frames), int) if track is None else np.array(track), np.array(frames), 30.0)


def test_a_step_of_the_paths_is_the_least_squares_solution():
    """Two tracks, out of order, one with a gap of frames that nobody saw."""
    random, frames, track = np.random.default_rng(0), [6, 0, 4, 3, 1, 2, 0, 1, 2], [0, 0, 0, 0, 0, 0, 1, 1, 1]
    people = len(frames)
    paths = tracks.Paths(small_problem.small_template(), np.ones((people, 4)), _frames(frames, track))
    rows = 7 + 3
    turns = Rotation.from_rotvec(0.2 * random.normal(size=(rows, 3)))
    place = random.normal(size=(rows, 3))
    root, apart = random.normal(size=(people, 25, 3, 3)), random.normal(size=(people, 25, 3))
    row_of = np.array([6, 0, 4, 3, 1, 2, 7, 8, 9])
    for segment in (0, 10, 24):
        sd = tracks._PLACE if segment == 24 else np.full(3, tracks._ACCELERATION[segment])
        motion = np.diff(place, axis=0) if segment == 24 else (turns[1:] * turns[:-1].inv()).as_rotvec()
        known = np.swapaxes(root[:, segment], -1, -2) @ root[:, segment]
        found = paths._step(segment, row_of, motion, apart[:, segment], known)
        lines, right = [np.sqrt(tracks._STILL) * np.eye(3 * rows).reshape(-1, rows, 3)], [np.zeros(3 * rows)]
        for person, row in enumerate(row_of):
            line = np.zeros((3, rows, 3))
            line[:, row] = root[person, segment]
            lines.append(line)
            right.append(root[person, segment] @ apart[person, segment])
        for row in (1, 2, 3, 4, 5, 8):
            line = np.zeros((3, rows, 3))
            for other, share in ((-1, 1), (0, -2), (1, 1)):
                line[:, row + other] = share * np.diag(np.sqrt(tracks.WEIGHT) / sd)
            lines.append(line)
            right.append(-np.sqrt(tracks.WEIGHT) / sd * (motion[row] - motion[row - 1]))
        expected = np.linalg.lstsq(np.concatenate(lines).reshape(-1, 3 * rows), np.concatenate(right), rcond=None)[0]
        np.testing.assert_allclose(found.ravel(), expected, rtol=_ROUNDING, atol=_ROUNDING)


def test_walking_people_accelerate_as_the_paths_expect():
    """Thighs, shins and feet of a synthetic training subject, within a factor of two."""
    actor, rotations = actors.subject("S1"), []
    for frame in range(60):
        posture = actors.perform("Walking", actor.joints, actor.landmarks, (0, 1), frame / 30)
        world = [posture.root]
        for joint in range(1, 24):
            turn = Rotation.from_rotvec(posture.pose[joint - 1]).as_matrix()
            world.append(world[skeleton.SMPL_PARENTS[joint]] @ turn)
        rotations.append(world)
    rotations = np.array(rotations)
    step = Rotation.from_matrix((rotations[1:] @ np.swapaxes(rotations[:-1], -1, -2)).reshape(-1, 3, 3)).as_rotvec()
    rms = np.sqrt(np.mean(np.diff(step.reshape(59, 24, 3), axis=0) ** 2, axis=(0, 2)))
    legs = [1, 2, 4, 5, 7, 8]
    assert np.abs(np.log(rms[legs] / tracks._ACCELERATION[legs])).max() < np.log(2)


def test_a_frame_that_no_image_tells_of_goes_where_its_neighbours_say():
    """Of three frames the second has no information: no step where the neighbours' paths are straight."""
    paths = tracks.Paths(small_problem.small_template(), np.ones((3, 4)), _frames([0, 1, 2]))
    known = np.array([1.0, 0.0, 1.0])[:, None, None] * 1e3 * np.eye(3)
    apart, still, row = np.repeat([[0.1], [9.0], [0.3]], 3, axis=1), np.zeros((2, 3)), np.arange(3)
    for segment in (0, 5, 24):
        told = paths._step(segment, row, still, apart, known)
        np.testing.assert_allclose(told, np.repeat([[0.1], [0.2], [0.3]], 3, axis=1), atol=1e-4)
        np.testing.assert_allclose(paths._step(segment, row, still, apart, 0 * known), 0.0, atol=1e-9)


def test_key_frames_are_as_many_a_second_and_begin_every_path():
    template, box = small_problem.small_template(), np.ones((60, 4))
    frames = Frames(np.repeat([0, 1], 30), np.tile(4 * np.arange(30), 2), 240.0)  # sixty of the frames a second
    keys, nearest = tracks.Paths(template, box, frames).key_frames()
    np.testing.assert_array_equal(keys, np.concatenate([np.arange(0, 30, 6), np.arange(30, 60, 6)]))
    assert (keys[nearest] <= np.arange(60)).all() and (np.arange(60) - keys[nearest] < 6).all()


@pytest.fixture(scope="module")
def motion():
    """Ten frames of a person who turns and bends evenly, seen in square boxes of their own, with noise."""
    ends = small_problem.random_people(2, seed=3, pose_sd=0.25, turn=0.3)
    share = np.linspace(0, 1, 10)

    def between(first, second):
        return Slerp([0, 1], Rotation.concatenate([first, second]))(share)

    pose = [between(*(Rotation.from_rotvec(ends.pose[k, joint]) for k in range(2))).as_rotvec() for joint in range(23)]
    truth = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[:1], 10, axis=0), ends)
    truth = dataclasses.replace(
        truth,
        pose=np.stack(pose, axis=1).astype(np.float32),
        rotation=between(*(Rotation.from_matrix(each) for each in ends.rotation)).as_matrix().astype(np.float32),
    )
    observed = small_problem.observe(truth, seed=5, points=60, noise=0.03)
    return truth, observed


@pytest.mark.slow
def test_a_track_has_one_shape_and_less_jitter_than_its_frames(motion):
    truth, observed = motion
    hidden = 4  # nobody saw the person's points there
    blind = {
        name: np.where(np.arange(10)[:, None] == hidden, 0.0, getattr(observed, name)).astype(np.float32)
        for name in ("point_confidence", "keypoint_confidence", "depth_confidence")
    }
    observed = observed.replace(**blind)
    template, objective = small_problem.small_template(), Objective(EnergyWeights(1000.0, 30.0, 10.0, 0.1))
    config = RegistrationConfig("lm", steps=tracks.STEPS, starts="tpose", batch=10, devices=1)
    track, expecting = tracks.fit(template, observed, _frames(range(10)), config, objective)
    frames = register.register(template, observed, dataclasses.replace(config, information=True), objective)
    joints = jax.jit(jax.vmap(lambda one: kinematics.pose_segments(template, one).position))
    true, smooth, apart = (1000 * joints(each) for each in (truth, track.parameters, frames.parameters))
    jitter = [float(metrics.acceleration_error_mm(each, true)) for each in (smooth, apart)]
    error = [np.asarray(jax.vmap(metrics.mpjpe_scale_matched_mm)(each, true)) for each in (smooth, apart)]
    assert jitter[0] < 0.5 * jitter[1]
    assert error[0].mean() < error[1].mean() and error[0][hidden] < 2 * error[0].mean()
    np.testing.assert_allclose(
        track.parameters.segment_scale, track.parameters.segment_scale[:1].repeat(10, axis=0), rtol=1e-5
    )
    assert expecting.expected is not None and np.isfinite(track.energy).all()
