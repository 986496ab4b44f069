"""The cameras: inverse laws, the release's own formulas once more in plain Python, and what is wrong with a file."""

import numpy as np
import pytest

from dal_jax.observations import cameras_file, human36m_cameras as cameras
from dal_jax.runtime.errors import InputError
from tests.data.human36m import release

INVERSE_PX = 1e-9
PUBLISHED = cameras.published()


@pytest.mark.parametrize("name", cameras.NAMES)
def test_rays_undo_the_lens(name):
    """Beyond the picture's border, too: a crop reaches over it."""
    lens = PUBLISHED[name]
    points_px = np.stack(np.meshgrid(np.linspace(-150, 1150, 14), np.linspace(-150, 1150, 14)), axis=-1)
    rays = lens.rays(points_px)
    assert rays[..., 2] == pytest.approx(1.0)
    assert lens.project(rays) == pytest.approx(points_px, abs=INVERSE_PX)
    assert lens.project(7.3 * rays) == pytest.approx(points_px, abs=INVERSE_PX)


def _project_one(lens, point):
    """Project as the release's ProjectPointRadial does, number by number."""
    x, y = point[0] / point[2], point[1] / point[2]
    r2 = x * x + y * y
    radial = 1 + lens.radial[0] * r2 + lens.radial[1] * r2**2 + lens.radial[2] * r2**3
    tangential = lens.tangential[0] * y + lens.tangential[1] * x
    x, y = (
        x * (radial + tangential) + lens.tangential[1] * r2,
        y * (radial + tangential) + lens.tangential[0] * r2,
    )
    return [lens.focal_px[0] * x + lens.centre_px[0], lens.focal_px[1] * y + lens.centre_px[1]]


def test_the_lens_is_the_releases():
    lens = PUBLISHED["55011271"]
    points = np.random.default_rng(0).uniform([-1500, -1500, 3000], [1500, 1500, 6000], (20, 3))
    assert lens.project(points) == pytest.approx(np.array([_project_one(lens, point) for point in points]), abs=1e-9)
    straight = lens.focal_px * points[:, :2] / points[:, 2:] + lens.centre_px
    assert np.abs(lens.project(points) - straight).max() > 5, "the distortion can be seen"


def _x_y_z(angles):
    """Return R = X Y Z, as the release's own code writes it."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return x @ y @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])


def test_metadata_tells_every_subject_and_camera(tmp_path):
    poses, lenses = release.camera_numbers()
    lens, extrinsics = cameras.read_metadata(release.write_metadata(tmp_path / "metadata.xml"))
    assert len(extrinsics) == 44
    for row, name in enumerate(cameras.NAMES):
        assert lens[name].focal_px.tolist() == lenses[row, :2].tolist()
        assert lens[name].tangential.tolist() == lenses[row, 7:].tolist()
        for subject in (1, 11):
            camera, pose = extrinsics[f"S{subject}", name], poses[row, subject - 1]
            assert camera[:, :3] == pytest.approx(_x_y_z(pose[:3]), abs=1e-12)
            assert cameras.to_camera(camera, pose[3:]) == pytest.approx(np.zeros(3), abs=1e-9)
            middle = np.array([0.0, 0.0, 900.0])
            assert cameras.to_camera(camera, middle)[2] > 3000, "the laboratory is before the camera"


def test_cameras_in_another_order_are_told_apart(tmp_path):
    path = release.write_metadata(tmp_path / "metadata.xml", names=cameras.NAMES[::-1])
    _, lenses = release.camera_numbers()
    assert cameras.read_metadata(path)[0]["54138969"].focal_px.tolist() == lenses[3, :2].tolist()


def _replaced(old, new):
    def damage(path):
        path.write_text(path.read_text().replace(old, new, 1))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.write_text("<metadata>"), "is no XML: no element found"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is no XML"),
        (_replaced("<metadata>", "<!DOCTYPE a [<!ENTITY b 'c'>]><metadata>"), "declares a document type"),
        (_replaced("55011271", "55011272"), "index2id names 54138969, 55011272,"),
        (_replaced("<w0>[", "<w0>[1 "), "w0 has 301 numbers, not 300"),
        (_replaced("<w0>[", "<w0>[x"), "w0[0] is 'x"),
        (_replaced("<w0>", "<w1>"), "is no XML: mismatched tag"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, damage, message):
    path = release.write_metadata(tmp_path / "metadata.xml")
    damage(path)
    with pytest.raises(InputError) as caught:
        cameras.read_metadata(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_subjects_cameras_stand_where_the_release_has_them(tmp_path):
    """In metres; a point is where the release's lens has it, but for what OpenCV's bends more along the tangent."""
    path = release.write_metadata(tmp_path / "metadata.xml")
    lenses, placed = cameras.read_metadata(path)
    points_mm = np.random.default_rng(1).uniform([-800, -800, 0], [800, 800, 1800], (20, 3))
    found = cameras_file.read(f"{path}:S5")
    assert [one.name for one in found] == list(cameras.NAMES)
    for one in found:
        expected = lenses[one.name].project(cameras.to_camera(placed["S5", one.name], points_mm))
        np.testing.assert_allclose(one.project(points_mm / 1000), expected, atol=0.2)
    with pytest.raises(InputError, match=r"name the subject, as in .*metadata.xml:S1; there is S1, S2"):
        cameras_file.read(path)
