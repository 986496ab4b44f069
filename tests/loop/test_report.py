"""The report: complete, escaped, self-contained, and replaced as a whole."""

import html.parser

import jax
import numpy as np
import pytest
from PIL import Image

from dal_jax.algorithm import Run
from dal_jax.body.kinematics import t_pose
from dal_jax.config import demo
from dal_jax.loop import report
from dal_jax.loop.report import Stage
from dal_jax.observations.observation import Observation
from dal_jax.viewing import plots

_PEOPLE = 5
_HISTORY = [{"round": 1, "regressor_test_mpjpe_mm": 170.25, "seconds": 9.0}, {"round": 2}]


@pytest.fixture(autouse=True)
def _small_page(monkeypatch):
    monkeypatch.setattr(report, "EXAMPLES", 3)
    monkeypatch.setattr(report, "TILE_PX", 48)
    monkeypatch.setattr(report, "CARDS", 2)


class _Links(html.parser.HTMLParser):
    """Everything a page asks the browser to load, and the tags it has."""

    def __init__(self, page: str):
        super().__init__()
        self.links, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]


def _observations() -> Observation:
    return Observation(
        point_position=np.zeros((_PEOPLE, 4, 2)),
        point_face=np.zeros((_PEOPLE, 4), int),
        point_barycentric=np.zeros((_PEOPLE, 4, 3)),
        point_confidence=np.tile([1.0, 1, 0, 0], (_PEOPLE, 1)),
        keypoint_position=np.zeros((_PEOPLE, 17, 2)),
        keypoint_confidence=np.zeros((_PEOPLE, 17)),
        depth=np.zeros((_PEOPLE, 17)),
        depth_confidence=np.zeros((_PEOPLE, 17)),
        box_px=np.zeros((_PEOPLE, 4)),
    )


def _fits(**changes) -> Stage:
    parameters = jax.tree.map(lambda leaf: np.stack([leaf] * _PEOPLE), t_pose())
    values = {
        "title": "Registration",
        "names": [f"person {index} <script>alert(1)</script>" for index in range(_PEOPLE)],
        "images": np.random.default_rng(0).integers(0, 256, (_PEOPLE, 32, 32, 3), np.uint8),
        "parameters": parameters,
        "error": np.float32([10, 50, 30, np.nan, 40]),
        "observations": _observations(),
    }
    return Stage(**(values | changes))


def _write(directory, ball, **changes):
    values = {
        "history": _HISTORY,
        "stages": [_fits(observations=None)],  # without cards
        "loss_plots": {"loss & more": plots.plot_curves({"loss": ([0, 1], [2, 1])}, "step", "loss")},
    }
    config = demo()
    config.preset, config.later.registration.optimizer = "Run <b>1</b>", "<lm>"
    return report.write_page(directory, Run(config, ball, None), **(values | changes))


def test_page_shows_history_config_and_worst_first(ball, tmp_path):
    page = _write(tmp_path / "report", ball).read_text()
    assert "170.2" in page and "later.registration.optimizer" in page
    worst = page[page.index("the worst") :]
    shown = [f"person {index} " for index in (3, 1, 4)]
    assert [worst.index(name) for name in shown] == sorted(worst.index(name) for name in shown)
    assert "MPJPE 50.0 mm" in worst and "MPJPE nan mm" in worst and "person 0" not in worst


def test_text_from_outside_is_escaped(ball, tmp_path):
    page = _write(tmp_path / "report", ball).read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<lm>" not in page and "Run &lt;b&gt;1" in page and "loss &amp; more" in page
    assert not _Links(page).tags & {"script", "b1", "link", "iframe"}


def test_every_picture_lies_beside_the_page_and_none_is_left_over(ball, tmp_path):
    path = _write(tmp_path / "report", ball, stages=[_fits()])
    links = _Links(path.read_text()).links
    assert len(links) == 1 + 1 + 3 + 3 + 1
    assert {*links, "index.html"} == {file.name for file in path.parent.iterdir()}
    for link in links:
        if link != "cards-0.html":
            Image.open(path.parent / link).verify()
    cards = (path.parent / "cards-0.html").read_text()
    chosen = {index for shown in report._choose(_fits()).values() for index in shown[:2]}
    assert all((f"person {index} &lt;script&gt;" in cards) == (index in chosen) for index in range(_PEOPLE))
    assert "from above" in cards and "Turn in 3D" in cards


def test_an_older_report_is_replaced_and_a_failed_one_leaves_it(ball, tmp_path):
    path = _write(tmp_path / "report", ball)
    before = path.read_text()
    with pytest.raises(IndexError):
        _write(tmp_path / "report", ball, stages=[_fits(images=np.zeros((1, 8, 8, 3), np.uint8))])
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report"]
    _write(tmp_path / "report", ball, stages=[], history=[], loss_plots={})
    assert [entry.name for entry in (tmp_path / "report").iterdir()] == ["index.html"]


def test_without_truth_there_are_no_worst_cases_and_without_annotation_the_image_is_clean(ball, tmp_path):
    fits = _fits(error=None, observations=None)
    page = _write(tmp_path / "report", ball, stages=[fits]).read_text()
    assert "the worst" not in page and "drawn at random" in page
    row = report.draw_person(fits, 2, ball, 32)
    np.testing.assert_array_equal(row[:, :32], fits.images[2])


def test_a_row_is_image_overlay_front_side(ball):
    fits = _fits()
    row = report.draw_person(fits, 0, ball, 64)
    assert row.shape == (64, 256, 3)
    image, over, front, side = np.split(row.astype(int), 4, axis=1)
    assert (image != over).any()
    ball_seen = [(view != 255).any(axis=-1) for view in (front, side)]
    one_pixel_rim = 64 * 4
    assert np.sum(ball_seen[0] != ball_seen[1]) < one_pixel_rim  # a ball looks the same from everywhere
    assert 0.5 < ball_seen[0].mean() < 0.8


def test_a_fit_that_is_not_finite_is_shown_without_a_body(ball):
    fits = _fits()
    fits.parameters.camera_scale[0] = np.nan
    row = report.draw_person(fits, 0, ball, 32)
    assert (row[:, 32:] == 128).all()
