"""Training as a whole: resumes bit for bit, learns depth it was never shown, runs on real poses."""

import dataclasses
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.lifting import folder, lift, normalise, training
from dal_jax.lifting.config import PRESETS, Config, demo, kudo, validate
from dal_jax.lifting.poses import read
from dal_jax.runtime.errors import DivergedError, InputError
from tests.lifting import stick_people

_SMALL = Config(
    width=16,
    batch=8,
    normalise_fakes=True,
    cycle_consistency_weight=1.0,
    bone_weight=1.0,
    matched_azimuths=0.5,
    mirror_poses=True,
    elevation_rate=1e-3,
    average_decay=0.9,
    members=2,
    log_variance=True,
    complete=True,
    steps_per_call=4,
)
_POSES = np.asarray(stick_people.crowd(32, seed=0)[..., :2], np.float32)
_ALL = np.ones((32, 17), bool)


def _steps(config, steps):
    return dataclasses.replace(config, steps=steps)


def _assert_same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_stopped_anywhere_and_resumed_ends_in_the_same_bits():
    key = jax.random.key(5)
    visible = np.random.default_rng(0).random((32, 17)) < 0.9
    start = training.initial_state(_SMALL, jax.random.key(0))
    through = training.train(start, _POSES, visible, _steps(_SMALL, 11), key)
    for stops in ((1, 11), (4, 11), (3, 6, 11)):
        state = start
        for stop in stops:
            state = training.train(state, _POSES, visible, _steps(_SMALL, stop), key)
            state = jax.tree.map(jnp.asarray, jax.device_get(state))  # as a checkpoint would
        _assert_same_bits(state, through)
    assert through.step == 11
    _assert_same_bits(training.train(through, _POSES, visible, _steps(_SMALL, 7), key), through)


def test_stops_come_at_multiples_of_the_call():
    stops = []
    start = training.initial_state(_SMALL, jax.random.key(0))
    training.train(start, _POSES, _ALL, _steps(_SMALL, 10), jax.random.key(1), lambda *each: stops.append(each))
    assert [int(state.step) for state, _ in stops] == [4, 8, 10]
    for _, losses in stops:
        assert 0 <= losses["accuracy"] <= 1 and all(np.isfinite(value) for value in losses.values())


def test_weights_that_are_not_finite_are_refused_before_they_are_kept():
    start = training.initial_state(_SMALL, jax.random.key(0))
    spoilt = dataclasses.replace(start, members=jax.tree.map(lambda leaf: leaf * jnp.nan, start.members))
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
    assert not (config.log_variance or config.complete or config.matched_azimuths or config.mirror_margin)
    assert (config.azimuth_deg, config.elevation_start_deg, config.members) == (180, 0, 1)
    assert config.steps * config.batch == pytest.approx(200 * 19_919, rel=0.01)


_QUICK = Config(
    width=64, batch=64, learning_rate=1e-3, average_decay=0.98, normalise_fakes=True, discriminator_bones=True,
    mirror_margin=0.7, cycle_consistency_weight=1.0, bone_weight=2.0, log_variance=True, complete=True,
)  # fmt: skip
_PEOPLE = stick_people.crowd(1000, seed=0).astype(np.float32)
_HELD_OUT = _PEOPLE[900:]


@pytest.fixture(scope="module")
def lifter():
    """Some seconds of training on one skeleton at every azimuth."""
    state = training.train(
        training.initial_state(_QUICK, jax.random.key(0)), _PEOPLE[:900, :, :2], np.ones((900, 17), bool),
        _steps(_QUICK, 600), jax.random.key(1),
    )  # fmt: skip
    return state.lifter


def test_depth_is_learned_from_2d_alone(lifter):
    """Well below the error of no depth at all, which is 1."""
    lifted = lift.lift(_QUICK, lifter, jnp.asarray(_HELD_OUT[..., :2]), np.ones((100, 17), bool))
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
    config = Config(width=64, batch=64, normalise_fakes=True, cycle_consistency_weight=1.0, average_decay=0.99)
    losses = []
    state = training.train(
        training.initial_state(config, jax.random.key(0)), poses.keypoints_px, poses.visible,
        _steps(config, 600), jax.random.key(1), lambda _, means: losses.append(means),
    )  # fmt: skip
    assert all(np.isfinite(value) for means in losses for value in means.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    keypoints = jnp.asarray(poses.keypoints_px[:500])
    joints = np.asarray(lift.lift(config, state.lifter, keypoints, poses.visible[:500]).joints)
    spread = joints[..., 2].std() / joints[..., 0].std()
    assert 0.3 < spread < 2  # people are about as deep as they are wide when seen from all sides


def test_half_of_the_poses_are_mirrored():
    """Mirrored again they are the given ones; what is missing goes to the other side too."""
    visible = np.random.default_rng(0).random((32, 17)) < 0.8
    batch = normalise.normalise_all(jnp.asarray(_POSES), jnp.asarray(visible))
    shown = training._mirror_half(batch, jax.random.key(0))
    changed = np.any(np.asarray(shown.points != batch.points), axis=(1, 2))
    assert 8 < changed.sum() < 24
    mirror = np.array(skeleton.H36M_MIRROR)
    back = np.asarray(shown.points)[changed][:, mirror] * np.float32([-1, 1])
    np.testing.assert_array_equal(back, np.asarray(batch.points)[changed])
    np.testing.assert_array_equal(np.asarray(shown.visible)[changed][:, mirror], np.asarray(batch.visible)[changed])
    np.testing.assert_array_equal(shown.points[~changed], batch.points[~changed])


def test_members_differ_and_the_mean_of_those_that_count_lifts():
    state = training.train(
        training.initial_state(_SMALL, jax.random.key(0)), _POSES, _ALL, _steps(_SMALL, 4), jax.random.key(1)
    )
    one, other = (jax.tree.map(lambda leaf, m=m: leaf[m : m + 1], state.lifter.generators) for m in (0, 1))
    lifter = state.lifter.replace(member_weight=jnp.ones(2))
    alone = lifter.replace(log_variances=None, member_weight=jnp.ones(1), inverse_distance=jnp.zeros(1))
    single = [lift.lift(_SMALL, alone.replace(generators=each), _POSES, _ALL).depth for each in (one, other)]
    assert np.abs(single[0] - single[1]).max() > 1e-4
    both = lift.lift(_SMALL, lifter, _POSES, _ALL)
    np.testing.assert_allclose(both.depth, (single[0] + single[1]) / 2, atol=1e-6)
    alone = lift.lift(_SMALL, lifter.replace(member_weight=jnp.array([0.0, 1.0])), _POSES, _ALL)
    np.testing.assert_allclose(alone.depth, single[1], atol=1e-6)
    spread = np.asarray(both.depth_sd) ** 2 - _mean_variance(lifter)
    half = (single[0] - single[1]) ** 2 / 4
    np.testing.assert_allclose(spread[:, 1:], np.asarray(half)[:, 1:], atol=1e-5)


def _mean_variance(lifter):
    """The members' own variance, found by lifting with equal generators."""
    same = jax.tree.map(lambda leaf: leaf[:1].repeat(2, axis=0), lifter.generators)
    return np.asarray(lift.lift(_SMALL, lifter.replace(generators=same), _POSES, _ALL).depth_sd) ** 2


def test_a_collapsed_member_does_not_count():
    """Reversed depths show noses behind, which held-out 2D poses tell."""
    config = Config(width=64, batch=64, normalise_fakes=True, average_decay=0.98, learning_rate=1e-3, members=2)
    poses = stick_people.crowd(1000, seed=0)[..., :2].astype(np.float32)
    state = training.train(
        training.initial_state(config, jax.random.key(0)), poses, np.ones((1000, 17), bool),
        _steps(config, 400), jax.random.key(1),
    )  # fmt: skip
    assert state.member_weight.tolist() == [1, 1]

    def reverse(generators):  # by itself no margin over what members of other seeds differ by after 400 steps
        last = generators["params"]["mlp"]["last"]
        return jax.tree.map(lambda leaf: leaf.at[1].multiply(-3.0), last)  # and three times as deep

    mlp = state.members.generator["params"]["mlp"] | {"last": reverse(state.members.generator)}
    collapsed = state.replace(members=state.members.replace(
        generator={"params": {"mlp": mlp}}, trained_generator={"params": {"mlp": mlp}}
    ))  # fmt: skip
    judged = training.train(collapsed, poses, np.ones((1000, 17), bool), _steps(config, 401), jax.random.key(1))
    assert judged.member_weight.tolist() == [1, 0]


def test_a_missing_wrist_is_placed_by_what_was_learned(lifter):
    hidden = np.broadcast_to(np.arange(17) != 13, (100, 17))
    whole = lift.lift(_QUICK, lifter, _HELD_OUT[..., :2], np.ones((100, 17), bool))
    partly = lift.lift(_QUICK, lifter, _HELD_OUT[..., :2], hidden)
    true = _HELD_OUT[:, 13, :2] - _HELD_OUT[:, 0, :2]
    completed = np.linalg.norm(partly.points[:, 13] - true, axis=-1).mean()
    folded = np.linalg.norm(_HELD_OUT[:, 12, :2] - _HELD_OUT[:, 0, :2] - true, axis=-1).mean()
    assert completed < 0.7 * folded  # measured 0.27
    assert np.mean(partly.depth_sd[:, 13] > whole.depth_sd[:, 13]) > 0.8


def test_predicted_deviations_have_the_size_of_the_errors(lifter):
    lifted = lift.lift(_QUICK, lifter, _HELD_OUT[..., :2], np.ones((100, 17), bool))
    error = np.abs(np.asarray(lifted.depth) - _HELD_OUT[..., 2])[:, 1:]
    assert 0.3 < np.mean(error < np.asarray(lifted.depth_sd)[:, 1:]) < 0.95  # a normal one: 0.68


def test_a_joint_clicked_wrong_has_a_large_residual(lifter):
    seen = jnp.ones((100, 17), bool)
    moved = _HELD_OUT[..., :2].copy()
    moved[:, 6] += np.float32([0.6, -0.5])
    before, after = (
        lift.standardised_residual(_QUICK, lifter, jnp.asarray(poses), seen) for poses in (_HELD_OUT[..., :2], moved)
    )
    assert np.median(after[:, 6]) > 4 * np.median(before[:, 6])


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
    fields = dataclasses.asdict(Config()) | changes
    (tmp_path / "config.json").write_text(json.dumps({"config": fields}))
    with pytest.raises(InputError, match=rf"config\.json: .*{told}"):
        folder.load(tmp_path)
