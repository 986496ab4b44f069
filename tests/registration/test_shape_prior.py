"""The shape prior: L_shape against NumPy, its minimum over factors, and what the shipped covariance says of bodies."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import skeleton, template
from dal_jax.observations import residuals
from dal_jax.registration import energy, priors, register
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.registration.solvers import descent
from dal_jax.uncertainty.sandwich import Precisions
from tests.registration import small_problem

FLOAT64 = 1e-6  # relative: the root is kept in float32
POINTS = 200
NAMES = skeleton.SMPL_JOINT_NAMES
PARENTS = np.array(skeleton.SMPL_PARENTS[1:])
OTHER_SIDE = np.array(skeleton.SMPL_MIRROR[1:]) - 1


def _stretches(count=5):
    return np.random.default_rng(2).normal(0.0, 0.2, (count, 23))


def _edge(name):
    return NAMES.index(name) - 1


def _segment_covariance():
    """Return the covariance of the log scales of the 24 segments, each against their mean."""
    reach = np.zeros((24, 23))
    for segment in range(1, 24):
        reach[segment] = reach[PARENTS[segment - 1]] + np.eye(23)[segment - 1]
    centred = reach - reach.mean(axis=0)
    return centred @ priors.population_shapes().covariance() @ centred.T


def test_energy_is_the_quadratic_form_of_the_inverse_covariance():
    prior = small_problem.shape_prior()
    inverse = np.linalg.inv(np.diag(prior.variance) + np.float64(prior.factors) @ prior.factors.T)
    with jax.enable_x64(True):
        for stretch in _stretches():
            away = stretch - np.float64(prior.mean)
            found = np.sum(np.asarray(prior.residual(jnp.asarray(stretch))) ** 2)
            np.testing.assert_allclose(found, away @ inverse @ away, rtol=FLOAT64)


def test_energy_is_that_of_the_best_factors():
    prior = small_problem.shape_prior()
    spread = np.sqrt(np.float64(prior.variance))
    for stretch in _stretches():
        rows = np.concatenate([prior.factors / spread[:, None], np.eye(prior.factors.shape[1])])
        goal = np.concatenate([(stretch - prior.mean) / spread, np.zeros(prior.factors.shape[1])])
        _, least, _, _ = np.linalg.lstsq(rows, goal)
        np.testing.assert_allclose(np.sum(np.asarray(prior.residual(stretch)) ** 2), least[0], rtol=1e-4)


def test_common_scale_costs_nothing():
    template, prior = small_problem.small_template(), small_problem.shape_prior()
    person = energy.from_parameters(jax.tree.map(lambda leaf: leaf[0], small_problem.random_people(1, seed=0)))
    larger = dataclasses.replace(person, log_segment_scale=person.log_segment_scale + 0.7)
    here, there = (prior.residual(energy.scale_residual(template, one)) for one in (person, larger))
    np.testing.assert_allclose(here, there, atol=1e-4)


def test_weight_without_a_prior_is_refused_and_a_prior_without_weight_is_off():
    with pytest.raises(ValueError, match="weights.shape is 1.0, but the objective has no shape prior"):
        Objective(EnergyWeights(shape=1.0)).active_shape()
    assert Objective(shape=small_problem.shape_prior()).active_shape() is None


def test_left_and_right_cost_alike():
    shipped = priors.population_shapes()
    for stretch in _stretches():
        here, there = (np.sum(np.asarray(shipped.residual(each)) ** 2) for each in (stretch, stretch[OTHER_SIDE]))
        np.testing.assert_allclose(here, there, rtol=1e-3)


def test_shipped_people_are_made_as_people_are():
    covariance = _segment_covariance()
    deviation = np.sqrt(np.diag(covariance))
    assert np.all((deviation > 0.015) & (deviation < 0.1))
    correlation = covariance / np.outer(deviation, deviation)
    edges = priors.population_shapes().covariance()
    for name in ("hip", "knee", "collar", "shoulder", "elbow", "wrist"):
        left, right = (_edge(f"{side}_{name}") for side in ("left", "right"))
        assert edges[left, right] / edges[left, left] > 0.8, name
    # limbs of the two sides differ by the chain of edges' own spread alone
    apart = [
        np.sqrt(covariance[k, k] + covariance[m, m] - 2 * covariance[k, m]) for k, m in enumerate(OTHER_SIDE + 1, 1)
    ]
    assert max(apart) < 0.06
    for one, other in (("wrist", "hand"), ("ankle", "foot")):
        first, second = (NAMES.index(f"left_{name}") for name in (one, other))
        assert correlation[first, second] > 0.7, "a hand is large or small as a whole"
    alone = np.eye(23)[_edge("left_wrist")] * np.log(6.3)
    shipped = priors.population_shapes()
    assert np.sum(np.asarray(shipped.residual(shipped.mean + alone)) ** 2) > 500.0
    both = np.zeros(24)
    both[[NAMES.index("left_hip"), NAMES.index("right_hip")]] = 0.1
    one = both * (np.arange(24) == NAMES.index("left_hip"))
    cost_both, cost_one = (
        np.sum(np.asarray(shipped.residual(shipped.mean + each[1:] - each[PARENTS])) ** 2) for each in (both, one)
    )
    assert cost_both < 0.5 * cost_one, "both thighs are rather long than one"


def test_shipped_girths_are_people_s():
    """Lengths vary as in the prior on lengths alone; trunks in depth most; left as right; thighs with bellies."""
    lengths, both = (priors.population_shapes(scales).covariance() for scales in energy.SCALES)
    np.testing.assert_allclose(np.sqrt(np.diag(both))[:23], np.sqrt(np.diag(lengths)), atol=0.02)
    deviation = np.sqrt(np.diag(both))
    correlation = both / np.outer(deviation, deviation)
    place = {(name, axis): 23 + 2 * NAMES.index(name) + axis for name in NAMES for axis in range(2)}
    belly = place["spine2", 1]
    assert 0.13 < deviation[belly] < 0.2 > 3 * deviation[place["left_ankle", 0]]
    assert correlation[belly, place["left_hip", 0]] > 0.3
    mirrored = np.array(skeleton.SMPL_MIRROR)
    for axis in range(2):
        rows = 23 + 2 * np.arange(24) + axis
        np.testing.assert_allclose(deviation[rows], deviation[rows[mirrored]], rtol=1e-3)
    naked, dressed = priors.population_shapes("anisotropic"), priors.dressed_population_shapes("anisotropic")
    wider = (dressed.mean - naked.mean)[23:].reshape(24, 2)
    np.testing.assert_allclose(wider[:, 0], np.where(template.WIDENED, np.log(1.12), 0.0), atol=1e-6)


def _fit(observed, weights, optimizer, steps, starts, given=(), scales="isotropic"):
    """Fit four people under priors on poses, proportions and girth."""
    shapes = small_problem.shape_prior(sizes=71)
    if scales == "isotropic":
        shapes = small_problem.shape_prior().replace(girth=np.array([0.0, 0.2], np.float32))
    objective = Objective(weights, small_problem.pose_prior(), shapes, scales=scales)
    config = RegistrationConfig(optimizer, steps, starts=starts, batch=4, devices=1)
    return register.register(small_problem.small_template(), observed, config, objective, given)


@pytest.mark.slow
@pytest.mark.parametrize("scales", energy.SCALES)
def test_lm_and_dense_lm_have_the_same_minimum(scales):
    people = small_problem.random_people(4, seed=5, pose_sd=0.15, turn=0.4)
    observed = small_problem.observe(people, seed=6, points=POINTS, noise=0.01)
    weights = EnergyWeights(keypoint=30.0, scale=0.0, joint=0.1, shape=3.0)
    by_tree = _fit(observed, weights, "lm", 80, "closed_form", scales=scales)
    by_dense = _fit(observed, weights, "dense_lm", 20, "given", [by_tree.parameters], scales)
    # steps of a majoriser converge linearly: this is what 80 leave
    np.testing.assert_allclose(by_tree.energy, by_dense.energy, rtol=1e-3)
    np.testing.assert_allclose(by_tree.parameters.segment_scale, by_dense.parameters.segment_scale, atol=0.02)
    if scales == "anisotropic":
        np.testing.assert_allclose(by_tree.parameters.segment_girth, by_dense.parameters.segment_girth, atol=0.02)


def test_precisions_of_a_fit_know_the_prior():
    """In the coordinates of the linearisation one weight stands for both terms, with the size of a log scale."""
    objective = Objective(EnergyWeights(scale=2.0, shape=3.0), shape=small_problem.shape_prior())
    used = Precisions.of_objective(objective)
    root, mean, prior = np.float64(used.scale_root), used.scale_mean, objective.shape
    slope = 3.0 * np.linalg.inv(prior.covariance())
    np.testing.assert_allclose(used.scale * root.T @ root, slope + 2.0 * np.eye(23), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(np.trace(np.linalg.inv(root.T @ root)) / 23, 1.0, rtol=1e-4)
    # the minimum of both terms together
    np.testing.assert_allclose(slope @ (mean - prior.mean) + 2.0 * mean, 0.0, atol=0.05)
    assert Precisions.of_objective(dataclasses.replace(objective, shape=None).reweighted(shape=None)).scale == 2.0


def test_girth_costs_its_square_in_deviations():
    shipped = dataclasses.replace(priors.population_shapes(), girth=np.array([0.1, 0.2], np.float32))
    stretch = shipped.mean
    for log_girth, expected in ((0.1, 0.0), (0.5, 4.0), (None, 0.25)):
        found = np.sum(np.asarray(shipped.residual(stretch, log_girth)) ** 2)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_starts_have_a_girth_where_it_is_an_unknown():
    people = small_problem.random_people(2, seed=0)
    shapes = small_problem.shape_prior().replace(girth=np.array([0.1, 0.2], np.float32))
    on = Objective(EnergyWeights(shape=1.0), shape=shapes)
    np.testing.assert_allclose(on.start_from(people).girth, np.exp(0.1), rtol=1e-6)
    wide = people.replace(girth=np.full(2, 1.3, np.float32))
    assert on.start_from(wide) is wide
    assert Objective().start_from(wide).girth is None


def test_a_girth_is_found():
    wide = small_problem.random_people(4, seed=5, pose_sd=0.2, turn=0.5).replace(girth=np.full(4, 1.3, np.float32))
    observed = small_problem.observe(wide, seed=6, points=POINTS)
    fit = _fit(observed, EnergyWeights(keypoint=10.0, scale=0.01, joint=1e-4, shape=1e-3), "lm", 40, "closed_form")
    np.testing.assert_allclose(fit.parameters.girth, 1.3, rtol=0.05)


def test_starts_have_segment_girths_where_scales_are_anisotropic():
    people = small_problem.random_people(2, seed=0)
    shapes = small_problem.shape_prior(sizes=71)
    on = Objective(EnergyWeights(shape=1.0), shape=shapes, scales="anisotropic")
    usual = np.exp(shapes.mean[23:].reshape(24, 2))
    np.testing.assert_allclose(on.start_from(people).segment_girth, [usual, usual], rtol=1e-6)
    wide = on.start_from(people.replace(girth=np.full(2, 1.3, np.float32)))
    np.testing.assert_allclose(wide.segment_girth[1, :, 0], np.where(template.WIDENED, 1.3, 1.0), rtol=1e-6)
    assert wide.girth is None
    assert Objective().start_from(wide).segment_girth is None
    for objective in (dataclasses.replace(on, scales="isotropic"), dataclasses.replace(on, scales="tall")):
        with pytest.raises(ValueError, match="scales"):
            objective.active_shape()


def test_anisotropic_energy_has_finite_differences_as_gradient():
    """Along random directions of all unknowns, in float64, girths among them."""
    person = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), small_problem.random_people(1, seed=5))
    observed = jax.tree.map(lambda leaf: leaf[0], small_problem.observe(small_problem.random_people(1, seed=6), seed=6))
    objective = Objective(
        EnergyWeights(scale=2.0, shape=3.0), shape=small_problem.shape_prior(sizes=71), scales="anisotropic"
    )
    with jax.enable_x64(True):
        body = small_problem.small_template()
        target = residuals.make_target(body, observed)
        start = energy.from_parameters(objective.start_from(jax.tree.map(jnp.asarray, person)))
        along = jax.jit(lambda step: energy.energy(body, target, descent.move(start, step), objective))
        assert descent.tangent_size(start) == 147
        step = jnp.asarray(np.random.default_rng(0).normal(0.0, 1.0, 147))
        slope = jax.jit(jax.grad(along))(jnp.zeros(147)) @ step
        numeric = (along(1e-5 * step) - along(-1e-5 * step)) / 2e-5
    np.testing.assert_allclose(slope, numeric, rtol=1e-4)
