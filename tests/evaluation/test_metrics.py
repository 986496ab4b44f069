"""Laws of the pose metrics: what each must and must not forgive; protocol 1 is the paper's."""

import jax
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.body import skeleton
from dal_jax.evaluation import metrics
from dal_jax.runtime.errors import InputError

_MM = 2e-3  # float32 rounding of coordinates around a metre, in mm, with some operations behind it
_CLEARLY_WRONG_MM = 20.0
_SAMPLING = 0.01  # of a share, over 40,000 draws: four standard errors

_ALL = {
    "raw": metrics.mpjpe_mm,
    "scale_matched": metrics.mpjpe_scale_matched_mm,
    "bone_sum": lambda joints, truth: metrics.mpjpe_bone_sum_mm(joints, truth, metrics.bone_sum(truth)),
    "pa": metrics.pa_mpjpe_mm,
}
_SCALED = ("scale_matched", "bone_sum", "pa")


@pytest.fixture(params=range(2))
def rng(request):
    return np.random.default_rng(request.param)


def _pose(rng: np.random.Generator) -> np.ndarray:
    """A random walk along the skeleton's tree, bones of 100 to 500 mm."""
    joints = np.zeros((17, 3))
    for joint, parent in enumerate(skeleton.H36M_PARENTS):
        if parent >= 0:
            bone = rng.normal(size=3)
            joints[joint] = joints[parent] + rng.uniform(100, 500) * bone / np.linalg.norm(bone)
    return joints.astype(np.float32)


@pytest.mark.parametrize("name", _ALL)
def test_truth_scores_zero_and_another_pose_does_not(name, rng):
    truth = _pose(rng)
    assert _ALL[name](truth, truth) < _MM
    assert _ALL[name](_pose(rng), truth) > _CLEARLY_WRONG_MM


@pytest.mark.parametrize("name", _ALL)
def test_translation_is_forgiven_on_both_sides(name, rng):
    truth, joints = _pose(rng), _pose(rng)
    moved = _ALL[name](joints + np.float32([100, -40, 900]), truth + np.float32([-7, 300, 20]))
    np.testing.assert_allclose(moved, _ALL[name](joints, truth), atol=_MM)


@pytest.mark.parametrize("name", _SCALED)
@pytest.mark.parametrize("factor", [1e-3, 0.7, 40.0])
def test_scale_of_the_prediction_is_forgiven(name, factor, rng):
    truth, joints = _pose(rng), _pose(rng)
    np.testing.assert_allclose(_ALL[name](np.float32(factor) * joints, truth), _ALL[name](joints, truth), atol=_MM)


def test_raw_does_not_forgive_scale(rng):
    truth = _pose(rng)
    assert metrics.mpjpe_mm(1.2 * truth, truth) > _CLEARLY_WRONG_MM


@pytest.mark.parametrize("name", _ALL)
def test_only_procrustes_forgives_a_rotation(name, rng):
    truth = _pose(rng)
    turned = (transform.Rotation.from_rotvec([0.2, 1.0, -0.4]).as_matrix() @ truth.T).T.astype(np.float32)
    error = _ALL[name](turned, truth)
    assert error < _MM if name == "pa" else error > _CLEARLY_WRONG_MM


@pytest.mark.parametrize("name", _ALL)
@pytest.mark.parametrize("mirror", [(-1, 1, 1), (1, 1, -1), (-1, -1, -1)])
def test_a_reflection_is_never_forgiven(name, mirror, rng):
    """The last mirror is the point reflection that a negative scale would undo."""
    truth = _pose(rng)
    assert _ALL[name](truth * np.float32(mirror), truth) > _CLEARLY_WRONG_MM


def test_scale_matched_is_the_least_squares_scale(rng):
    truth = _pose(rng)
    joints = truth + rng.normal(scale=50, size=truth.shape).astype(np.float32)
    joints, centred = joints - joints[:1], truth - truth[:1]
    scale = np.linalg.lstsq(joints.reshape(-1, 1), centred.ravel(), rcond=None)[0]
    expected = np.linalg.norm(scale * joints - centred, axis=1).mean()
    np.testing.assert_allclose(metrics.mpjpe_scale_matched_mm(joints, truth), expected, atol=_MM)


def test_procrustes_agrees_with_scipys_rotation_search(rng):
    truth = _pose(rng).astype(np.float64)
    joints = truth + rng.normal(scale=80, size=truth.shape)
    centred, centred_truth = joints - joints.mean(axis=0), truth - truth.mean(axis=0)
    rotation, _ = transform.Rotation.align_vectors(centred_truth, centred)
    turned = rotation.apply(centred)
    scale = np.sum(turned * centred_truth) / np.sum(turned**2)
    expected = np.linalg.norm(scale * turned - centred_truth, axis=1).mean()
    np.testing.assert_allclose(metrics.pa_mpjpe_mm(np.float32(joints), np.float32(truth)), expected, atol=_MM)


def test_bone_sum_scaling_leaves_the_truth_its_own_size(rng):
    """A perfect pose of a person 10% larger than average misses by a tenth of each joint's distance to the pelvis."""
    truth = _pose(rng)
    average = metrics.bone_sum(truth) / 1.1
    expected = np.linalg.norm(truth * (1 - 1 / 1.1), axis=1).mean()
    np.testing.assert_allclose(metrics.mpjpe_bone_sum_mm(truth, truth, average), expected, atol=_MM)


def test_bone_sum_of_a_straight_chain():
    joints = np.zeros((17, 3), np.float32)
    for joint, parent in enumerate(skeleton.H36M_PARENTS):
        if parent >= 0:
            joints[joint] = joints[parent] + np.float32([0, 0, joint])
    np.testing.assert_allclose(metrics.bone_sum(joints), sum(range(1, 17)))


def test_vertex_error_scales_and_aligns_a_mesh_as_its_pose(rng):
    truth, vertices_true = _pose(rng), rng.normal(scale=300, size=(50, 3)).astype(np.float32)
    offset = np.float32([5, -80, 30])
    joints, vertices = truth / 1000 + offset, vertices_true / 1000 + offset
    scale = metrics.bone_sum_scale(joints, metrics.bone_sum(truth))
    half_a_mm = 0.5  # coordinates 80 m away have float32 steps of 8 um, which is 0.008 mm, times sqrt(3), scaled
    assert metrics.vertex_error_mm(vertices, vertices_true, joints, truth, scale) < half_a_mm
    shifted = vertices + np.float32([0.03, 0, 0])
    error = metrics.vertex_error_mm(shifted, vertices_true, joints, truth, scale)
    np.testing.assert_allclose(error, 30.0, atol=half_a_mm)


@pytest.mark.parametrize("name", _ALL)
def test_a_prediction_collapsed_into_a_point_scores_finite(name, rng):
    truth = _pose(rng)
    collapsed = np.full((17, 3), 3.0, np.float32)
    pivot = truth.mean(axis=0) if name == "pa" else truth[0]
    expected = np.linalg.norm(truth - pivot, axis=1).mean()
    np.testing.assert_allclose(_ALL[name](collapsed, truth), expected, atol=_MM)


@pytest.mark.parametrize("name", _ALL)
def test_batch_equals_loop(name):
    rng = np.random.default_rng(3)
    truth, joints = (np.stack([_pose(rng) for _ in range(4)]) for _ in range(2))
    batched = jax.jit(jax.vmap(_ALL[name]))(joints, truth)
    np.testing.assert_allclose(batched, [_ALL[name](*pair) for pair in zip(joints, truth, strict=True)], atol=_MM)


def _poses(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=300, size=(count, 17, 3)).astype(np.float32)


def test_the_headline_of_protocol_1_is_the_bone_sum_scaled_error_in_any_unit_of_the_prediction():
    truth, joints = _poses(5), _poses(5, seed=1)
    canonical = metrics.canonical_bone_sum_mm(truth)
    scores = metrics.human36m_protocol_1(joints / 1000, truth, canonical)
    expected = [metrics.mpjpe_bone_sum_mm(*pair, canonical) for pair in zip(joints, truth, strict=True)]
    np.testing.assert_allclose(scores["mpjpe_mm"], expected, atol=_MM)
    assert set(scores) == {"mpjpe_mm", "mpjpe_scale_matched_mm", "pa_mpjpe_mm"}
    assert all(values.shape == (5,) and isinstance(values, np.ndarray) for values in scores.values())


def test_protocol_1_scores_zero_for_people_of_average_size():
    truth = np.repeat(_poses(1), 5, axis=0)
    scores = metrics.human36m_protocol_1(truth, truth, metrics.canonical_bone_sum_mm(truth))
    assert max(values.max() for values in scores.values()) < _MM


def test_canonical_size_is_the_mean_over_training_examples():
    truth = _poses(1)
    mixed = np.concatenate([truth, 2 * truth])
    np.testing.assert_allclose(
        metrics.canonical_bone_sum_mm(mixed), 1.5 * metrics.canonical_bone_sum_mm(truth), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("joints", "canonical", "message"),
    [
        (np.zeros((2, 16, 3)), 4000.0, r"predicted joints have shape \(2, 16, 3\)"),
        (np.zeros((3, 17, 3)), 4000.0, r"predicted joints have shape \(3, 17, 3\)"),
        (np.zeros((2, 17, 3)), 0.0, "canonical bone-length sum is 0.0"),
        (np.zeros((2, 17, 3)), float("nan"), "canonical bone-length sum is nan"),
    ],
)
def test_bad_input_is_named(joints, canonical, message):
    with pytest.raises(InputError, match=message):
        metrics.human36m_protocol_1(joints, _poses(2), canonical)


def test_normal_errors_are_covered_as_the_normal_distribution_says():
    random = np.random.default_rng(0)
    deviation = random.uniform(5.0, 50.0, (2500, 16, 3))
    coverage = metrics.coverage(random.normal(0.0, deviation), deviation)
    for axis in metrics.AXES:
        assert coverage[axis]["within_1_sd"] == pytest.approx(0.6827, abs=_SAMPLING)
        assert coverage[axis]["within_2_sd"] == pytest.approx(0.9545, abs=_SAMPLING)


def test_axes_are_kept_apart():
    error, deviation = np.zeros((1, 2, 3)), np.ones((1, 2, 3))
    error[0, :, 1], error[0, 0, 2], deviation[..., 0] = [3.0, 4.0], 1.5, 7.0
    coverage = metrics.coverage(error, deviation)
    assert coverage["x"] == {"within_1_sd": 1.0, "within_2_sd": 1.0, "mean_sd_mm": 7.0, "rms_error_mm": 0.0}
    assert coverage["y"]["within_2_sd"] == 0.0
    assert coverage["y"]["rms_error_mm"] == pytest.approx(np.sqrt(12.5))
    assert (coverage["z"]["within_1_sd"], coverage["z"]["within_2_sd"]) == (0.5, 1.0)


def test_the_acceleration_error_forgives_size_place_and_drift_and_counts_jitter(rng):
    """By hand: every second frame moved by d along x has second differences of 2 d and -2 d."""
    pose, frames = _pose(rng), np.arange(7, dtype=np.float32)[:, None, None]
    truth = pose[None] + 3.0 * frames**2 * np.array([0.0, 1.0, 0.0], np.float32)
    assert metrics.acceleration_error_mm(0.01 * truth, truth) < _MM
    drifting = truth + frames * rng.normal(size=(1, 17, 3)).astype(np.float32) * 1e-3
    assert metrics.acceleration_error_mm(drifting, truth) < 10 * _MM
    jittered = truth + 5.0 * (frames % 2) * np.array([1.0, 0.0, 0.0], np.float32)
    assert metrics.acceleration_error_mm(jittered, truth) == pytest.approx(10.0, rel=0.05)  # the best size is not 1
    unknown = truth.copy()
    unknown[3, 4] = np.nan
    assert metrics.acceleration_error_mm(0.01 * truth, unknown) < _MM
