"""The summary of fits: percentages, gaps, and as much of it as a terminal takes."""

import json

import jax
import numpy as np
import pytest

from dal_jax.body.formats.load import load_body
from dal_jax.fits import output
from dal_jax.fits.fits import Fits
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import Annotations
from tests.fits import entries
from tests.observations import posed_people


@pytest.fixture(scope="module")
def fits() -> Fits:
    """Return a fitted person after a rejected one."""
    annotations = Annotations([entries.rejected(1, 1), entries.annotated(1, 2, points=7)])
    body = load_body()
    observed = Observations.of_annotations(annotations, body)
    bodies = jax.tree.map(lambda leaf: np.asarray(leaf)[None], posed_people.parameters(1))
    found = Fits.of(observed, body, bodies, np.array([12.5]), annotations=annotations)
    found.dense_error_px[1] = 4.0
    return found


def test_percentages_are_of_the_longer_side_and_go_to_the_right_person(fits):
    fits.held_out_error_px = np.array([6.0])
    (row,) = fits.report_rows()
    assert (row["annotation_id"], row["points"], row["valid"]) == (2, 7, True)
    assert row["dense_error_percent"] == 2.0 and row["held_out_error_percent"] == 3.0


def test_what_was_not_measured_is_null_and_a_dash(fits):
    fits.held_out_error_px = None
    rows = fits.report_rows()
    assert rows[0]["held_out_error_px"] is None and rows[0]["keypoint_error_px"] is None
    json.dumps(rows, allow_nan=False)
    assert "4.00" in output.table(rows, 10) and " - " in output.table(rows, 10)


def test_a_long_table_is_cut(fits):
    assert "and 3 more" in output.table(fits.report_rows() * 5, 2)
