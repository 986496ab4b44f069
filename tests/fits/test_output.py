"""The summary of fits: percentages, gaps, and as much of it as a terminal takes."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from dal_jax.body.formats.load import load_body
from dal_jax.fits import fitting, output
from dal_jax.fits.fits import Fits, Report
from dal_jax.fits.options import FitOptions
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import Annotations
from dal_jax.registration import register
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


def test_measurements_are_of_the_fitted_person_and_of_its_height(fits):
    known = dataclasses.replace(fits, shape_covariance=1e-4 * np.eye(25)[None], height_cm=(180.0,))
    known = dataclasses.replace(known, summary={"measurements": [known.measured(1)]})  # as `fit` has it
    (row,) = known.report_rows()
    assert row["measurements"]["unit"] == "cm" and row["measurements"]["height"] == [180.0, 0.0]
    value, sd = row["measurements"]["waist_girth"]
    assert 60 < value < 120 and 0 < sd < 5
    assert known.measurements(1, height_cm=90)["waist_girth"].value == pytest.approx(value / 2, abs=1e-4)
    with pytest.raises(ValueError, match="row 0 was not fitted"):
        known.measurements(0)
    assert fits.report_rows()[0]["measurements"] is None
    with pytest.raises(ValueError, match="need the fits' reports"):
        fits.measurements(1)


def test_a_long_table_is_cut(fits):
    assert "and 3 more" in output.table(fits.report_rows() * 5, 2)


def test_the_table_says_why_a_verdict_is_what_it_is_and_what_everybody_has_once(fits):
    (row,), flags = fits.report_rows(), ("of all", "of one")
    rows = [row | {"quality": {"verdict": "doubtful", "expected_error_mm": 199.6, "flags": flags[:n]}} for n in (1, 2)]
    text = output.table(rows, 10)
    assert text.count("of all") == 1 and "everybody: of all" in text and ": of one" in text
    assert text.count(" 200 ") == 2


def test_fragments_have_no_mesh_unless_they_are_kept(fits, tmp_path):
    report = Report("fragment", [], 0.1, {})
    known = dataclasses.replace(fits, quality=[report])
    assert known.export(tmp_path / "none", ("obj",)) == []
    assert len(known.export(tmp_path / "kept", ("obj",), keep_fragments=True)) == 1
    sound = dataclasses.replace(fits, quality=[dataclasses.replace(report, verdict="doubtful")])
    assert len(sound.export(tmp_path / "sound", ("obj",))) == 1


@pytest.mark.parametrize(("weights", "predicted", "expected"), [
    ("pose_prior", True, "graduated"), ("pose_prior", False, "constant"), ("paper_soft", True, "constant"),
])  # fmt: skip
def test_what_a_network_annotated_is_fitted_robustly_but_by_the_paper_s_weights(
    monkeypatch, weights, predicted, expected
):
    def stop(_body, _observed, config, *_, **__):
        raise KeyError(config.schedule)

    monkeypatch.setattr(register, "register", stop)
    people = Annotations([entries.annotated(1, 2, points=7)], predicted=predicted)
    with pytest.raises(KeyError, match=expected):
        fitting.fit(people, load_body(), FitOptions(weights=weights))


def test_a_pitch_is_refused_where_nothing_reads_it():
    with pytest.raises(ValueError, match="pitch_deg belongs to the weights pose_prior, not to paper_soft"):
        FitOptions(weights="paper_soft", pitch_deg=10.0).check()
