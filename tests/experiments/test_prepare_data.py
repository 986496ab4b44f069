import subprocess
import sys

import pytest


def _run(*flags):
    command = [sys.executable, "-m", "experiments.prepare_data", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tiny_is_prepared_and_named(tmp_path):
    done = _run("--dataset=synthetic_people/tiny", f"--data_dir={tmp_path}", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert "24 train, 12 test people" in done.stdout
    assert (tmp_path / "synthetic_people" / "tiny").is_dir()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--dataset=synthetic_people/huge",), "synthetic_people/huge"),
        (("--dataset=mnist",), "--dataset=mnist"),
    ],
)
def test_a_wrong_name_is_one_line(tmp_path, flags, named):
    done = _run(*flags, f"--data_dir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
