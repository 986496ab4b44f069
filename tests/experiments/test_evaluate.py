"""The binary end to end: table, JSON, and one line with exit code 2 for what is wrong."""

import json
import subprocess

import numpy as np
import pytest

from tests.experiments import binaries

_MM = 2e-3  # float32 rounding around a metre, in mm


def _run(*flags: object) -> subprocess.CompletedProcess:
    return binaries.run("experiments.evaluate", *flags)


@pytest.fixture
def files(tmp_path):
    joints = np.random.default_rng(0).normal(scale=300, size=(6, 17, 3))
    np.savez(tmp_path / "truth.npz", joints=joints, unit="mm", action=np.array(["Eating", "Posing"] * 3))
    np.savez(tmp_path / "poses.npz", joints=1.25 * joints + 500.0, unit="mm")
    return tmp_path


def test_scores_are_printed_and_written(files):
    flags = (f"--poses_3d={files}/poses.npz", f"--truth={files}/truth.npz", f"--out={files}/scores.json")
    done = _run(*flags)
    assert done.returncode == 0, done.stderr
    assert "pa_mpjpe" in done.stdout and "Posing" in done.stdout and "mean [mm]" in done.stdout
    scores = json.loads((files / "scores.json").read_text())
    assert scores["poses"] == 6
    assert scores["mpjpe_scale_matched_mm"] < _MM and scores["pa_mpjpe_mm"] < _MM
    truth = np.load(files / "truth.npz")["joints"]
    assert scores["mpjpe_norm_matched_mm"] < _MM and scores["depth_reversed_percent"] == 0
    distance = np.linalg.norm(truth - truth[:, :1], axis=-1).mean()
    np.testing.assert_allclose(scores["mpjpe_mm"], 0.25 * distance, rtol=1e-4)
    again = _run(*flags)
    assert again.returncode == 2 and "--overwrite" in again.stderr


def test_elepose_s_protocol_matches_norms_and_forgives_reflections(files):
    """As its published code has it: hips together, |P| made |T|, SVD without a determinant."""
    truth = np.load(files / "truth.npz")["joints"]
    found = truth * [1.0, 1.0, -1.0] + np.random.default_rng(1).normal(scale=60, size=truth.shape)
    np.savez(files / "poses.npz", joints=found, unit="px")
    done = _run(
        f"--poses_3d={files}/poses.npz",
        f"--truth={files}/truth.npz",
        f"--out={files}/scores.json",
        "--protocol=elepose",
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads((files / "scores.json").read_text())
    assert set(scores) == {"N-MPJPE_mm", "PA-MPJPE_mm", "poses", "canonical_bone_sum_mm"}
    expected = {"N-MPJPE_mm": [], "PA-MPJPE_mm": []}
    for pose, true in zip(found, truth, strict=True):
        (hip, hip_true), (middle, middle_true) = (
            [each - each[0] for each in (pose, true)],
            [each - each.mean(axis=0) for each in (pose, true)],
        )
        scaled = hip * np.linalg.norm(hip_true) / np.linalg.norm(hip)
        expected["N-MPJPE_mm"].append(np.linalg.norm(scaled - hip_true, axis=1).mean())
        u, values, vt = np.linalg.svd(middle.T @ middle_true)
        turned = middle @ u @ vt * values.sum() / np.sum(middle**2)
        expected["PA-MPJPE_mm"].append(np.linalg.norm(turned - middle_true, axis=1).mean())
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], np.mean(values), atol=_MM)
    assert scores["PA-MPJPE_mm"] < 100 < scores["N-MPJPE_mm"]


def test_errors_are_given_both_ways_where_the_truth_has_cameras(files):
    truth = dict(np.load(files / "truth.npz")) | {"intrinsics_px": np.array([1000.0, 1000.0, 500.0, 500.0])}
    np.savez(files / "truth.npz", **truth, box_px=np.array([500.0, 450.0, 600.0, 100.0]))
    done = _run(f"--poses_3d={files}/poses.npz", f"--truth={files}/truth.npz", f"--out={files}/scores.json")
    assert done.returncode == 0, done.stderr
    scores = json.loads((files / "scores.json").read_text())
    assert scores["turned_mpjpe_scale_matched_mm"] > 10 > scores["mpjpe_scale_matched_mm"]
    assert "turned_mpjpe_bone_sum" in done.stdout


def test_a_bad_file_gives_one_line_and_exit_code_2(files):
    np.savez(files / "short.npz", joints=np.zeros((2, 17, 3)), unit="mm")
    done = _run(f"--poses_3d={files}/short.npz", f"--truth={files}/truth.npz")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "short.npz" in done.stderr and "2 poses, but 6 true ones" in done.stderr
