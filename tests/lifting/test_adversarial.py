"""One step of training: gates, the optimiser against a NumPy one, finite gradients, what the terms see."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.lifting import adversarial, normalise
from dal_jax.lifting.config import LiftingConfig
from tests.lifting import stick_people

_CONFIG = LiftingConfig(width=16, batch=8)


def _batch(poses, visible=None):
    visible = np.ones(poses.shape[:2], bool) if visible is None else visible
    return jax.vmap(normalise.normalise)(jnp.asarray(poses, jnp.float32), jnp.asarray(visible))


_BATCH = _batch(stick_people.crowd(8, seed=0)[..., :2])
_STATE = adversarial.initial_member(_CONFIG, jax.random.key(0))
_KEY = jax.random.key(1)
_EVERYTHING = dataclasses.replace(
    _CONFIG,
    normalise_fakes=True,
    cycle_consistency_weight=1.0,
    bone_weight=1.0,
    mirror_margin=0.5,
    discriminator_bones=True,
    flow_weight=1.0,
    elevation_spread_deg=10.0,
    matched_azimuths=0.5,
    elevation_start_deg=5.0,
    elevation_rate=1e-3,
    inverse_distance_start=0.1,
    inverse_distance_rate=1e-4,
    average_decay=0.9,
)


_STATES = {True: _STATE, False: adversarial.initial_member(_EVERYTHING, jax.random.key(0))}


def _same(tree, other):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, tree, other)))


@functools.cache
def _compiled(published):
    """Return the step with the gates as data: one program for every gate."""
    config = _CONFIG if published else _EVERYTHING

    def step(state, batch, generator_gate, discriminator_gate):
        gated = dataclasses.replace(config, generator_gate=generator_gate, discriminator_gate=discriminator_gate)
        return adversarial.step(gated, state, jnp.asarray(5000), batch, _KEY)

    return jax.jit(step)


def _step(state=None, batch=_BATCH, generator_gate=0.1, discriminator_gate=0.9, published=True):
    state = _STATES[published] if state is None else state
    return _compiled(published)(state, batch, generator_gate, discriminator_gate)


@pytest.mark.parametrize(("margin", "learns"), [(0.0, True), (1e-3, False)])
def test_each_network_learns_only_inside_its_gate(margin, learns):
    """D learns while its accuracy is at most its gate, G while it is at least its own: at the gate both learn."""
    accuracy = float(_step()[1]["accuracy"])
    generator_held, metrics = _step(generator_gate=accuracy + margin)
    assert metrics["generator_learns"] == learns and metrics["discriminator_learns"] == 1
    assert _same(generator_held.trained_generator, _STATE.trained_generator) is not learns
    assert _same(generator_held.generator_optimizer, _STATE.generator_optimizer) is not learns
    assert not _same(generator_held.discriminator, _STATE.discriminator)

    discriminator_held, metrics = _step(discriminator_gate=accuracy - margin)
    assert metrics["discriminator_learns"] == learns and metrics["generator_learns"] == 1
    assert _same(discriminator_held.discriminator, _STATE.discriminator) is not learns
    assert _same(discriminator_held.discriminator_optimizer, _STATE.discriminator_optimizer) is not learns
    assert not _same(discriminator_held.trained_generator, _STATE.trained_generator)


def test_accuracy_is_the_mean_over_annotated_and_fake():
    """A discriminator that always says 'annotated' is right about one half."""
    always = jax.tree.map(jnp.zeros_like, _STATE.discriminator)
    always["params"]["mlp"]["last"]["bias"] = jnp.ones(1)
    assert _step(_STATE.replace(discriminator=always))[1]["accuracy"] == 0.5


def test_optimiser_is_adam_with_l2_in_the_gradient():
    random = np.random.default_rng(0)
    weights = random.normal(size=(4, 3)).astype(np.float32)
    gradients = random.normal(size=(3, 4, 3)).astype(np.float32)
    config = dataclasses.replace(_CONFIG, weight_decay=0.1)  # large, or its place would not show
    optimizer = adversarial.network_optimizer(config)
    moments, moved = optimizer.init(weights), jnp.asarray(weights)
    for gradient in gradients:
        updates, moments = optimizer.update(gradient, moments, moved)
        moved = moved + updates

    expected = weights.astype(np.float64)
    first, second = np.zeros_like(expected), np.zeros_like(expected)
    for count, gradient in enumerate(gradients, start=1):
        decayed = gradient + 0.1 * expected
        first = 0.5 * first + 0.5 * decayed
        second = 0.999 * second + 0.001 * decayed**2
        expected = expected - 2e-4 * (first / (1 - 0.5**count)) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
    np.testing.assert_allclose(moved - weights, expected - weights, rtol=1e-3, atol=1e-9)  # steps of 2e-4 beside 1


def test_a_step_uses_that_optimiser():
    """The first step of Adam has length 2e-4 in every weight that has a gradient."""
    moved = _step()[0]
    for name in ("trained_generator", "discriminator"):
        before, after = (getattr(state, name)["params"]["mlp"]["last"]["kernel"] for state in (_STATE, moved))
        np.testing.assert_allclose(np.median(np.abs(after - before)), 2e-4, rtol=1e-2)  # Adam's epsilon; rounding
    assert (
        _same(moved.generator, moved.trained_generator) and moved.camera.elevation == moved.camera.inverse_distance == 0
    )


def test_everything_beyond_the_published_recipe_can_be_switched_on():
    before = _STATES[False]
    state, metrics = _step(_step(published=False)[0], published=False)
    assert all(metrics[name] > 0 for name in ("cycle_consistency", "reprojection_consistency", "bone_unlikeness"))
    assert state.camera.elevation not in (0, before.camera.elevation)
    assert state.camera.inverse_distance not in (0, before.camera.inverse_distance)
    assert not _same(state.generator, state.trained_generator)
    state_leaves = jax.tree.leaves((state, metrics))
    assert all(np.isfinite(leaf).all() for leaf in state_leaves)


@pytest.mark.parametrize("published", [True, False])
def test_degenerate_poses_leave_everything_finite(published):
    flat = np.zeros((8, 17, 2))
    flat[1:4, 1:] = [0.0, 1.0]
    flat[4:, :, 1] = np.arange(17)
    visible = np.random.default_rng(0).random((8, 17)) < 0.5
    for seen in (None, visible):
        moved = _step(batch=_batch(flat, seen), published=published)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(moved))


def test_missing_joints_do_not_reach_the_step():
    """Whatever an invisible joint holds, the step is the same."""
    visible = np.random.default_rng(0).random((8, 17)) < 0.8
    poses = stick_people.crowd(8, seed=0)[..., :2]
    broken = np.where(visible[..., None], poses, np.nan)
    one, other = (_step(batch=_batch(values, visible), published=False) for values in (poses, broken))
    assert _same(one, other)


def test_cameras_never_look_up():
    """A body reversed in depth is one seen from below: the elevation stops at 0 however hard it is pulled."""
    before = _STATES[False]
    level = before.replace(camera=before.camera.replace(elevation=jnp.float32(1e-9)))
    batches = [_batch(stick_people.crowd(8, seed=seed)[..., :2]) for seed in range(40)]
    pulled = [_step(level, batch=batch, published=False)[0].camera.elevation for batch in batches]
    assert min(pulled) == 0 < max(pulled)
