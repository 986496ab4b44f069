"""The summary of fits: percentages, gaps, and as much of it as a terminal takes."""

import json

import numpy as np

from dal_jax.fits import file, output
from dal_jax.observations import keypoints
from dal_jax.observations.person import AnnotatedPerson, Annotations, Rejected


def _annotations():
    one = AnnotatedPerson(
        1, 2, "a.jpg", None, np.array([0.0, 0, 50, 200]), np.zeros((7, 2)), np.ones(7, int), np.zeros((7, 2)),
        keypoints.missing(),
    )  # fmt: skip
    return Annotations([Rejected(1, 1, "a.jpg", "no points", "..."), one])


def _fits():
    fits = file.empty([1, 1], [1, 2], ["a.jpg", "a.jpg"])
    fits.valid[1], fits.dense_error_px[1], fits.energy[1] = True, 4.0, 12.5
    return fits


def test_percentages_are_of_the_longer_side_and_go_to_the_right_person():
    (row,) = output.summarise(_annotations(), _fits(), np.array([6.0]))
    assert (row["annotation_id"], row["points"], row["valid"]) == (2, 7, True)
    assert row["dense_error_percent"] == 2.0 and row["held_out_error_percent"] == 3.0


def test_what_was_not_measured_is_null_and_a_dash():
    rows = output.summarise(_annotations(), _fits())
    assert rows[0]["held_out_error_px"] is None and rows[0]["keypoint_error_px"] is None
    json.dumps(rows, allow_nan=False)
    assert "4.00" in output.table(rows, 10) and " - " in output.table(rows, 10)


def test_a_long_table_is_cut():
    rows = output.summarise(_annotations(), _fits()) * 5
    assert "and 3 more" in output.table(rows, 2)
