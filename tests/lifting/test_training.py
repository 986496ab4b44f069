"""Training as a whole: resumes bit for bit, learns depth it was never shown, runs on real poses."""

import dataclasses
import functools
import json
import os
import pathlib

import jax
import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.lifting import folder, lift, normalise, training
from dal_jax.lifting.config import PRESETS, LiftingConfig, demo, kudo, validate
from dal_jax.lifting.poses import checked, read
from dal_jax.runtime import mesh, progress
from dal_jax.runtime.errors import DivergedError, InputError
from tests.lifting import stick_people

_SMALL = LiftingConfig(
    width=16,
    batch=8,
    normalise_fakes=True,
    cycle_consistency_weight=1.0,
    bone_weight=1.0,
    matched_azimuths=0.5,
    mirror_poses=True,
    elevation_rate=1e-3,
    elevation_spread_deg=10.0,
    flow_weight=1.0,
    average_decay=0.9,
    members=2,
    estimated_share=0.4,
    denoise=True,
    decay=True,
    complete=True,
    steps_per_call=4,
)
_POSES = np.asarray(stick_people.crowd(32, seed=0)[..., :2], np.float32)
_ALL = np.ones((32, 17), bool)


def _steps(config, steps):
    return dataclasses.replace(config, steps=steps)


@functools.cache
def _initial(of_small):
    config = _SMALL if of_small else _QUICK
    return jax.jit(functools.partial(training.initial_state, config))(jax.random.key(0))


def _assert_same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


class _KilledError(Exception):
    pass


def test_stopped_anywhere_and_resumed_ends_in_the_same_bits():
    """In the game, between the game and the estimation, and in the estimation."""
    key, config = jax.random.key(5), _steps(_SMALL, 11)
    visible = np.random.default_rng(0).random((32, 17)) < 0.9
    start = _initial(of_small=True)
    through = training.train(start, _POSES, visible, config, key)
    for stop in (4, 7, 8):
        kept = []

        def kill(state, _, stop=stop, kept=kept):
            if state.step == stop:
                kept.append(jax.device_get(state))  # as a checkpoint would
                raise _KilledError

        with pytest.raises(_KilledError):
            training.train(start, _POSES, visible, config, key, kill)
        _assert_same_bits(training.train(kept[0], _POSES, visible, config, key), through)
    assert through.step == 11
    _assert_same_bits(training.train(through, _POSES, visible, _steps(_SMALL, 7), key), through)


def test_stops_come_at_multiples_of_the_call_and_at_the_end_of_the_game():
    stops = []
    start = _initial(of_small=True)
    training.train(start, _POSES, _ALL, _steps(_SMALL, 10), jax.random.key(1), lambda *each: stops.append(each))
    assert [int(state.step) for state, _ in stops] == [4, 6, 8, 10]
    for state, losses in stops:
        assert ("accuracy" in losses) == (state.step <= 6) and ("depth_error" in losses) == (state.step > 6)
        assert 0 <= losses.get("accuracy", 0) <= 1 and all(np.isfinite(value) for value in losses.values())
        lifter = training.lifter_so_far(_steps(_SMALL, 10), state)
        assert (lifter.estimator is None) == (state.step <= 6) != (lifter.generators is None)


def _spoil(leaf):
    return np.full_like(leaf, np.nan) if np.issubdtype(leaf.dtype, np.floating) else leaf


def test_weights_that_are_not_finite_are_refused_before_they_are_kept():
    start = _initial(of_small=True)
    spoilt = dataclasses.replace(start, members=jax.tree.map(_spoil, start.members))
    stops = []
    with pytest.raises(DivergedError, match=r"^lifter, step 4: \w+ is nan$"):
        training.train(spoilt, _POSES, _ALL, _steps(_SMALL, 10), jax.random.key(1), lambda *each: stops.append(each))
    assert not stops


def test_kudo_is_as_published():
    config = kudo()
    assert (config.width, config.batch, config.learning_rate, config.adam_b1) == (1024, 16, 2e-4, 0.5)
    assert (config.weight_decay, config.mirror_weight) == (1e-5, 1.0)
    assert (config.discriminator_gate, config.generator_gate) == (0.9, 0.1)
    beyond = (config.cycle_consistency_weight, config.bone_weight, config.elevation_rate, config.average_decay)
    assert not any((*beyond, config.inverse_distance_start, config.inverse_distance_rate))
    assert not config.normalise_fakes and not config.discriminator_bones
    assert not (
        config.estimated_share
        or config.denoise
        or config.decay
        or config.complete
        or config.matched_azimuths
        or config.mirror_margin
    )
    assert (config.azimuth_deg, config.elevation_start_deg, config.members) == (180, 0, 1)
    assert config.steps * config.batch == pytest.approx(200 * 19_919, rel=0.01)


_QUICK = LiftingConfig(
    width=64, batch=64, learning_rate=1e-3, average_decay=0.98, normalise_fakes=True, discriminator_bones=True,
    mirror_margin=0.7, cycle_consistency_weight=1.0, bone_weight=2.0, estimated_share=0.3, complete=True, members=2,
)  # fmt: skip
_PEOPLE = stick_people.crowd(training.FEWEST_TO_HOLD_OUT + 100, seed=0).astype(np.float32)
_LEARNED, _HELD_OUT = _PEOPLE[:-100, :, :2], _PEOPLE[-100:]
_KNOWN = np.ones(_LEARNED.shape[:2], bool)
_lift = jax.jit(functools.partial(lift.lift, _QUICK))


@pytest.fixture(scope="module")
def trained():
    """Some seconds of training on one skeleton at every azimuth."""
    return training.train(_initial(of_small=False), _LEARNED, _KNOWN, _steps(_QUICK, 600), jax.random.key(1))


@pytest.fixture(scope="module")
def lifter(trained):
    return trained.lifter


def test_depth_is_learned_from_2d_alone(lifter):
    """Well below the error of no depth at all, which is 1."""
    lifted = _lift(lifter, _HELD_OUT[..., :2], np.ones((100, 17), bool))
    error = np.abs(lifted.depth - _HELD_OUT[..., 2]).mean() / np.abs(_HELD_OUT[..., 2]).mean()
    assert error < 0.7  # measured 0.42


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 0), ("learning_rate", float("nan")), ("average_decay", 1.0), ("azimuth_deg", 181.0), ("batch", -1)],
)
def test_a_wrong_value_is_named(field, value):
    config = demo()
    setattr(config, field, value)
    with pytest.raises(InputError, match=f"config.{field} is {value}"):
        validate(config)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_carry_their_name(preset):
    config = PRESETS[preset]()
    validate(config)
    assert config.preset == preset


@pytest.mark.skipif("DAL_REAL_DATA" not in os.environ, reason="needs DAL_REAL_DATA, the folder of real data")
def test_real_poses_train_with_finite_losses():
    poses = read(pathlib.Path(os.environ["DAL_REAL_DATA"]) / "poses_2d" / "mpii_poses.npy")
    keypoints, visible = poses.keypoints_px[: len(_LEARNED)], poses.visible[: len(_LEARNED)]
    losses = []
    state = training.train(
        _initial(of_small=False), keypoints, visible, _steps(_QUICK, 400), jax.random.key(1),
        lambda _, means: losses.append(means),
    )  # fmt: skip
    assert all(np.isfinite(value) for means in losses for value in means.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    joints = np.asarray(_lift(state.lifter, keypoints[:100], visible[:100]).joints)
    spread = joints[..., 2].std() / joints[..., 0].std()
    assert 0.3 < spread < 2  # people are about as deep as they are wide when seen from all sides


def test_half_of_the_poses_are_mirrored():
    """Mirrored again they are the given ones; what is missing goes to the other side too."""
    visible = np.random.default_rng(0).random((32, 17)) < 0.8
    batch = jax.device_get(jax.jit(normalise.normalise_all)(_POSES, visible))
    shown = jax.device_get(jax.jit(normalise.mirror_half)(batch, jax.random.key(0)))
    changed = np.any(np.asarray(shown.points != batch.points), axis=(1, 2))
    assert 8 < changed.sum() < 24
    mirror = np.array(skeleton.H36M_MIRROR)
    back = np.asarray(shown.points)[changed][:, mirror] * np.float32([-1, 1])
    np.testing.assert_array_equal(back, np.asarray(batch.points)[changed])
    np.testing.assert_array_equal(np.asarray(shown.visible)[changed][:, mirror], np.asarray(batch.visible)[changed])
    np.testing.assert_array_equal(shown.points[~changed], batch.points[~changed])


def test_a_batch_shows_people_in_two_frames_each():
    """The second half has other frames of the first half's people, mirrored as they are; nobody's poses are alone."""
    track = np.array([4, 9, 4, -1, 9, 4, -1])
    order, first, count = normalise.rows_of_people(track)
    for row, number in enumerate(track):
        frames = order[first[row] : first[row] + count[row]].tolist()
        assert frames == ([row] if number < 0 else np.flatnonzero(track == number).tolist())
    poses = np.repeat(_POSES, 4, axis=0)[:128]
    whose = np.repeat(np.arange(32), 4)
    normalised = jax.jit(normalise.normalise_all)(poses, np.ones(poses.shape[:2], bool))
    taught = normalise.Taught(normalised, normalise.rows_of_people(whose))
    config = LiftingConfig(batch=9)
    batch = normalise.draw(config, mesh.of_networks(), taught, jax.random.key(0))
    np.testing.assert_array_equal(batch.points[:4], batch.points[4:8])  # all frames of a person are alike here
    assert len(np.unique(batch.points[:4], axis=0)) > 1
    shown = normalise.mirror_half(batch, jax.random.key(1), pairs=True)
    np.testing.assert_array_equal(shown.points[:4], shown.points[4:8])
    assert np.any(shown.points != batch.points)


def test_proportions_of_people_in_several_frames_are_learned(tmp_path):
    """The loss is in the log, and poses that do not say whose they are are refused."""
    config = LiftingConfig(width=8, batch=8, steps=4, steps_per_call=4, track_weight=2.0)
    whose = np.arange(len(_POSES)) // 2
    with pytest.raises(InputError, match="the poses have no track_id"):
        folder.train(tmp_path / "none", checked("poses", _POSES, _ALL), config)
    folder.train(tmp_path / "run", dataclasses.replace(checked("poses", _POSES, _ALL), track_id=whose), config)
    logged = progress.read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert logged[-1]["track_unlikeness"] > 0


def test_members_differ_and_the_mean_of_those_that_count_lifts():
    """Where no estimator has learned from them."""
    state = training.train(_initial(of_small=True), _POSES, _ALL, _steps(_SMALL, 4), jax.random.key(1))
    members = jax.device_get(state.members.generator)
    lifter = jax.device_get(state.lifter).replace(estimator=None, inverse_distance=np.zeros(2, np.float32))
    single = []
    for weight in ([1, 0], [0, 1]):
        alone = lifter.replace(generators=members, member_weight=np.float32(weight))
        single.append(np.asarray(_lift_small(alone).depth))
    assert np.abs(single[0] - single[1]).max() > 1e-4
    both = _lift_small(lifter.replace(generators=members, member_weight=np.ones(2, np.float32)))
    np.testing.assert_allclose(both.depth, (single[0] + single[1]) / 2, atol=1e-6)


@jax.jit
def _lift_small(lifter):
    return lift.lift(_SMALL, lifter, _POSES, _ALL)


def test_the_estimator_lifts_and_the_deviation_of_the_hip_is_not_learned():
    """The hip's depth is 0 and never off; a likelihood of it would have no upper bound."""
    start = _initial(of_small=True)
    state = training.train(start, _POSES, _ALL, _steps(_SMALL, 8), jax.random.key(1))
    assert state.lifter.generators is None and state.lifter.estimator is not None
    before, after = (np.asarray(one.estimator["params"]["mlp"]["last"]["bias"]) for one in (start, state))
    assert before[17] == after[17] and (before[18:] != after[18:]).all() and (before[1:17] != after[1:17]).all()


def test_a_collapsed_member_does_not_count(trained):
    """Reversed depths show noses behind, which held-out 2D poses tell."""
    state = trained
    assert state.member_weight.tolist() == [1, 1]

    def reverse(generators):  # by itself no margin over what members of other seeds differ by after 600 steps
        last = generators["params"]["mlp"]["last"]
        return jax.tree.map(lambda leaf: leaf * np.float32([1, -3]).reshape(2, *[1] * (leaf.ndim - 1)), last)  # deeper

    mlp = state.members.generator["params"]["mlp"] | {"last": reverse(state.members.generator)}
    collapsed = state.replace(members=state.members.replace(
        generator={"params": {"mlp": mlp}}, trained_generator={"params": {"mlp": mlp}}
    ))  # fmt: skip
    judged = training.train(collapsed, _LEARNED, _KNOWN, _steps(_QUICK, 601), jax.random.key(1))
    assert judged.member_weight.tolist() == [1, 0]


def test_a_missing_wrist_is_placed_by_what_was_learned(lifter):
    hidden = np.broadcast_to(np.arange(17) != 13, (100, 17))
    partly = _lift(lifter, _HELD_OUT[..., :2], hidden)
    true = _HELD_OUT[:, 13, :2] - _HELD_OUT[:, 0, :2]
    completed = np.linalg.norm(partly.points[:, 13] - true, axis=-1).mean()
    folded = np.linalg.norm(_HELD_OUT[:, 12, :2] - _HELD_OUT[:, 0, :2] - true, axis=-1).mean()
    assert completed < 0.7 * folded  # measured 0.27


def test_predicted_deviations_have_the_size_of_the_errors(lifter):
    lifted = _lift(lifter, _HELD_OUT[..., :2], np.ones((100, 17), bool))
    error = np.abs(np.asarray(lifted.depth) - _HELD_OUT[..., 2])[:, 1:]
    assert 0.3 < np.mean(error < np.asarray(lifted.depth_sd)[:, 1:]) < 0.95  # a normal one: 0.68


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"members": 1e308}, "members is 1e.308, expected int"),
        ({"members": False}, "members is False, expected int"),
        ({"width": [[[]]]}, r"width is \[\[\[\]\]\], expected int"),
        ({"elevation_start_deg": "\u202e\0"}, "elevation_start_deg is .*, expected float"),
        ({"width": 0}, "width is 0: at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"colour": 3}, "is no configuration of a lifter"),
    ],
)
def test_a_configuration_of_any_values_is_one_line(tmp_path, changes, told):
    fields = dataclasses.asdict(LiftingConfig()) | changes
    (tmp_path / "config.json").write_text(json.dumps({"config": fields}))
    with pytest.raises(InputError, match=rf"config\.json: .*{told}"):
        folder.load(tmp_path)
