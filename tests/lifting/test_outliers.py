"""Joints that contradict the others: which are found, which are left alone, and that nothing is believed too easily."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.lifting import folder, lift, networks, normalise, outliers, training
from dal_jax.lifting.config import LiftingConfig
from tests.lifting import stick_people

_CONFIG = LiftingConfig(width=64, batch=64, complete=True)
_PEOPLE = np.asarray(stick_people.crowd(600, seed=3)[..., :2], np.float32)
_HELD_OUT, _ALL = _PEOPLE[:100], np.ones((100, 17), bool)
_ONE = np.ones(17, np.float32)
_MIRROR = np.array(skeleton.H36M_MIRROR)
_believe = jax.jit(functools.partial(outliers.believe, _CONFIG))


@pytest.fixture(scope="module")
def completer():
    """Return one that has learned the other 500 stick people by regression alone."""
    poses = jax.jit(normalise.normalise_all)(_PEOPLE[100:], np.ones((500, 17), bool))
    state = training.initial_state(_CONFIG, jax.random.key(0))

    @jax.jit
    def learn(state, key):
        def step(number, state):
            draw, hide = jax.random.split(jax.random.fold_in(key, number))
            rows = jax.random.randint(draw, (64,), 0, 500)
            batch = jax.tree.map(lambda leaf: leaf[rows], poses)
            return training.learn_to_complete(_CONFIG, state, batch, hide, 1.0)[0]

        return jax.lax.fori_loop(0, 1500, step, state)

    return learn(state, jax.random.key(1)).completer


def test_good_joints_are_believed(completer):
    believed, exchanged, residual = _believe(completer, _HELD_OUT, _ALL, _ONE)
    assert np.mean(believed) > 0.98 and np.mean(exchanged) < 0.005
    np.testing.assert_array_equal(np.asarray(residual)[np.asarray(believed)] <= outliers.OUTLIER_RESIDUAL, True)


def test_a_joint_that_has_jumped_is_taken_out_and_its_neighbours_stay(completer):
    moved = _HELD_OUT.copy()
    moved[:, 12] += np.float32([0.9, -0.7])
    alone = np.asarray(outliers.standardised_residual(_CONFIG, completer, moved, _ALL))
    believed, _, residual = map(np.asarray, _believe(completer, moved, _ALL, _ONE))
    assert np.mean(believed[:, 12]) < 0.1 and np.mean(residual[:, 12] > outliers.OUTLIER_RESIDUAL) > 0.9
    others = np.arange(17) != 12
    unspoilt = np.mean(_believe(completer, _HELD_OUT, _ALL, _ONE)[0])
    assert np.mean(believed[:, others]) > unspoilt - 0.02
    assert np.mean(residual[:, others]) < np.mean(alone[:, others]), "what is expected of them is no longer spoilt"


def test_left_for_right_is_exchanged(completer):
    swapped = _HELD_OUT.copy()
    swapped[:, [2, 5]] = swapped[:, [5, 2]]
    away = np.linalg.norm(swapped[:, 2] - swapped[:, 5], axis=-1)
    apart = away > np.median(away)
    believed, exchanged, residual = (np.asarray(one)[apart] for one in _believe(completer, swapped, _ALL, _ONE))
    assert apart.sum() > 20
    assert np.mean(exchanged[:, [2, 5]]) > 0.8 and np.mean(np.delete(exchanged, [2, 5], axis=1)) < 0.01
    assert np.mean(believed[:, [2, 5]]) > 0.8
    np.testing.assert_array_equal(exchanged, exchanged[:, _MIRROR])
    assert np.mean(residual[:, [2, 5]][exchanged[:, [2, 5]]] > outliers.OUTLIER_RESIDUAL) > 0.5, "told, as given"


def test_a_pose_unlike_any_is_believed_as_it_is(completer):
    """More than a third of the joints contradict the others: nothing says which are wrong."""
    strange = _HELD_OUT + np.random.default_rng(0).normal(0, 2.0, _HELD_OUT.shape).astype(np.float32)
    visible = _ALL.copy()
    visible[:, 4] = False
    believed, exchanged, _ = map(np.asarray, _believe(completer, strange, visible, _ONE))
    kept = (believed == visible).all(axis=1)
    assert np.mean(kept) > 0.9 and not exchanged[kept].any() and not believed[:, 4].any()


def test_without_a_completer_all_is_believed():
    believed, exchanged, residual = outliers.believe(LiftingConfig(width=8), None, _HELD_OUT, _ALL, _ONE)
    assert np.all(believed) and not np.any(exchanged) and not np.any(residual)
    assert not np.any(outliers.standardised_residual(_CONFIG, None, _HELD_OUT, _ALL))


def test_a_residual_is_the_distance_from_where_the_others_put_a_joint(completer):
    found = outliers.standardised_residual(_CONFIG, completer, _HELD_OUT, _ALL)
    for joint in (0, 6):
        others = jnp.asarray(_ALL & (np.arange(17) != joint))
        poses = normalise.normalise_all(_HELD_OUT, others)
        placed, log_sd = networks.place(_CONFIG, completer, poses.points, poses.visible)
        given = (_HELD_OUT[:, joint] - poses.hip) / np.asarray(poses.scale)[:, None]
        expected = np.linalg.norm(given - placed[:, joint], axis=-1) / np.exp(log_sd[:, joint])
        np.testing.assert_allclose(found[:, joint], expected, rtol=1e-4)
    assert not np.any(outliers.standardised_residual(_CONFIG, completer, _HELD_OUT, _ALL & False))


def test_a_joint_that_lies_elsewhere_in_every_pose_is_no_outlier():
    residual = np.random.default_rng(0).rayleigh(size=(400, 17)).astype(np.float32)
    residual[:, 9] *= 7
    residual[7, 3] = 20
    seen = np.ones((400, 17), bool)
    found = residual / outliers.usual(residual, seen) > outliers.OUTLIER_RESIDUAL
    assert found[7, 3] and found[:, 9].mean() < 0.01 < (residual[:, 9] > outliers.OUTLIER_RESIDUAL).mean()
    few = outliers.FEWEST_USUAL - 1
    np.testing.assert_array_equal(outliers.usual(residual[:few], seen[:few]), 1)


def test_what_is_lifted_is_the_pose_put_right():
    """As if left and right had been given right, and what has jumped not at all."""
    good, spoilt, known = _HELD_OUT[:8] * 100, _HELD_OUT[:8] * 100, np.ones((8, 17), bool)
    spoilt[:, [2, 5]] = spoilt[:, [5, 2]]
    spoilt[:, 13] += np.float32([150.0, 90.0])
    found, clean = folder.lift(spoilt), folder.lift(good)
    config, lifter = folder.load("shipped")
    compared = 0
    for row in range(8):
        hidden = known[row].copy()
        given = np.where(found.exchanged[row, :, None], spoilt[row, _MIRROR], spoilt[row])
        out = found.standardised_residual[row] > outliers.OUTLIER_RESIDUAL
        hidden[out & ~found.exchanged[row]] = False
        expected = lift.lift(config, lifter, given[None], hidden[None])
        if (found.points_sd[row] > 0).sum() == (~hidden).sum():
            np.testing.assert_allclose(found.depth[row], expected.depth[0], atol=0.05)
            compared += 1
    assert compared >= 4, "the others' outliers changed with what was taken out before"
    assert found.exchanged[:, [2, 5]].any() and (found.points_sd[:, 13] > 0).any()
    assert clean.exchanged.sum() == 0
