"""One round of the loop on a tiny Human3.6M: its truth is known, so the history has numbers."""

import dataclasses
import json

import numpy as np
import pytest

from dal_jax.config import demo
from dal_jax.data import preparing
from dal_jax.data.files import Files, body_digest
from dal_jax.data.human36m.source import human36m
from dal_jax.loop import judge
from tests.data.human36m import release
from tests.loop import one_round


@pytest.mark.slow
def test_a_round_runs_and_is_judged(tmp_path):
    release.write(tmp_path / "h36m")
    source = human36m(Files(str(tmp_path / "h36m"), image_size=one_round.SIZE), frame_step=1)
    preparing.prepare(source, tmp_path / "data", workers=0)
    config = one_round.config("human36m")  # by the demo's programs, which have more to get wrong
    config.first.registration.optimizer = "lm"
    config.lifting = dataclasses.replace(demo().lifting, width=16, batch=4, steps=20, steps_per_call=20)
    result = one_round.run(config, tmp_path)
    (entry,) = json.loads((tmp_path / "run" / "history.json").read_text())
    assert all(np.isfinite(entry[field]) for field in judge.FIELDS)
    assert result.report.is_file()


def test_options_tell_the_loop_the_body_that_points_are_on(tmp_path):
    files = Files(str(tmp_path))
    (tmp_path / "mosh").mkdir()
    assert human36m(files).options()["body"] == body_digest("")
    assert human36m(files, frame_step=7).options()["frame_step"] == 7
