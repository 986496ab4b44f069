"""Bodies before cameras: seen through a pinhole they lie where the fit has them; and a recording holds them."""

import sys
from unittest import mock

import numpy as np
import pytest

from dal_jax.body import cameras
from dal_jax.body.formats.load import load_body
from dal_jax.fits import overlays, stream
from dal_jax.fits.file import FitRows
from dal_jax.fits.fits import Fits
from dal_jax.observations.observation import px_from_crop
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import Annotations
from dal_jax.runtime.errors import InputError
from tests.fits import entries
from tests.fits.test_page import three_bodies
from tests.observations import annotation_files

FAR_PX = 1.2  # 120 px from the middle, 0.3 m nearer than the pelvis to a camera that is 33 m away
ROUNDING_PX = 0.01


_ROWS = set(FitRows.__dataclass_fields__)


@pytest.fixture(scope="module")
def fits(tmp_path_factory) -> Fits:
    """Return three people in two photographs."""
    folder = tmp_path_factory.mktemp("photos")
    people = [entries.annotated(1, number, f"{number // 2}.jpg", points=7) for number in (1, 2, 3)]
    for name in ("0.jpg", "1.jpg"):
        annotation_files.write_picture(folder / name)
    annotations = Annotations(people, images=str(folder))
    observed = Observations.of_annotations(annotations, load_body())
    return Fits.of(observed, load_body(), three_bodies(), annotations=annotations)


@pytest.mark.parametrize(("focal_px", "tolerance"), [(None, FAR_PX), (300.0, ROUNDING_PX)])
def test_a_camera_sees_the_body_where_the_fit_has_it(fits, focal_px, tolerance):
    size, box = (100, 160), fits.box_px[0]
    body = overlays.select(fits.fitted(), 0)
    pinhole, known = None, fits
    if focal_px is not None:
        known = Fits(**{name: value.copy() for name in _ROWS if (value := getattr(fits, name)) is not None})
        known.body, known.focal_px[:], known.principal_px[:] = fits.body, focal_px, (50.0, 80.0)
        middle = (np.array([50.0, 80.0]) - box[:2]) / box[2] * 2 - 1
        pinhole = cameras.Pinhole(np.float32(focal_px * 2 / box[2]), middle.astype(np.float32))
    focal, principal, vertices = stream.place(known, 0, size)
    through = vertices[:, :2] / vertices[:, 2:] * focal + principal[None]
    drawn = px_from_crop(overlays.posed_vertices(fits.body, body, pinhole)[:, :2], box)
    assert np.abs(through - drawn).max() < tolerance


def test_a_recording_holds_photographs_people_and_points(fits, tmp_path):
    rerun = pytest.importorskip("rerun", reason="rerun-sdk is not installed: nothing streams")
    reader = pytest.importorskip("rerun.chunk")
    recording = rerun.RecordingStream("dal_jax")
    recording.save(tmp_path / "people.rrd")
    stream.send(fits, recording)
    recording.flush()
    recording.disconnect()
    chunks = reader.RrdReader(tmp_path / "people.rrd").stream().to_chunks()
    paths = {str(chunk.entity_path) for chunk in chunks}
    expected = {f"/{path}/{index}" for path in ("people", "camera/dense") for index in range(3)}
    assert expected | {"/camera", "/report"} <= paths
    (mesh,) = [chunk for chunk in chunks if str(chunk.entity_path) == "/people/1"]
    batch = mesh.to_record_batch()
    (name,) = [name for name in batch.schema.names if "vertex_positions" in name]
    sent = np.array(next(row.as_py() for row in batch.column(name)))
    np.testing.assert_allclose(sent, stream.place(fits, 1, (100, 160)).vertices, atol=1e-4)


def test_a_viewer_that_does_not_open_is_one_line(fits, monkeypatch):
    rerun = mock.MagicMock()
    rerun.RecordingStream.return_value.flush.side_effect = RuntimeError("unable to connect")
    monkeypatch.setitem(sys.modules, "rerun", rerun)
    monkeypatch.setattr(stream, "send", lambda *_: None)
    with pytest.raises(InputError, match="does not open.*unable to connect"):
        stream.show(fits)
