"""One round of the loop on a tiny Human3.6M: its truth is known, so the history has numbers."""

import dataclasses
import json

import numpy as np
import pytest

from dal_jax.data import files as files_lib
from dal_jax.data.human36m import source as source_lib
from dal_jax.data.recording import builder as builder_lib
from dal_jax.loop import judge as judge_lib, session
from tests.data.human36m import release
from tests.loop import one_round


@pytest.mark.slow
def test_a_round_runs_and_is_judged(tmp_path):
    release.write(tmp_path / "h36m")
    source = source_lib.Human36m(files_lib.Files(str(tmp_path / "h36m"), image_size=one_round.SIZE), frame_step=1)
    builder_lib.prepare(source, tmp_path / "data", workers=0)
    result = session.run(one_round.config("human36m"), tmp_path / "run", tmp_path / "data")
    (entry,) = json.loads((tmp_path / "run" / "history.json").read_text())
    assert all(np.isfinite(entry[field]) for field in judge_lib.FIELDS)
    assert result.report.is_file()


def test_options_tell_the_loop_the_body_that_points_are_on(tmp_path):
    files = files_lib.Files(str(tmp_path))
    (tmp_path / "mosh").mkdir()
    assert source_lib.Human36m(files).options()["body"] == files_lib.body_digest("")
    assert dataclasses.replace(source_lib.Human36m(files), frame_step=7).options()["frame_step"] == 7
