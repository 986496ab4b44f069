"""The binary end to end on a handful of people: rows of JSON and nothing else on stdout; one line for what is wrong."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.experiments import binaries

CONFIG = pathlib.Path(__file__).parents[2] / "benchmarks" / "people.json"


def _run(*flags: object) -> subprocess.CompletedProcess:
    return binaries.run("experiments.benchmark", *flags)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Return the flags that name four people of few points, made by the first who needs them."""
    folder = tmp_path_factory.mktemp("people")
    few = {**json.loads(CONFIG.read_text()), "people": 4, "points": 40, "grid_px": 64}
    (folder / "people.json").write_text(json.dumps(few))
    return f"--people={folder}/people.json", f"--data_dir={folder}", "--seconds=0", "--points=20"


def _rows(done: subprocess.CompletedProcess) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_row_for_each_start_and_a_file_of_them_all(people, tmp_path):
    flags = ("--optimizer=adam(b1=0.8, b2=0.99)", "--steps=3", "--starts=tpose,closed_form", "--batch=2")
    rows = _rows(_run(*people, *flags, "--noreference", f"--out={tmp_path}/rows.json"))
    assert [row["starts"] for row in rows] == ["tpose", "closed_form"]
    for row in rows:
        assert row["what"] == "optimizers" and row["optimizer"] == "adam(b1=0.8, b2=0.99)" and row["batch"] == 2
        assert row["scored_people"] == 4 and row["failures"] == 0 and row["within_best_share"] is None
        assert row["fits_per_second"] > 0 and row["cpu_s_per_fit"] > 0 and row["matmul_gflops"] > 0
        assert row["energy_median"] > 0 and row["mpjpe_mm"] > 0 and row["cores"] >= 1
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    again = _run(*people, f"--out={tmp_path}/rows.json")
    assert again.returncode == 2 and "--overwrite" in again.stderr


@pytest.mark.slow
def test_equal_energy_and_largest_batch(people):
    flags = ("--rows=equal_energy,largest_batch", "--optimizer=adam", "--steps=2", "--patience_s=0")
    rows = _rows(_run(*people, *flags, "--time_limit_s=0.05", "--batch=4"))
    assert [row["what"] for row in rows] == ["equal_energy", "equal_energy", "largest_batch"]
    for row in rows[:2]:
        assert row["energy_target"] > 0 and row["most_steps_tried"] >= 1
        assert (row["steps"] is None) == (row["energy_median"] > row["energy_target"])
    assert rows[2]["limited_by"] in ("time", "memory", "the largest tried") and rows[2]["memory_gb"] > 0


def test_several_numbers_of_devices_have_a_process_each(people):
    flags = ("--target=body", "--batch=2", "--seconds=0", "--devices=1,2")
    rows = [row for row in _rows(_run(*flags)) if row["program"] == "dal_jax"]
    assert [row["pass"] for row in rows] == ["forward", "gradient"] * 2
    assert all(row["bodies_per_second"] > 0 and row["vertices"] > 1000 for row in rows)


def test_reading_pictures_is_measured_from_photograph_to_batch():
    rows = _rows(_run("--target=pipeline", "--limit=6", "--batch=4", "--seconds=0"))
    works = [row["work"] for row in rows]
    assert works[:3] == ["record", "decode, one by one", "decode, grain, 1 threads"]
    for row in rows:
        assert row["what"] == "pipeline" and row["images"] == 6 and row["crop_px"] == 224
        assert row["images_per_second"] > 0 and row["images_per_cpu_second"] > 0 and row["cores"] >= 1


def test_a_lifter_is_measured_by_preset():
    rows = _rows(_run("--target=lifting", "--preset=kudo", "--steps=1", "--batch=2,8", "--seconds=0"))
    assert [(row["work"], row["batch"]) for row in rows] == [("training", 16), ("lifting", 2), ("lifting", 8)]
    assert all(row["what"] == "lifting" and row["preset"] == "kudo" and row["poses_per_second"] > 0 for row in rows)
    done = _run("--target=lifting", "--preset=kudos")
    assert done.returncode == 2 and "--preset=kudos" in done.stderr


@pytest.mark.slow
def test_the_convnet_is_measured_beside_plain_linen():
    # the case of tests/benchmarks/test_regressor.py
    rows = _rows(_run("--target=regressor", "--width=2", "--image_size=32", "--batch=2", "--seconds=0"))
    assert [(row["program"], row["pass"]) for row in rows] == [
        ("dal_jax", "training"), ("dal_jax", "inference"), ("linen", "training"), ("linen", "inference"),
    ]  # fmt: skip
    assert all(row["what"] == "regressor" and row["width"] == 2 and row["images_per_second"] > 0 for row in rows)
    done = _run("--target=regressor", "--image_size=big")
    assert done.returncode == 2 and "--image_size=big" in done.stderr


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--optimizer=sgdd", "sgdd"),
        ("--starts=given", "--starts=given"),
        ("--points=20,9999", "--points=9999"),
        ("--batch=0", "--batch=0"),
        ("--devices=two", "--devices=two"),
        ("--rows=table", "--rows=table"),
        ("--people=none.json", "none.json"),
        ("--target=mesh", "target"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(people, flag, said):
    done = _run(*people, flag)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and said in done.stderr


def test_help_is_complete():
    done = _run("--help")
    assert done.returncode == 0
    for word in ("equal_energy", "largest_batch", "--devices", "--points", "fits_per_second_per_gflops"):
        assert word in done.stdout


def test_without_the_checkout_it_says_so_in_one_line(tmp_path):
    """As in an installed wheel, which has no benchmarks/."""
    for name in ("dal_jax", "experiments"):
        (tmp_path / name).symlink_to(CONFIG.parents[1] / name)
    for binary in ("benchmark", "compare_lifters"):
        command = [sys.executable, "-m", f"experiments.{binary}", "--help"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 2 and "needs a checkout" in done.stderr and len(done.stderr.splitlines()) == 1
