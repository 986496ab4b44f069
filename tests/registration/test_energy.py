"""Every term of eq. 2 against a plain NumPy body in float64, and the laws of the terms; one compilation in all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.body import kinematics, skeleton
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import energy
from dal_jax.registration.energy import EnergyWeights, Objective, Term, Unknowns
from tests.registration import small_problem

FLOAT64 = 1e-11  # relative: two orders of summation
FINITE_DIFFERENCE = 1e-6  # relative: truncation h^2 and rounding 1e-16 / h, h = 1e-5
TERMS = ("dense", "keypoint", "scale", "joint", "det")
POINTS, MASKED, STEP, DIRECTIONS = 30, 6, 1e-5, 4


def _wide(tree):
    def widen(leaf):
        array = np.asarray(leaf)
        return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array

    return jax.tree.map(widen, tree)


def _template():
    """Return the small body with its constants formed in float64."""
    template = _wide(small_problem.small_template())
    homogeneous = np.concatenate([template.vertices, np.ones_like(template.vertices[:, :1])], axis=1)
    matrix = (template.skin_weight[:, :, None] * homogeneous[:, None]).reshape(len(homogeneous), -1)
    return template.replace(skinning_matrix=matrix, keypoint_matrix=template.keypoint_regressor @ matrix)


def _observation(seed):
    rng = np.random.default_rng(seed)
    return Observation(
        point_position=rng.normal(0, 0.5, (POINTS, 2)),
        point_face=rng.integers(0, len(small_problem.small_template().faces), POINTS),
        point_barycentric=rng.dirichlet([1, 1, 1], POINTS),
        point_confidence=rng.uniform(0.1, 2, POINTS),
        keypoint_position=rng.normal(0, 0.5, (17, 2)),
        keypoint_confidence=rng.uniform(0.1, 1, 17),
        depth=rng.normal(0, 0.5, 17),
        depth_confidence=rng.uniform(0.1, 1, 17),
        box_px=np.array([0.0, 0, 100, 100]),
    )


def _unknowns(seed, raw_sd=0.2):
    rng = np.random.default_rng(seed)
    return Unknowns(
        pose=rng.normal(0, 0.4, (23, 3)),
        log_segment_scale=rng.normal(0.1, 0.2, 24),
        raw_rotation=transform.Rotation.random(random_state=seed).as_matrix() + rng.normal(0, raw_sd, (3, 3)),
        log_camera_scale=rng.normal(0, 0.2),
        translation=rng.normal(0, 0.2, 2),
    )


def _mask(observation, seed):
    """Give the last entries of everything confidence 0 and fill them with arbitrary finite values."""
    rng = np.random.default_rng(seed)
    last = slice(-MASKED, None)

    def fill(values, new):
        values = values.copy()
        values[last] = new
        return values

    return observation.replace(
        point_position=fill(observation.point_position, rng.normal(0, 1e3, (MASKED, 2))),
        point_face=fill(observation.point_face, rng.integers(0, 200, MASKED)),
        point_barycentric=fill(observation.point_barycentric, rng.normal(0, 1e3, (MASKED, 3))),
        point_confidence=fill(observation.point_confidence, 0.0),
        keypoint_position=fill(observation.keypoint_position, rng.normal(0, 1e3, (MASKED, 2))),
        keypoint_confidence=fill(observation.keypoint_confidence, 0.0),
        depth=fill(observation.depth, rng.normal(0, 1e3, MASKED)),
        depth_confidence=fill(observation.depth_confidence, 0.0),
    )


def _along(unknowns, direction, step):
    return jax.tree.map(lambda value, change: value + step * change, unknowns, direction)


def _t_pose():
    return _wide(energy.from_parameters(kinematics.t_pose(0.9)))


def _scenes():
    """Return every (observation, unknowns) that a test asks about, by name."""
    seen, at = _observation(0), _unknowns(1)
    turn = transform.Rotation.random(random_state=4).as_matrix()
    masked = _mask(seen, 5)
    scenes = {
        "random 0": (seen, at),
        "random 1": (_observation(2), _unknowns(3)),
        "t pose": (seen, _t_pose()),
        "proper": (seen, at.replace(raw_rotation=turn)),
        "enlarged": (seen, at.replace(raw_rotation=1.3 * turn)),
        "reflection": (seen, at.replace(raw_rotation=turn * np.array([1, 1, -1]))),
        "half mask": (masked, at),
        "other padding": (_mask(seen, 6), at),
        "padding read": (masked.replace(depth_confidence=np.ones(17)), at),
        "gauge": (
            seen,
            at.replace(log_segment_scale=at.log_segment_scale + 0.7, log_camera_scale=at.log_camera_scale - 0.7),
        ),
        "finished": (seen, _wide(energy.from_parameters(energy.to_parameters(at.replace(raw_rotation=1.3 * turn))))),
    }
    for k in range(DIRECTIONS):
        for sign in (1, -1):
            scenes[f"step {k} {sign}"] = (seen, _along(at, _unknowns(10 + k), sign * STEP))
    return scenes


@pytest.fixture(scope="module")
def scenes():
    with jax.enable_x64(True):
        return _scenes()


@pytest.fixture(scope="module")
def evaluated(scenes):
    """Return terms, eq. 2 under each weight set, and the gradient of the first, of every scene."""
    with jax.enable_x64(True):
        template = _template()

        def evaluate(observation, unknowns):
            target = residuals.make_target(template, observation)
            terms = energy.residuals(template, target, unknowns, Objective())
            gradient = jax.grad(lambda at: energy.energy(template, target, at, Objective()))(unknowns)
            sets = (Objective(), Objective(energy.stiff_weights()))
            return terms, [(energy.weighted_residuals(terms, objective) ** 2).sum() for objective in sets], gradient

        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *scenes.values())
        results = jax.tree.map(np.asarray, jax.jit(jax.vmap(evaluate))(*stacked))
        return {name: jax.tree.map(lambda leaf, row=row: leaf[row], results) for row, name in enumerate(scenes)}


def _rows(raw):
    """Return Gram-Schmidt of the rows through NumPy's QR: the transpose's Q with positive diagonal of R."""
    q, r = np.linalg.qr(raw.T)
    return (q * np.sign(np.diag(r))).T


def _posed(unknowns, rest, weight):
    """Return x = sum_k w_k (p_k + s_k G_k (v - J_k)) by loops over segments, metres, camera axes."""
    joints, parents = _template().joints, skeleton.SMPL_PARENTS
    size = np.exp(unknowns.log_segment_scale)
    turn, place = {0: _rows(unknowns.raw_rotation)}, {0: np.zeros(3)}
    for child in range(1, 24):
        parent = parents[child]
        place[child] = place[parent] + size[parent] * turn[parent] @ (joints[child] - joints[parent])
        turn[child] = turn[parent] @ transform.Rotation.from_rotvec(unknowns.pose[child - 1]).as_matrix()
    return sum(
        weight[:, k : k + 1] * (place[k] + size[k] * (rest - joints[k]) @ turn[k].T) for k in range(24)
    )  # fmt: skip


def _expected_terms(observation, unknowns):
    template, seen = _template(), observation
    corners = template.faces[seen.point_face]
    rest, weight = (
        np.einsum("pc,pcd->pd", seen.point_barycentric, field[corners])
        for field in (template.vertices, template.skin_weight)
    )
    scale = np.exp(unknowns.log_camera_scale)
    points = scale * _posed(unknowns, rest, weight)[:, :2] + unknowns.translation
    joints = scale * (template.h36m_regressor @ _posed(unknowns, template.vertices, template.skin_weight))
    xy = np.sqrt(seen.keypoint_confidence)[:, None] * (joints[:, :2] + unknowns.translation - seen.keypoint_position)
    off = joints[:, 2] - seen.depth
    z = np.sqrt(seen.depth_confidence) * (off - np.average(off, weights=seen.depth_confidence))
    logs = unknowns.log_segment_scale
    return {
        "dense": np.sqrt(seen.point_confidence)[:, None] * (points - seen.point_position),
        "keypoint": np.concatenate([xy, z[:, None]], axis=1),
        "scale": np.array([logs[child] - logs[parent] for child, parent in enumerate(skeleton.SMPL_PARENTS) if child]),
        "joint": unknowns.pose,
        "det": np.array([max(0.0, 1.0 - np.linalg.det(unknowns.raw_rotation))]),
    }


@pytest.mark.parametrize("scene", ["random 0", "random 1", "t pose", "reflection", "half mask"])
@pytest.mark.parametrize("term", TERMS)
def test_residuals_are_those_of_the_paper(scenes, evaluated, scene, term):
    expected = _expected_terms(*scenes[scene])[term]
    np.testing.assert_allclose(evaluated[scene][0][term], expected, rtol=FLOAT64, atol=FLOAT64)


def test_weights_are_those_of_the_paper():
    assert EnergyWeights() == EnergyWeights(dense=1000, keypoint=1, scale=10, joint=0.001, det=1)
    assert energy.stiff_weights() == EnergyWeights(dense=1000, keypoint=1, scale=100, joint=1, det=1)


@pytest.mark.parametrize("scene", ["random 0", "reflection"])
def test_equation_2_is_assembled_from_the_terms(scenes, evaluated, scene):
    squares = {name: np.sum(term**2) for name, term in _expected_terms(*scenes[scene]).items()}
    shared = 1000 * squares["dense"] + squares["keypoint"] + squares["det"]
    default = shared + 10 * squares["scale"] + 0.001 * squares["joint"]
    stiff = shared + 100 * squares["scale"] + squares["joint"]
    np.testing.assert_allclose(evaluated[scene][1], [default, stiff], rtol=FLOAT64)


def test_float32_has_the_energy_of_float64():
    """Near the optimum, where the residuals are small differences of large numbers."""
    people = small_problem.random_people(64, seed=0)
    template, seen = small_problem.small_template(), small_problem.observe(people, seed=1, noise=0.01)

    def evaluate(person, observation):
        target = residuals.make_target(template, observation)
        return energy.energy(template, target, energy.from_parameters(person), Objective())

    single = np.asarray(jax.jit(jax.vmap(evaluate))(people, seen))
    with jax.enable_x64(True):
        template = _template()
        double = np.asarray(jax.jit(jax.vmap(evaluate))(_wide(people), _wide(seen)))
    assert single.dtype == np.float32 and double.dtype == np.float64
    assert np.abs(single / double - 1).max() < 1e-3


def test_weights_and_terms_must_have_the_same_names():
    with pytest.raises(ValueError, match="are not"):
        energy.weighted_residuals({"dense": np.zeros(2)}, Objective())


def test_padding_is_never_read(evaluated):
    terms, totals, gradient = evaluated["half mask"]
    other_terms, other_totals, other_gradient = evaluated["other padding"]
    np.testing.assert_array_equal(totals, other_totals)
    for name in TERMS:
        np.testing.assert_array_equal(terms[name], other_terms[name])
    jax.tree.map(np.testing.assert_array_equal, gradient, other_gradient)
    assert evaluated["padding read"][1][0] > totals[0] + 1e3, "the padding holds values that would have been seen"


def test_common_factor_of_the_scales_belongs_to_the_camera(scenes, evaluated):
    terms, totals, _ = evaluated["random 0"]
    moved, moved_totals, _ = evaluated["gauge"]
    assert np.abs(terms["scale"]).max() > 0.1
    for name in TERMS:
        np.testing.assert_allclose(moved[name], terms[name], rtol=FLOAT64, atol=FLOAT64)
    np.testing.assert_allclose(moved_totals, totals, rtol=FLOAT64)


def test_determinant_hinge(evaluated):
    assert evaluated["proper"][0]["det"] < FLOAT64
    assert evaluated["enlarged"][0]["det"] == 0.0
    np.testing.assert_allclose(evaluated["reflection"][0]["det"], 2.0, rtol=FLOAT64)


def test_finished_parameters_keep_the_energy(scenes, evaluated):
    finished = scenes["finished"][1]
    np.testing.assert_allclose(finished.log_segment_scale.mean(), 0, atol=FLOAT64)
    np.testing.assert_allclose(finished.raw_rotation @ finished.raw_rotation.T, np.eye(3), atol=FLOAT64)
    np.testing.assert_allclose(np.linalg.det(finished.raw_rotation), 1, rtol=FLOAT64)
    np.testing.assert_allclose(evaluated["finished"][1], evaluated["enlarged"][1], rtol=FLOAT64)


@pytest.mark.parametrize("k", range(DIRECTIONS))
def test_gradient_is_that_of_finite_differences(evaluated, k):
    along = jax.tree.map(lambda slope, change: np.sum(slope * change), evaluated["random 0"][2], _unknowns(10 + k))
    ahead, behind = (evaluated[f"step {k} {sign}"][1][0] for sign in (1, -1))
    np.testing.assert_allclose(sum(jax.tree.leaves(along)), (ahead - behind) / (2 * STEP), rtol=FINITE_DIFFERENCE)


def test_gradient_is_finite_where_the_first_round_starts(evaluated):
    gradient = evaluated["t pose"][2]
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    assert np.all(np.linalg.norm(gradient.pose, axis=1)[[0, 1, 2]] > 0), "hips and spine feel the points"


# --- a term of one's own ---


def _hands_apart(posed):
    """A residual of everything that a term may read: joints, pixels and unknowns."""
    hands = posed.joints[22:24]
    return jnp.concatenate([hands[0] - hands[1], posed.project(posed.joints_h36m[:1])[0], posed.unknowns.pose[3]])


def test_a_term_of_one_s_own_is_added_with_its_weight_and_its_gradient(scenes):
    observation, at = scenes["random 0"]
    own = Objective(terms=(Term("hands", 40.0, _hands_apart),))
    with jax.enable_x64(True):
        template = _template()

        def difference(unknowns):
            target = residuals.make_target(template, observation)
            with_it, without = (energy.energy(template, target, unknowns, each) for each in (own, Objective()))
            return with_it - without, _hands_apart(energy.pose_body(template, unknowns))

        added = jax.jit(jax.value_and_grad(difference, has_aux=True))
        (value, residual), slope = jax.device_get(added(at))
        np.testing.assert_allclose(value, 40 * np.sum(residual**2), rtol=1e-8)
        for seed in range(DIRECTIONS):
            along = _unknowns(10 + seed)
            ahead, behind = (float(added(_along(at, along, sign * STEP))[0][0]) for sign in (1, -1))
            found = sum(np.sum(a * b) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(along), strict=True))
            np.testing.assert_allclose(found, (ahead - behind) / (2 * STEP), rtol=1e-5)


def test_a_term_s_name_is_its_own():
    objective = Objective(terms=(Term("dense", 1.0, _hands_apart),))
    with pytest.raises(ValueError, match="'dense', 'dense'"):
        energy.weighted_residuals(dict.fromkeys(energy.TERMS, np.zeros(2)), objective)
