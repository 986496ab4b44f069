"""The ConvNets' table end to end: two variants on a run whose people are registered; wrong flags are one line."""

import json
import subprocess

import pytest

from tests.experiments import binaries
from tests.loop import registered_run


def _run(*flags: object) -> subprocess.CompletedProcess:
    return binaries.run("experiments.compare_regressors", *flags)


@pytest.mark.slow
def test_rows_of_two_variants(tmp_path):
    registered_run.write(tmp_path / "run", registered_run.record(tmp_path / "data"))
    out, workdir = tmp_path / "rows.json", tmp_path / "variants"
    flags = (
        f"--run={tmp_path}/run", f"--workdir={workdir}", "--variants=bad_fits_residual,base", "--epochs=2",
        f"--out={out}",
    )  # fmt: skip
    done = _run(*flags)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert rows == [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["what"], row["name"]) for row in rows] == [
        *[("variant", "base")] * 2, ("summary", "base"), *[("variant", "bad_fits_residual")] * 2,
        ("summary", "bad_fits_residual"),
    ]  # fmt: skip
    base, other = rows[2], rows[5]
    assert all(row["steps"] == 6 and row["people"] == 11 and row["jax"] for row in rows)
    assert base["mpjpe_mm_minus_base"] == 0 and base["mpjpe_mm_median"] > 0
    differences = [rows[3 + seed]["mpjpe_mm"] - rows[seed]["mpjpe_mm"] for seed in (0, 1)]
    assert other["mpjpe_mm_minus_base"] == pytest.approx(sum(differences) / 2, abs=1e-2)
    assert rows[3]["bad_weight_share"] < rows[3]["bad_fits"] == pytest.approx(2 / 11, rel=1e-5)

    times = {path: path.stat().st_mtime_ns for path in workdir.iterdir()}
    (workdir / "base-1.json").unlink()  # as if killed there
    again = _run(*flags, "--overwrite")
    assert again.returncode == 0, again.stderr
    timeless = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    assert [
        {key: value for key, value in row.items() if key != "seconds"} for row in json.loads(out.read_text())
    ] == timeless
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {"base-1.json"}, "what is finished is kept"


def test_wrong_flags_are_one_line(tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    for flags, message in (
        (("--variants=base",), f"{tmp_path}/run: no such folder"),
        ((f"--out={tmp_path}/rows.json",), "rows.json exists; --overwrite replaces it"),
    ):
        done = _run(f"--run={tmp_path}/run", f"--workdir={tmp_path}/variants", *flags)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "variants").exists()
