"""The lifters' table end to end, on few poses and steps; wrong flags are one line."""

import json
import subprocess

import pytest

from tests.experiments import binaries


def _run(*flags: object) -> subprocess.CompletedProcess:
    return binaries.run("experiments.compare_lifters", *flags)


@pytest.mark.slow
def test_rows_of_one_preset(tmp_path):
    flags = (
        f"--workdir={tmp_path}/lifters", f"--data_dir={tmp_path}", "--presets=demo", "--steps_of=demo=3", "--seeds=2",
        "--poses=100", "--scored_poses=20", "--noregistration", f"--out={tmp_path}/rows.json",
    )  # fmt: skip
    done = _run(*flags)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["what"] for row in rows] == ["no_depth", "true_joints", *["lifter"] * 2, "preset", *["selection"] * 2]
    assert rows == [json.loads(line) for line in done.stdout.splitlines()]
    lifter = rows[2]
    assert lifter["steps"] == 3 and lifter["mpjpe_mm"] > 0 and 0 <= lifter["within_1_sd"] <= 1
    assert rows[4]["mpjpe_mm_worst"] == max(rows[2]["mpjpe_mm"], rows[3]["mpjpe_mm"])
    again = _run(*flags, "--overwrite")
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "rows.json").read_text()) == rows  # what is trained is kept


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--presets=best,none", "--presets=none: of kudo, demo, best"), ("--steps_of=kudo", "--steps_of=kudo")],
)
def test_a_wrong_flag_is_one_line(flag, message, tmp_path):
    done = _run(f"--workdir={tmp_path}", f"--data_dir={tmp_path}", flag)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
