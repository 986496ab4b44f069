"""Starts, chunks and the choice of the best fit: with a solver that only looks, then with the real one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.body import kinematics
from dal_jax.observations import residuals
from dal_jax.registration import register, starts as starts_lib
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.registration.solvers.descent import Solution
from dal_jax.registration.solvers.solve import SOLVERS
from tests.registration import small_problem

FLOAT32 = 1e-5
ENERGY_FLOAT32 = 1e-4  # relative: rotations by products against exponentials; a 3 x 3 solve in float32
PEOPLE, POINTS = 7, 120
OBJECTIVE = Objective()


# --- register's own part: a solver that stays where it starts and scores a flat cut-out, compiled in a blink ---


def _look(batch, options):
    """Score every start by its rigid T-pose; report the translation's x as the last decrease."""
    start, target = batch.start, batch.target
    planar = jnp.einsum("sbij,bpj->sbpi", start.rotation[:, :, :2], target.points.rest)
    placed = start.camera_scale[:, :, None, None] * planar + start.translation[:, :, None]
    seen = target.observation
    squares = jnp.sum((placed - seen.point_position[None]) ** 2, axis=-1) * seen.point_confidence[None]
    value = batch.objective.weights.dense * jnp.sum(squares, axis=-1)
    return Solution(start, value, start.translation[..., 0], jnp.full(value.shape, options.steps))


@pytest.fixture(scope="module", autouse=True)
def traces():
    """Offer the solver as `look`, and by names for which nothing is compiled; the list grows whenever it is traced."""
    seen = []

    def solve(batch, options):
        seen.append(batch)
        return _look(batch, options)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("look", "look once", "look ahead"):
            patch.setitem(SOLVERS, name, solve)
        yield seen


def _config(**changes):
    return dataclasses.replace(RegistrationConfig("look", steps=1, starts="given", batch=4, devices=1), **changes)


@pytest.fixture(scope="module")
def template():
    return small_problem.small_template()


@pytest.fixture(scope="module")
def observed():
    """Return people who look at every side, so badly seen that the closed form often errs."""
    return small_problem.observe(small_problem.random_people(PEOPLE, seed=6, pose_sd=0.6), 7, POINTS, noise=0.3)


@pytest.fixture(scope="module")
def given():
    return [small_problem.random_people(PEOPLE, seed=seed) for seed in (3, 4, 5)]


@pytest.fixture(scope="module")
def headings(template, observed):
    """Return the closed-form start and its quarter turns about the body's vertical."""

    def closed_form(person):
        return starts_lib.closed_form(template, residuals.make_target(template, person))

    closed = jax.tree.map(np.asarray, jax.jit(jax.vmap(closed_form))(observed))
    turns = transform.Rotation.from_rotvec(np.outer(np.arange(4), [0, np.pi / 2, 0])).as_matrix()
    return [closed.replace(rotation=(closed.rotation @ turn).astype(np.float32)) for turn in turns]


def _energies(observed, start):
    """Return `_look`'s energies in NumPy, float64."""
    template = small_problem.small_template()
    corners = template.faces[observed.point_face]
    rest = np.einsum("npc,npcd->npd", observed.point_barycentric, template.vertices[corners])
    placed = np.asarray(start.camera_scale)[:, None, None] * np.einsum("nij,npj->npi", start.rotation[:, :2], rest)
    residual = placed + np.asarray(start.translation)[:, None] - observed.point_position
    return OBJECTIVE.weights.dense * np.sum(residual**2, axis=(1, 2))


def _assert_same_fit(found, expected, rows=slice(None)):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, np.asarray(b)[rows], rtol=FLOAT32, atol=FLOAT32), found, expected
    )


def test_the_start_of_lowest_energy_is_kept(template, observed, given):
    fit = register.register(template, observed, _config(), OBJECTIVE, given)
    energies = np.stack([_energies(observed, start) for start in given])
    winner = np.argmin(energies, axis=0)
    assert len(np.unique(winner)) > 1, "not always the same start"
    np.testing.assert_array_equal(fit.start, winner)
    np.testing.assert_allclose(fit.energy, energies.min(axis=0), rtol=FLOAT32)
    chosen = jax.tree.map(lambda *leaves: np.stack(leaves)[winner, np.arange(PEOPLE)], *given)
    jax.tree.map(np.testing.assert_array_equal, fit.parameters, chosen)
    np.testing.assert_array_equal(fit.converged, chosen.translation[:, 0] < 0.01)


def test_tpose_starts_as_the_first_round_of_the_paper(template, observed):
    fit = register.register(template, observed, _config(starts="tpose"), OBJECTIVE)
    jax.tree.map(
        lambda found, one: np.testing.assert_array_equal(found, np.broadcast_to(one, found.shape)),
        fit.parameters,
        kinematics.t_pose(),
    )


def test_headings_are_the_closed_form_and_its_turns(template, observed, headings):
    one = register.register(template, observed, _config(starts="closed_form"), OBJECTIVE)
    four = register.register(template, observed, _config(starts="headings4"), OBJECTIVE)
    energies = np.stack([_energies(observed, start) for start in headings])
    np.testing.assert_allclose(one.parameters.rotation, headings[0].rotation, atol=FLOAT32)
    np.testing.assert_allclose(one.energy, energies[0], rtol=ENERGY_FLOAT32)
    np.testing.assert_allclose(four.energy, energies.min(axis=0), rtol=ENERGY_FLOAT32)
    assert np.all(four.energy <= one.energy * (1 + FLOAT32))


def test_given_starts_come_after_the_configured_ones(template):
    """The best and the worst start are handed over: of the four headings and two given ones, number 5 wins."""
    perfect = small_problem.random_people(PEOPLE, seed=1, pose_sd=0.0)
    seen = small_problem.observe(perfect.replace(segment_scale=np.ones((PEOPLE, 24), np.float32)), 2, POINTS)
    far = perfect.replace(translation=perfect.translation + np.float32(3))
    fit = register.register(template, seen, _config(starts="headings4"), OBJECTIVE, [far, perfect])
    np.testing.assert_array_equal(fit.start, 5)
    np.testing.assert_allclose(fit.energy, 0.0, atol=1e-4)


def test_a_start_that_is_not_finite_never_wins(template, observed, given):
    broken = given[0].replace(translation=np.full_like(given[0].translation, np.nan))
    fit = register.register(template, observed, _config(), OBJECTIVE, [broken, *given[1:]])
    assert np.all(fit.start > 0)
    assert np.all(np.isfinite(fit.energy))


@pytest.mark.parametrize("batch", [1, PEOPLE, 8])
def test_size_of_the_chunks_does_not_matter(template, observed, given, batch):
    fit = register.register(template, observed, _config(batch=batch), OBJECTIVE, given)
    assert fit.energy.shape == (PEOPLE,)
    _assert_same_fit(fit, register.register(template, observed, _config(batch=4), OBJECTIVE, given))


def test_one_compilation_a_shape(traces, template, observed, given):
    already = len(traces)

    def compiled(people, objective=OBJECTIVE, **changes):
        config = _config(optimizer="look once", **changes)
        rows = jax.tree.map(lambda leaf: leaf[:people], (observed, given))
        register.register(template, rows[0], config, objective, rows[1])
        return len(traces) - already

    assert compiled(7) == 1, "two chunks, the last one filled up"
    assert compiled(3) == 1, "fewer people than a chunk"
    other = Objective(EnergyWeights(dense=1.0, keypoint=2.0, scale=3.0, joint=4.0, det=5.0))
    assert compiled(7, other, learning_rate=0.5, steps=3) == 1, "weights, learning rate and steps are no shapes"
    assert compiled(7, batch=8) == 2


def test_a_prepared_fitter_gives_what_register_gives(traces, template, observed, given):
    """From host arrays and from what is on the device, and it compiles once a number of people."""
    config = _config(optimizer="look ahead", batch=PEOPLE)
    wanted = register.register(template, observed, config, OBJECTIVE, given)
    already = len(traces)
    fitter = register.fitter(template, config, OBJECTIVE)
    for people in (observed, given), jax.device_put((observed, given)):
        jax.tree.map(np.testing.assert_array_equal, fitter(*people), wanted)
    assert len(traces) == already
    four = jax.tree.map(lambda leaf: leaf[:4], (observed, given))
    _assert_same_fit(fitter(*four), wanted, slice(4))
    fitter(*four)
    assert len(traces) == already + 1


def test_progress_counts_people(template, observed, given):
    counts = []
    register.register(template, observed, _config(), OBJECTIVE, given, progress=counts.append)
    assert counts == [4, 7]


@pytest.mark.parametrize(
    ("changes", "people", "named"),
    [
        ({"optimizer": "newton"}, PEOPLE, "'newton'"),
        ({"starts": "handstand"}, PEOPLE, "'handstand'"),
        ({"starts": "given"}, None, "'given'"),
        ({}, PEOPLE - 2, "5 people, the observations 7"),
    ],
)
def test_errors_name_the_value_in_one_line(template, observed, given, changes, people, named):
    config = _config(**{"optimizer": "lm", **changes})
    starts = [] if people is None else [jax.tree.map(lambda leaf: leaf[:people], given[0])]
    with pytest.raises(ValueError, match=named) as caught:
        register.register(template, observed, config, OBJECTIVE, starts)
    assert "\n" not in str(caught.value)


def test_no_people_to_register_is_an_error(template, observed):
    empty = jax.tree.map(lambda leaf: leaf[:0], observed)
    with pytest.raises(ValueError, match="no people to register"):
        register.register(template, empty, _config(optimizer="lm"), OBJECTIVE)


def test_a_prepared_fitter_spreads_people_over_devices(template, observed, given):
    fitter = register.fitter(template, _config(devices=2), OBJECTIVE)
    four = jax.tree.map(lambda leaf: leaf[:4], (observed, given))
    fit = fitter(*four)
    assert len(fit.energy.sharding.device_set) == 2
    _assert_same_fit(fit, register.register(template, observed, _config(), OBJECTIVE, given), slice(4))
    with pytest.raises(ValueError, match="5 people, the observations 4"):
        fitter(four[0], [jax.tree.map(lambda leaf: leaf[:5], given[0])])


# --- with Levenberg-Marquardt, compiled once: four people a device, four headings each ---

LM = RegistrationConfig("lm", steps=10, starts="headings4", batch=4)
MASKED = 40


@pytest.fixture(scope="module")
def four(observed):
    return jax.tree.map(lambda leaf: leaf[:4], observed)


@pytest.fixture(scope="module")
def fit(template, four):
    return register.register(template, four, LM, OBJECTIVE)


def test_energy_is_the_score_of_the_fit(template, four, fit):
    scored = register.score(template, four, fit.parameters, OBJECTIVE)
    np.testing.assert_allclose(fit.energy, scored, rtol=ENERGY_FLOAT32)


def test_fit_is_better_than_its_starts(template, four, fit, headings):
    starts = [jax.tree.map(lambda leaf: leaf[:4], start) for start in headings]
    scores = [register.score(template, four, start, OBJECTIVE) for start in starts]
    assert np.all(fit.energy < np.min(scores, axis=0))


def test_order_of_people_does_not_matter(template, four, fit):
    order = np.array([2, 0, 3, 1])
    shuffled = jax.tree.map(lambda leaf: leaf[order], four)
    _assert_same_fit(register.register(template, shuffled, LM, OBJECTIVE), fit, order)


def _masked(observed, seed):
    """Hide some dense points, some key points and all depths, and fill them with arbitrary values."""
    rng = np.random.default_rng(seed)

    def fill(values, columns, scale=10.0):
        values = values.copy()
        values[:, columns] = rng.normal(0, scale, values[:, columns].shape) if scale else 0
        return values

    points, joints, every = slice(-MASKED, None), slice(9, None), slice(None)
    return observed.replace(
        point_position=fill(observed.point_position, points),
        point_barycentric=fill(observed.point_barycentric, points),
        point_confidence=fill(observed.point_confidence, points, 0),
        keypoint_position=fill(observed.keypoint_position, joints),
        keypoint_confidence=fill(observed.keypoint_confidence, joints, 0),
        depth=fill(observed.depth, every),
        depth_confidence=fill(observed.depth_confidence, every, 0),
    )


def test_masked_entries_do_not_pull(template, four, fit):
    one, other = (register.register(template, _masked(four, seed), LM, OBJECTIVE) for seed in (8, 9))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert np.all(one.energy < fit.energy), "fewer terms are left to explain"


@jax.jit
@jax.vmap
def _joints(person):
    posed = kinematics.pose_skeleton(small_problem.small_template(), person.rotation, person.pose, person.segment_scale)
    return person.camera_scale * posed.position


def _error_m(fit, people):
    """Return the median distance of joints from the truth's."""
    apart = np.asarray(_joints(fit.parameters)) - np.asarray(_joints(people))
    return np.median(np.linalg.norm(apart, axis=-1))


def test_noiseless_people_are_recovered(template):
    people = small_problem.random_people(8, seed=5, pose_sd=0.2, turn=0.5)
    objective = Objective(EnergyWeights(keypoint=100.0, scale=0.01, joint=1e-4))
    observed = small_problem.observe(people, 6, POINTS)
    fit = register.register(template, observed, dataclasses.replace(LM, steps=60), objective)
    assert np.median(fit.energy) < 0.05, "a perfect explanation exists"
    assert _error_m(fit, people) < 0.01


def test_a_robust_loss_forgets_wrong_correspondences(template):
    """A tenth of the points put anywhere: graduated robust fits stay near those without, squared ones do not."""
    people = small_problem.random_people(8, seed=5, pose_sd=0.2, turn=0.5)
    clean, rng = small_problem.observe(people, 6, POINTS, noise=0.005), np.random.default_rng(0)
    wrong = rng.random(clean.point_confidence.shape) < 0.1
    position = np.where(wrong[..., None], rng.uniform(-1, 1, clean.point_position.shape), clean.point_position)
    spoiled = clean.replace(point_position=position.astype(np.float32))

    def error_m(observed, schedule="constant"):
        config = dataclasses.replace(LM, steps=20, schedule=schedule)
        return _error_m(register.register(template, observed, config, Objective(EnergyWeights(keypoint=10.0))), people)

    without = error_m(clean)
    assert error_m(spoiled, "graduated") < 1.3 * without
    assert error_m(spoiled) > 2.0 * without
