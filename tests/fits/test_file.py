import dataclasses

import jax
import numpy as np
import pytest

from dal_jax.body.formats import load
from dal_jax.body.kinematics import BodyParameters
from dal_jax.fits import file
from dal_jax.fits.file import FitRows
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.observations.observations import Observations
from dal_jax.runtime.errors import InputError
from tests.fits import entries
from tests.observations import posed_people

PX = 1e-3
FLOAT32 = 1e-5

FIELDS = {
    "image_id": (), "annotation_id": (), "file_name": (), "valid": (), "pose": (23, 3), "segment_scale": (24,),
    "rotation": (3, 3), "camera_scale": (), "translation": (2,), "box_px": (4,), "bbox_px": (4,), "joints": (24, 3),
    "joints_h36m": (17, 3), "joints_px": (24, 2), "dense_error_px": (), "keypoint_error_px": (), "energy": (),
    "converged": (), "focal_px": (), "principal_px": (2,), "girth": (),
}  # fmt: skip


@pytest.fixture(scope="module")
def template():
    return load.load_body()


def _stack(*trees):
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def _observation(seed, shift_crop=0.0, box=(10.0, 20.0, 100.0, 100.0)):
    face, barycentric, position = posed_people.visible_points(seed, 40)
    return Observation(
        point_position=position + np.float32([shift_crop, 0]), point_face=face.astype(np.int32),
        point_barycentric=barycentric, point_confidence=np.r_[np.ones(30), np.zeros(10)].astype(np.float32),
        keypoint_position=np.zeros((17, 2), np.float32), keypoint_confidence=np.zeros(17, np.float32),
        depth=np.zeros(17, np.float32), depth_confidence=np.zeros(17, np.float32), box_px=np.float32(box),
    )  # fmt: skip


@pytest.fixture
def fits(template):
    people = _stack(posed_people.parameters(1), posed_people.parameters(2))
    seen = _stack(_observation(1), _observation(2, shift_crop=0.04))
    observed = Observations(seen, np.ones((2, 4)), [1, 2], [5, 7], ["a.jpg", "b.jpg"])
    fields = file.rows_of(observed, template, people, np.array([3.0, 4.0]))
    return FitRows(
        **file.spread(fields, [entries.annotated(1, 5), entries.rejected(1, 6), entries.annotated(2, 7, "b.jpg")])
    )


def _one(person, template) -> FitRows:
    observed = Observations(_stack(_observation(1)), np.ones((1, 4)), [1], [1], [""])
    return FitRows(**file.rows_of(observed, template, _stack(person)))


def test_the_file_holds_what_the_contract_says(tmp_path, fits):
    file.write(tmp_path / "fits.npz", fits)
    with np.load(tmp_path / "fits.npz", allow_pickle=False) as archive:
        assert {name: archive[name].shape[1:] for name in archive.files} == FIELDS
        assert archive["valid"].dtype == archive["converged"].dtype == bool
        assert archive["valid"].tolist() == [True, False, True]
        assert np.isnan(archive["pose"][1]).all()


def test_reading_gives_back_what_was_written(tmp_path, fits):
    file.write(tmp_path / "fits.npz", fits)
    again = file.read(tmp_path / "fits.npz")
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(again, name), getattr(fits, name))


def test_segment_girths_are_a_field_of_anisotropic_fits_alone(tmp_path, template, fits):
    file.write(tmp_path / "round.npz", fits)
    with np.load(tmp_path / "round.npz") as archive:
        assert "segment_girth" not in archive
    girth = np.linspace(0.9, 1.2, 48, dtype=np.float32).reshape(24, 2)
    wide = jax.tree.map(np.asarray, posed_people.parameters(1).replace(segment_girth=girth))
    file.write(tmp_path / "wide.npz", _one(wide, template))
    again = file.read(tmp_path / "wide.npz")
    np.testing.assert_array_equal(again.parameters.segment_girth, girth[None])
    start = file.starts_for(again, [(1, 1)], again.box_px)
    np.testing.assert_array_equal(start.segment_girth, girth[None])


def test_files_of_before_are_of_weak_cameras_and_the_template_s_girth(tmp_path, fits):
    file.write(tmp_path / "fits.npz", fits)
    with np.load(tmp_path / "fits.npz", allow_pickle=False) as archive:
        old = {name: archive[name] for name in archive.files if name not in ("focal_px", "principal_px", "girth")}
    np.savez(tmp_path / "old.npz", **old)
    again = file.read(tmp_path / "old.npz")
    assert np.isnan(again.focal_px).all() and again.principal_px.shape == (3, 2)
    assert (again.girth == 1).all() and again.girth.shape == (3,)


def test_errors_are_root_mean_squares_in_pixels(fits):
    """All points shifted by 0.04 of a crop of 100 px over [-1, 1]: 2 px."""
    assert fits.dense_error_px[0] < PX
    assert fits.dense_error_px[2] == pytest.approx(2.0, abs=PX)
    assert np.isnan(fits.keypoint_error_px[[0, 2]]).all()  # there are none
    masked = residuals.root_mean_square(np.array([[3.0, 4.0, 99.0]]), np.array([[1, 0.5, 0]]))
    assert masked == pytest.approx(12.5**0.5)


def test_joints_are_relative_to_the_pelvis_and_project_into_the_photograph(fits):
    np.testing.assert_allclose(fits.joints[0, 0], 0, atol=FLOAT32)
    crop = fits.camera_scale[0] * fits.joints[0, :, :2] + fits.translation[0]
    np.testing.assert_allclose(fits.joints_px[0], (crop + 1) * 50 + [10, 20], atol=PX)


def test_the_gauge_is_fixed_whatever_came_in(template):
    person = posed_people.parameters(1)
    large = person.replace(segment_scale=person.segment_scale * 1.3, camera_scale=person.camera_scale / 1.3)
    found = _one(large, template)
    np.testing.assert_allclose(np.log(found.segment_scale).mean(), 0, atol=FLOAT32)
    assert found.dense_error_px[0] < PX


def test_a_fit_that_is_not_finite_is_not_valid(template):
    person = posed_people.parameters(1)
    assert _one(person, template).valid[0]
    drifted = _one(person.replace(rotation=1.003 * person.rotation), template)
    assert drifted.valid[0] and np.allclose(drifted.rotation[0], person.rotation, atol=FLOAT32)
    mirrored = np.asarray(person.rotation) @ np.diag([1, 1, -1])
    for spoiled in (
        {"pose": person.pose * np.nan}, {"rotation": mirrored}, {"rotation": 2 * person.rotation},
        {"camera_scale": -person.camera_scale},
    ):  # fmt: skip
        assert not _one(person.replace(**spoiled), template).valid[0], spoiled
    observed = Observations(_stack(_observation(1)), np.ones((1, 4)), [1], [1], [""])
    assert not file.rows_of(observed, template, _stack(person), np.array([np.nan]))["valid"][0]


def test_starts_are_carried_into_another_crop(template, fits):
    box = np.array([[0.0, 0.0, 160.0, 160.0], [5.0, 5.0, 80.0, 80.0]])
    starts = file.starts_for(fits, [(2, 7), (1, 5)], box)
    for place, row in ((0, 2), (1, 0)):
        centre = (starts.translation[place] + 1) / 2 * box[place, 2] + box[place, :2]
        np.testing.assert_allclose(centre, fits.joints_px[row, 0], atol=PX)
        np.testing.assert_allclose(starts.camera_scale[place] * box[place, 2], fits.camera_scale[row] * 100, rtol=1e-6)
        np.testing.assert_array_equal(starts.pose[place], fits.pose[row])
    with pytest.raises(InputError, match="annotation_id 6"):  # its row is not valid
        file.starts_for(fits, [(1, 6)], box[:1])


def test_ids_may_be_names(tmp_path, template):
    people = _stack(posed_people.parameters(1), posed_people.parameters(2))
    observed = Observations(_stack(_observation(1), _observation(2)), np.ones((2, 4)), [1, "two"], ["a", 3], ["", ""])
    file.write(tmp_path / "fits.npz", FitRows(**file.rows_of(observed, template, people)))
    assert file.read(tmp_path / "fits.npz").image_id.tolist() == ["1", "two"]


def test_wrong_files_are_named(tmp_path, fits):
    path = tmp_path / "fits.npz"
    file.write(path, fits)
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:500])
    fits.pose = fits.pose[:, :22]
    file.write(tmp_path / "shape.npz", fits)
    np.savez(tmp_path / "other.npz", x=1)
    for name, field, spoilt in (
        ("text.npz", "box_px", fits.box_px.astype(str)), ("nan.npz", "translation", fits.translation * np.nan),
    ):  # fmt: skip
        file.write(tmp_path / name, dataclasses.replace(fits, pose=np.zeros((len(fits), 23, 3)), **{field: spoilt}))
    for name, told in (
        ("cut.npz", "not a readable"), ("absent.npz", "no such file"), ("other.npz", "is missing"),
        ("shape.npz", "'pose' has shape"), ("text.npz", "'box_px' holds <U.*, expected numbers with a fraction"),
        ("nan.npz", r"translation\[0\] is \[nan, nan\] in a row that is valid"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=told) as caught:
            file.read(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_parameters_are_the_bodys(fits):
    assert isinstance(fits.parameters, BodyParameters)
    assert fits.parameters.pose.shape == (3, 23, 3)
