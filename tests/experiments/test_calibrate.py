"""Calibration of the posterior, end to end on a few people."""

import json
import subprocess

import pytest

from tests.experiments import binaries


def _run(*flags: object) -> subprocess.CompletedProcess:
    return binaries.run("experiments.calibrate", *flags)


@pytest.mark.slow
def test_three_tables_are_printed_and_written(tiny_people, tmp_path):
    out = tmp_path / "calibration.json"
    done = _run("--synthetic=tiny", "--people=12", f"--data_dir={tiny_people}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert list(found["calibration"]) == ["own size", "adults", "two subjects"]
    for name, axes in found["calibration"].items():
        assert name in done.stdout
        assert 20 < axes["mpjpe_mm"] < 200
        for axis in "xyz":
            assert 0.2 < axes[axis]["within_1_sd"] <= axes[axis]["within_2_sd"] <= 1
    assert found["noise"]["point"] > 0
    own, adults = (found["calibration"][name]["y"]["mean_sd_mm"] for name in ("own size", "adults"))
    assert adults > 1.2 * own, "who knows a person's size knows more"


def test_a_negative_noise_is_one_line():
    done = _run("--depth_noise=-1")
    assert done.returncode == 2
    assert "depth_noise" in done.stderr
    assert "Traceback" not in done.stderr
