"""One person's problem and its retraction; the loop of methods that may go uphill, on problems of few numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import sharding
from scipy.spatial import transform

from dal_jax.observations.residuals import make_target
from dal_jax.registration import energy
from dal_jax.registration.energy import EnergyWeights, Objective, Unknowns
from dal_jax.registration.solvers import descent
from dal_jax.registration.solvers.descent import Problem, SolverOptions
from tests.registration import small_problem

FLOAT32 = 1e-5


def _unknowns():
    rng = np.random.default_rng(4)
    numbers = Unknowns(
        pose=rng.normal(0, 0.6, (23, 3)),
        log_segment_scale=rng.normal(0, 0.2, 24),
        raw_rotation=transform.Rotation.random(random_state=5).as_matrix(),
        log_camera_scale=rng.normal(),
        translation=rng.normal(0, 0.2, 2),
    )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), numbers)


@pytest.mark.parametrize("changes", [{}, {"limit": 30.0, "outlier": 0.2}], ids=["the paper's terms", "all terms"])
def test_energy_is_the_sum_of_squared_residuals(changes):
    template, people = small_problem.small_template(), small_problem.random_people(1, seed=1)
    target = make_target(template, small_problem.observe(people, seed=2, noise=0.1))
    target = jax.tree.map(lambda leaf: leaf[0], target)
    objective = Objective(EnergyWeights(**changes))
    problem = Problem(template, target, objective, _unknowns())

    def look(unknowns):
        at_unknowns = energy.energy(template, target, unknowns, objective)
        return at_unknowns, problem.energy(unknowns), problem.residuals(unknowns)

    expected, value, residuals = jax.jit(look)(problem.start)
    np.testing.assert_allclose(value, np.sum(np.asarray(residuals, np.float64) ** 2), rtol=FLOAT32)
    np.testing.assert_allclose(value, expected, rtol=FLOAT32)


# --- the retraction ---


@pytest.fixture(scope="module")
def move():
    return jax.jit(descent.move)


def _delta(seed=6, size=0.2):
    return jnp.asarray(np.random.default_rng(seed).normal(0, size, 99), jnp.float32)


def _assert_same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=FLOAT32), found, expected)


def test_moving_by_zero_is_the_identity(move):
    _assert_same(move(_unknowns(), jnp.zeros(99)), _unknowns())


def test_moving_there_and_back_is_the_identity(move):
    there = move(_unknowns(), _delta())
    assert np.abs(there.pose - _unknowns().pose).max() > 0.1
    _assert_same(move(there, -_delta()), _unknowns())


def test_move_turns_from_the_left_and_adds_the_rest(move):
    unknowns, delta = _unknowns(), np.asarray(_delta())
    found = move(unknowns, _delta())
    turn = transform.Rotation.from_rotvec
    pose = (turn(delta[:69].reshape(23, 3)) * turn(np.asarray(unknowns.pose))).as_rotvec()
    np.testing.assert_allclose(found.pose, pose, atol=FLOAT32)
    root = turn(delta[93:96]).as_matrix() @ np.asarray(unknowns.raw_rotation)
    np.testing.assert_allclose(found.raw_rotation, root, atol=FLOAT32)
    np.testing.assert_allclose(found.log_segment_scale, unknowns.log_segment_scale + delta[69:93], atol=FLOAT32)
    np.testing.assert_allclose(found.log_camera_scale, unknowns.log_camera_scale + delta[96], atol=FLOAT32)
    np.testing.assert_allclose(found.translation, unknowns.translation + delta[97:], atol=FLOAT32)


def test_no_direction_is_lost_at_zero():
    """Every one of the 99 numbers moves the state at first order: the Jacobian is finite and of full rank."""

    def flat(delta):
        moved = descent.move(_unknowns(), delta)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(moved)])

    jacobian = np.asarray(jax.jit(jax.jacfwd(flat))(jnp.zeros(99)))
    assert np.all(np.isfinite(jacobian))
    assert np.linalg.svd(jacobian, compute_uv=False).min() > 0.5  # of a turn in axis-angle: at least sin(a/2) / (a/2)


# --- the loop ---


def _bowl(x):
    return jnp.sum(x**2)


def _follow(states):
    """Return a step that visits given numbers one after the other."""
    states = jnp.asarray(states, jnp.float32)

    def step(state, visited):
        return _bowl(state), states[jnp.minimum(visited, len(states) - 1)], visited + 1

    return step


def _run(states, start, steps, tolerance=0.0, **window):
    options = SolverOptions(steps, tolerance=tolerance)
    run = jax.jit(lambda start: descent.run(_follow(states), _bowl, start, 0, options, **window))
    return jax.tree.map(np.asarray, run(jnp.asarray(start, jnp.float32)))


def test_the_best_state_is_kept_wherever_the_descent_ends():
    found = _run([4.0, -1.0, 2.0, 5.0], 3.0, steps=4)
    assert found.state == -1.0
    assert found.energy == 1.0
    assert found.steps == 4


@pytest.mark.parametrize("states", [[4.0, 2.0], [2.0, 1.0]], ids=["uphill first", "all the way down"])
def test_the_last_state_counts_too(states):
    assert _run(states, 3.0, steps=2).energy == states[-1] ** 2


def test_the_start_counts_too():
    found = _run([4.0, 5.0], 3.0, steps=2)
    assert (found.state, found.energy) == (3.0, 9.0)


def test_no_step_returns_the_start():
    found = _run([1.0], 3.0, steps=0)
    assert (found.state, found.energy, found.steps) == (3.0, 9.0, 0)
    assert found.relative_decrease == np.inf


def test_nothing_is_said_before_the_window_is_full():
    falling = [2.9, 2.8, 2.7, 2.6]
    for steps in (0, 1, 2):
        assert _run(falling, 3.0, steps=steps, window=3).relative_decrease == np.inf
    assert _run(falling, 3.0, steps=3, window=3).relative_decrease == pytest.approx(1 - (2.7 / 3) ** 2, rel=FLOAT32)
    assert _run(falling, 3.0, steps=4, window=3).relative_decrease == pytest.approx(1 - (2.6 / 2.9) ** 2, rel=FLOAT32)


def test_swinging_is_not_resting():
    """The best has not improved for long, yet it is not near the end of the descent."""
    found = _run([1.0, *[2.0, -2.0] * 10], 3.0, steps=20, tolerance=0.1, window=3)
    assert found.steps == 20
    assert found.relative_decrease == pytest.approx(0.75, rel=FLOAT32)


def test_who_rests_is_finished_and_stays_put():
    found = _run([2.0, 1.0, 1.01, 1.0, 1.02, 0.1, 0.1], 3.0, steps=7, tolerance=0.05, window=3)
    assert found.steps == 5  # to 2, and then 1, 1.01, 1, 1.02 fill the window
    assert found.energy == 1.0
    assert found.relative_decrease < 0.05
    assert _run([2.0, 1.0, 1.01, 1.0, 1.02, 0.1, 0.1], 3.0, steps=7, window=3).steps == 7


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30], ids=["nan", "inf", "overflow"])
def test_who_diverges_returns_the_best_finite_state_and_is_not_converged(bad):
    found = _run([2.0, 1.0, bad, 0.5, 0.1], 3.0, steps=5, tolerance=0.1, window=1)
    assert (found.state, found.energy, found.steps) == (1.0, 1.0, 3)
    assert found.relative_decrease == np.inf


def test_a_start_that_is_not_finite_is_returned():
    found = _run([np.nan], np.nan, steps=3)
    assert np.isnan(found.state)
    assert found.relative_decrease == np.inf


def test_a_cost_of_zero_is_converged():
    assert _run([0.0, 0.0, 0.0], 0.0, steps=3, window=2).relative_decrease == 0.0


def _halving(start, steps, tolerance):
    def step(state, memory):
        return _bowl(state) + 1.0, 0.5 * state, memory

    options = SolverOptions(steps, tolerance=tolerance)
    return descent.run(step, lambda state: _bowl(state) + 1.0, start, (), options, window=1)


STARTS = np.array([[100.0, 3.0], [1.0, 1.0], [1e-3, 0.0], [10.0, 0.0]], np.float32)


def test_a_batch_equals_a_loop_and_each_stops_by_itself():
    together = jax.jit(jax.vmap(lambda start: _halving(start, 30, 1e-3)))(STARTS)
    assert len(set(np.asarray(together.steps).tolist())) == 4
    for person, start in enumerate(STARTS):
        alone = _halving(jnp.asarray(start), 30, 1e-3)
        jax.tree.map(lambda a, b, i=person: np.testing.assert_allclose(a[i], b, rtol=FLOAT32), together, alone)
        stopped = _halving(jnp.asarray(start), int(alone.steps), 0.0)
        jax.tree.map(np.testing.assert_array_equal, alone, stopped)


def test_devices_change_nothing():
    """Every device runs its own loop: carries vary over devices, and no collective waits for the others."""
    run = jax.vmap(lambda start: _halving(start, 30, 1e-3))
    mesh, people = sharding.Mesh(np.array(jax.devices()), ("people",)), sharding.PartitionSpec("people")
    split = jax.shard_map(run, mesh=mesh, in_specs=people, out_specs=people)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(split)(STARTS), jax.jit(run)(STARTS))
