"""The page of fits: whole in one file, whatever the names; sorted, bounded, compared; and it draws in a browser."""

import base64
import dataclasses
import gzip
import html.parser
import io
import re
import time

import jax
import numpy as np
import pytest
import trimesh

from dal_jax.body.formats.load import load_body
from dal_jax.body.kinematics import BodyParameters
from dal_jax.fits import figures, page
from dal_jax.fits.figures import Figures
from dal_jax.fits.fits import Fits, Report
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import Annotations
from dal_jax.runtime import machine
from dal_jax.runtime.errors import InputError
from dal_jax.viewing import html as pages
from tests.fits import entries
from tests.observations import annotation_files, posed_people
from tests.viewing import browser

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>.jpg"
FLAG = "</li><script>alert(3)</script>{{ 7 * 7 }}"
SPREAD_MM = {"head": [100.0, 50.0, 200.0], "left_knee": [20.0, 30.0, 40.0]}
PLACE_M = 1.1e-3  # places are rounded to 2 mm


def _report(verdict: str, expected_mm: float, flags: list[str]) -> Report:
    numbers = {"verdict": verdict, "flags": flags, "expected_error_mm": expected_mm, "joint_sd_mm": SPREAD_MM}
    return Report(verdict, flags, 0.5, numbers)  # pyright: ignore[reportArgumentType]


def three_bodies() -> BodyParameters:
    """Return the same known body three times."""
    return jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * 3), posed_people.parameters(1))


@pytest.fixture(scope="module")
def fits(tmp_path_factory) -> Fits:
    """Return three people where their annotation has them, and an entry that was rejected."""
    photos = tmp_path_factory.mktemp("photos")
    annotation_files.write_picture(photos / "a.jpg")
    people = [entries.annotated(1, number, "a.jpg", points=7) for number in (1, 2, 3)]
    people[1] = dataclasses.replace(people[1], file_name=HOSTILE)
    annotations = Annotations([entries.rejected(1, 9), *people], images=str(photos / "a.jpg"))
    body = load_body()
    observed = Observations.of_annotations(annotations, body)
    found = Fits.of(observed, body, three_bodies(), np.array([1.0, 2.0, 3.0]), annotations=annotations)
    found.quality = [_report("good", 40.0, []), _report("fragment", 300.0, [FLAG]), _report("doubtful", 150.0, ["far"])]
    return found


class _Page(html.parser.HTMLParser):
    """Tags with their attributes, the words outside of them, and the scenes of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words = [], []
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if attributes.get(name)]


@pytest.fixture(scope="module")
def written(fits, tmp_path_factory) -> _Page:
    path = tmp_path_factory.mktemp("page") / "index.html"
    fits.page(path)
    return _Page(path)


def test_names_and_flags_are_text_and_nothing_is_loaded(written):
    own_scripts = 2  # the packed viewer, and page.js
    assert sum(tag == "script" for tag, _ in written.tags) == own_scripts
    assert not any(name.startswith("on") for _, attributes in written.tags for name in attributes)
    words = "".join(written.words)
    assert machine.command() in words and machine.describe() in words
    assert HOSTILE in words and FLAG in words and "49" not in words.split("alert(3)")[1][:40]
    links = written.values("src") + written.values("href")
    assert len(links) > 15 and all(link.startswith(("data:image/webp", "#")) for link in links)
    assert "default-src 'none'" in written.text
    targets = {link for link in written.values("href") if link.startswith("#")}
    assert {link[1:] for link in targets} <= set(written.values("id"))
    assert all(attributes.get("alt") for tag, attributes in written.tags if tag == "img")
    ids = written.values("id")
    assert len(ids) == len(set(ids))


def test_the_gravest_come_first_and_the_rest_is_a_table_that_says_so(fits, written, tmp_path, monkeypatch):
    people = [one for one in written.values("id") if re.fullmatch(r"person-\d", one)]
    assert people == ["person-1", "person-2", "person-0"]
    monkeypatch.setattr(page, "SHOWN_IN_FULL", 1)
    fits.page(tmp_path / "short.html")
    short = _Page(tmp_path / "short.html")
    words = " ".join(" ".join(short.words).split())
    assert [one for one in short.values("id") if re.fullmatch(r"person-\d", one)] == ["person-1"]
    assert "The first 1 are shown in full, the other 2" in words and "150 mm" in words and "40 mm" in words
    assert set(short.values("href")) & {"#good", "#usable", "#doubtful"} <= {f"#{one}" for one in short.values("id")}


def test_of_tracks_frames_follow_each_other_in_time(fits, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SHOWN_IN_FULL", 2)
    extra = {"track_id": np.array([0, 0, 0]), "frame": np.array([7, 6, 5])}
    dataclasses.replace(fits, extra=extra).page(tmp_path / "track.html")
    shown = _Page(tmp_path / "track.html")
    words = " ".join(" ".join(shown.words).split())
    assert [one for one in shown.values("id") if re.fullmatch(r"person-\d", one)] == ["person-2", "person-0"]
    assert "1 track of 3 frames" in words and "evenly apart, are shown in full, the other 1" in words


def test_the_scene_is_the_body_and_its_ellipsoids(fits, written):
    packed = next(attributes["data-scene"] for _, attributes in written.tags if attributes.get("id") == "turn-0")
    scene = trimesh.load_scene(io.BytesIO(gzip.decompress(base64.b64decode(packed))), file_type="glb")
    body, spread = scene.geometry.values()
    to_viewer = np.array([[1.0, -1.0, -1.0]])
    vertices = fits.vertices(1) * to_viewer
    np.testing.assert_allclose(body.bounds, [vertices.min(axis=0), vertices.max(axis=0)], atol=PLACE_M)
    joint = fits.joints_h36m[1, 10] * to_viewer[0]  # the head's
    head, knee = sorted(spread.split(), key=lambda part: -part.extents[0])
    np.testing.assert_allclose(head.extents, [0.2, 0.1, 0.4], rtol=0.1)  # twice the deviations, of a body of usual size
    np.testing.assert_allclose(head.bounds.mean(axis=0), joint, atol=2 * PLACE_M)
    assert knee.extents[0] < 0.05


def test_ellipses_lie_on_the_joints_in_every_view(fits):
    tiles = {one["title"]: one for one in Figures(fits, None).tiles(0, None, SPREAD_MM)}
    (_, front), (_, side), (_, top) = (
        tiles[f"from {name}"]["ellipses"][0] for name in ("the front", "the side", "above")
    )
    assert front[0] == top[0] and front[1] == side[1]  # one scale: places agree along the axis that views share
    across, down, away = front[2], front[3], side[2]
    assert (side[3], top[2], top[3]) == (down, across, away)
    np.testing.assert_allclose([across / down, away / down], [2.0, 4.0], rtol=0.05)
    assert front[1] < 200 < 800 < tiles["from the front"]["ellipses"][1][1][1] + 300  # head above, knee below


@pytest.mark.parametrize(("share", "kind"), [(0.005, 0), (0.015, 1), (0.03, 2), (0.1, 3)])
def test_what_is_missed_has_the_colour_of_its_share_of_the_box(fits, share, kind):
    figure = Figures(fits, None)
    figure._offsets_px = tuple(np.zeros_like(each) for each in figure._offsets_px)
    figure._offsets_px[0][0, :, 0] = share * 200.0  # px, to the right; the box is 200 px high
    marks = figure.residuals(0, 200.0)[0]["marks"]
    assert [bool(path) for path in marks["gaps"]] == [one == kind for one in range(4)]
    x, y, to_x, to_y = map(int, re.match(r"M(\d+) (\d+)L(\d+) (\d+)", marks["gaps"][kind]).groups())
    side_px = fits.observations.stacked.box_px[0, 2]
    assert to_y == y and abs(to_x - x - share * 200.0 / side_px * 1000) <= 1
    assert marks["dots"][kind].count("M") == 7 and len(figures.ERROR_CLASSES_PERCENT) == 3


def test_two_runs_stand_beside_each_other(fits, tmp_path):
    fits.save(tmp_path / "old", overlays=False)
    assert not (tmp_path / "old" / "index.html").exists()
    better = [_report("good", 41.0, []), *fits.quality[1:]]
    better[1] = _report("usable", 100.0, [])
    dataclasses.replace(fits, quality=better).page(tmp_path / "look.html", other=tmp_path / "old")
    found = _Page(tmp_path / "look.html")
    words = " ".join(" ".join(found.words).split())
    assert "3 people have bodies in both" in words and "better of 1, worse of 0, and the same of 2" in words
    assert "100 mm was 300 mm" in words and "150 mm was" not in words
    there = [attributes for tag, attributes in found.tags if tag == "img" and "the other run" in attributes["alt"]]
    here = [attributes for tag, attributes in found.tags if tag == "img" and "the other run" not in attributes["alt"]]
    assert len(there) == 3 * 4 and {one["src"] for one in there} <= {one["src"] for one in here}  # the same bodies

    (tmp_path / "old" / "summary.json").write_text('{"people": [{"quality": [1], "valid": true}]}')
    fits.page(tmp_path / "none.html", other=tmp_path / "old")
    assert "0 people have bodies in both" in (tmp_path / "none.html").read_text()
    (tmp_path / "old" / "summary.json").write_text('{"people": 3}')
    with pytest.raises(InputError, match="'people' is no list of people"):
        fits.page(tmp_path / "none.html", other=tmp_path / "old")


def test_without_its_packages_everything_else_is_written_and_a_line_says_why(fits, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "_NEEDED", ("jinja2", "no_such_package"))
    with pytest.warns(UserWarning, match="no page is written: package 'no_such_package' is not installed: pip install"):
        fits.save(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"fits.npz", "summary.json", "overlays"}


def test_views_from_the_files_of_overlays_are_those_that_are_drawn(fits, tmp_path, monkeypatch):
    fits.save(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"fits.npz", "summary.json", "overlays", "index.html"}
    drawn = Figures(fits, None).tiles(0, None, SPREAD_MM)
    monkeypatch.setattr(Figures, "_photograph", lambda *_: pytest.fail("the photograph is read again"))
    assert Figures(fits, tmp_path / "out" / "overlays").tiles(0, None, SPREAD_MM) == drawn


def test_a_body_that_is_not_finite_has_a_card_without_views(fits, tmp_path):
    broken = dataclasses.replace(fits, camera_scale=np.full_like(fits.camera_scale, np.nan), valid=~fits.valid & False)
    broken.page(tmp_path / "broken.html")
    found = _Page(tmp_path / "broken.html")
    assert "no body" in " ".join(found.words).lower() and not found.values("data-scene")


@pytest.mark.slow
@browser.needs_chromium
def test_it_draws_turns_and_fits_the_width_in_a_browser(written, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(written.text)
    with browser.tab(tmp_path / "profile") as tab:
        for width in (1400, 390):
            tab.open(f"{path.as_uri()}#turn-0", width)
            tab.until("document.querySelector('dialog iframe') !== null")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            box = tab.evaluate("JSON.parse(JSON.stringify(document.querySelector('.large').getBoundingClientRect()))")
            x, y = round(box["x"] + box["width"] / 2), round(box["y"] + box["height"] / 2)
            half = round(box["width"] / 2) - 12

            def stage(tab=tab, x=x, y=y, half=half):
                return tab.picture()[y - half : y + half, x - half : x + half].astype(int)

            end = time.monotonic() + 60
            while np.ptp(before := stage()) == 0 and time.monotonic() < end:
                time.sleep(0.2)
            seen = (before != before[:1, :1]).any(axis=-1).mean()
            assert 0.05 < seen < 0.8, "a body on plain ground"
            tab.drag(x, y, width // 5)
            while (after := stage()).tolist() == before.tolist() and time.monotonic() < end:
                time.sleep(0.2)
            assert (after != before).any(axis=-1).mean() > 0.01
            tab.evaluate("document.querySelector('dialog').close()")
            tab.evaluate("document.querySelector('button.tile:not(.turn)').click()")
            assert tab.evaluate("document.querySelectorAll('dialog img').length") == 1
        assert tab.errors == []
        assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in tab.loaded)
