"""Learning how people hold their joints, end to end."""

import subprocess

import numpy as np
import pytest

from dal_jax.registration.priors import gaussian
from tests.experiments import binaries


def _run(*flags: object) -> subprocess.CompletedProcess:
    return binaries.run("experiments.learn_poses", *flags)


@pytest.mark.slow
def test_a_small_crowd_teaches_and_nothing_is_overwritten(tmp_path):
    out = tmp_path / "poses.npz"
    flags = ("--people=16", "--rounds=2", f"--data_dir={tmp_path}", f"--out={out}")
    done = _run(*flags)
    assert done.returncode == 0, done.stderr
    assert "left_elbow" in done.stdout
    with np.load(out, allow_pickle=False) as archive:
        found = gaussian(archive["mean"], archive["covariance"])
    assert np.all(np.linalg.eigvalsh(found.covariance) > 0)
    left, right = found.mean[17], found.mean[18]  # elbows
    np.testing.assert_allclose(left, right * [1, -1, -1], atol=1e-3)
    assert left[1] < -0.2, "bent"
    again = _run(*flags)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def test_nobody_is_one_line(tmp_path):
    done = _run("--people=0", f"--out={tmp_path}/poses.npz")
    assert done.returncode == 2 and "people" in done.stderr and "Traceback" not in done.stderr
