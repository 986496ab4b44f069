"""What 2D alone says of a lifter: the discrepancy against its definition, and that it tells right from wrong."""

import functools

import jax
import numpy as np

from dal_jax.body import skeleton
from dal_jax.lifting import adversarial, losses, networks, normalise
from dal_jax.lifting.config import LiftingConfig
from tests.lifting import stick_people

_discrepancy, _bone_figures = jax.jit(losses.discrepancy), jax.jit(losses.bone_figures)
_CONFIG = LiftingConfig(width=16, normalise_fakes=True, elevation_start_deg=0.0)


def test_discrepancy_is_the_unbiased_estimate():
    """Against the double sums of Gretton et al. 2012, eq. 3."""
    random = np.random.default_rng(0)
    one, other = random.normal(size=(7, 3)), random.normal(size=(7, 3)) + 0.5

    def kernel(a, b):
        return sum(np.exp(-np.sum((a - b) ** 2) / variance) for variance in (1.0, 2.0, 4.0, 8.0))

    total = sum(
        kernel(one[i], one[j]) + kernel(other[i], other[j]) - kernel(one[i], other[j]) - kernel(one[j], other[i])
        for i in range(7) for j in range(7) if i != j
    ) / (7 * 6)  # fmt: skip
    diagonal = 2 * np.mean([kernel(one[i], other[j]) for i in range(7) for j in range(7)])
    off_diagonal = sum(2 * kernel(one[i], other[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    expected = total + off_diagonal - diagonal
    np.testing.assert_allclose(_discrepancy(one.astype(np.float32), other.astype(np.float32)), expected, rtol=1e-4)


def test_discrepancy_is_small_for_equal_and_large_for_different_distributions():
    random = np.random.default_rng(1)
    sample = lambda mean: random.normal(mean, 0.3, (400, 6)).astype(np.float32)  # noqa: E731
    same, different = (float(_discrepancy(sample(0.0), sample(mean))) for mean in (0.0, 0.2))
    assert abs(same) < 0.01 < different


def test_true_depth_beats_no_depth_and_reversed_depth(monkeypatch):
    """With the network's place taken by the truth, the criterion is best."""
    people = stick_people.crowd(300, seed=0).astype(np.float32)
    poses = jax.jit(normalise.normalise_all)(people[..., :2], np.ones((300, 17), bool))
    depth = people[..., 2] / np.asarray(poses.scale)[:, None]
    member = jax.jit(functools.partial(adversarial.initial_member, _CONFIG))(jax.random.key(0))

    @jax.jit
    def measure(answer):
        monkeypatch.setattr(networks, "depth", lambda config, parameters, points: answer)
        return adversarial.measure(_CONFIG, member, poses, jax.random.key(1))

    found = {}
    for name, factor in (("true", 1.0), ("none", 0.0), ("reversed", -1.0)):
        found[name] = {key: float(value) for key, value in measure(np.float32(factor) * depth).items()}
    assert (
        found["true"]["collapse_score"]
        < 0.01
        < 0.05
        < min(found["none"]["collapse_score"], found["reversed"]["collapse_score"])
    )
    assert found["true"]["criterion"] < 0.7 * min(found["none"]["criterion"], found["reversed"]["criterion"])
    assert found["true"]["reflection"] < 0.01 < 0.5 < found["reversed"]["reflection"]
    assert found["true"]["bone_spread"] < 0.8 * found["none"]["bone_spread"]


def test_equal_bodies_have_no_spread_and_no_sides():
    """One skeleton made symmetric, at any azimuth and size; then with a left forearm of double length."""
    person = (stick_people.STANDING + stick_people.STANDING[np.array(skeleton.H36M_MIRROR)] * [-1, 1, 1]) / 2
    rotations = stick_people.rotations(np.linspace(0, 6, 9))
    people = np.einsum("nab,jb->nja", rotations, person) * np.linspace(0.5, 2, 9)[:, None, None]
    same = _bone_figures(people.astype(np.float32))
    assert same["bone_asymmetry"] < 1e-3 and same["bone_spread"] < 0.02  # lengths are rounded at 0
    people[:, 13] += people[:, 13] - people[:, 12]
    longer = _bone_figures(people.astype(np.float32))
    np.testing.assert_allclose(longer["bone_asymmetry"], np.log(2) / 6, rtol=0.02)  # one of six pairs of bones
    assert longer["bone_spread"] < 0.02
