"""What is done about missing joints: what is hidden, what is asked for, what is never read."""

import jax
import jax.numpy as jnp
import numpy as np

from dal_jax.lifting import completion, normalise
from dal_jax.lifting.config import Config
from dal_jax.lifting.networks import Completer
from tests.lifting import stick_people

_CONFIG = Config(width=16, complete=True)
_COMPLETER = Completer(16).init(jax.random.key(0), jnp.zeros(51))
_POSES = jnp.asarray(stick_people.crowd(40, seed=0)[..., :2], jnp.float32)
_ALL = jnp.ones((40, 17), bool)


def test_half_the_poses_hide_nothing_and_the_hip_is_never_hidden():
    hidden = np.asarray(completion.hide(jax.random.key(0), jnp.ones((4000, 17), bool)))
    assert not hidden[:, 0].any()
    assert 0.5 < np.mean(~hidden.any(axis=1)) < 0.6  # and some whose rate is small
    np.testing.assert_allclose(hidden[:, 1:].mean(), 0.1, atol=0.02)  # half of the poses, 0 to 0.4


def test_whole_poses_are_only_normalised():
    poses, sd = completion.prepare(_CONFIG, _COMPLETER, _POSES, _ALL)
    plain = normalise.normalise_all(_POSES, _ALL)
    np.testing.assert_allclose(poses.points, plain.points, atol=1e-6)
    np.testing.assert_allclose(poses.scale, plain.scale, rtol=1e-6)
    np.testing.assert_array_equal(sd, 0)


def test_completed_poses_have_unit_size_and_keep_what_was_seen():
    visible = _ALL.at[:, jnp.array([3, 13])].set(False)
    poses, sd = completion.prepare(_CONFIG, _COMPLETER, 7 * _POSES, visible)
    distance = np.linalg.norm(poses.points[:, 1:], axis=-1).mean(axis=1)
    np.testing.assert_allclose(distance, 1, rtol=1e-5)
    back = np.asarray(poses.points * poses.scale[:, None, None])
    given = np.asarray(7 * (_POSES - _POSES[:, :1]))
    seen = np.asarray(visible)
    np.testing.assert_allclose(back[seen], given[seen], atol=1e-4)
    np.testing.assert_array_equal(np.asarray(sd) > 0, ~seen)
    assert (np.asarray(poses.stand_in) == np.arange(17)).all()  # turned, a completed joint stays what it is


def test_without_a_completer_joints_are_folded():
    visible = _ALL.at[:, 13].set(False)
    poses, sd = completion.prepare(_CONFIG, None, _POSES, visible)
    np.testing.assert_array_equal(poses.points[:, 13], poses.points[:, 12])
    np.testing.assert_array_equal(sd, 0)


def test_the_loss_asks_for_hidden_known_joints_only():
    """Joints nobody annotated teach nothing: whatever is there, loss and gradient are the same."""
    visible = np.random.default_rng(0).random((40, 17)) < 0.7
    visible[:, 0] = True
    broken = jnp.where(visible[..., None], _POSES, jnp.nan)
    loss = jax.value_and_grad(lambda completer, points: completion.loss(
        _CONFIG, completer, normalise.normalise_all(points, jnp.asarray(visible)), jax.random.key(2)
    ))  # fmt: skip
    one, other = loss(_COMPLETER, _POSES), loss(_COMPLETER, broken)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one))


def test_loss_is_the_likelihood_of_the_target_in_the_masked_poses_own_frame():
    """Against a slow NumPy count over poses and joints."""
    key = jax.random.key(3)
    poses = normalise.normalise_all(_POSES, _ALL)
    hidden = np.asarray(completion.hide(key, _ALL))
    terms = []
    for row in range(40):
        masked = normalise.normalise(poses.points[row], jnp.asarray(~hidden[row]))
        features = np.concatenate([np.ravel(masked.points), ~hidden[row]]).astype(np.float32)
        offset, log_sd = Completer(16).apply(_COMPLETER, jnp.asarray(features))
        target = (np.asarray(poses.points[row]) - np.asarray(masked.hip)) / float(masked.scale)
        away = np.sum((target - np.asarray(masked.points + offset)) ** 2, axis=-1)
        likelihood = away / (2 * np.exp(2 * np.asarray(log_sd))) + 2 * np.asarray(log_sd)
        terms += list(likelihood[hidden[row]])
    np.testing.assert_allclose(completion.loss(_CONFIG, _COMPLETER, poses, key), np.mean(terms), rtol=1e-4)


def test_degenerate_poses_stay_finite():
    flat = jnp.zeros((3, 17, 2)).at[1, 1:].set(1.0)
    for visible in (jnp.ones((3, 17), bool), jnp.zeros((3, 17), bool)):
        poses, sd = completion.prepare(_CONFIG, _COMPLETER, flat, visible)
        surprise = completion.surprise(_CONFIG, _COMPLETER, flat, visible)
        gradient = jax.grad(lambda completer, seen=visible: completion.loss(
            _CONFIG, completer, normalise.normalise_all(flat, seen), jax.random.key(0)
        ))(_COMPLETER)  # fmt: skip
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((poses, sd, surprise, gradient)))
