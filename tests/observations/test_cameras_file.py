"""Calibration files: every kind says the same of the same cameras, and bad ones are named in a line."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.observations import cameras_file
from dal_jax.observations.cameras_file import Camera
from dal_jax.runtime.errors import InputError
from tests.observations import annotation_files

SAME = 1e-6  # of numbers that were written as text


def rig() -> list[Camera]:
    """Return three cameras with lenses that bend, four metres from the origin."""
    cameras = []
    for number in range(3):
        rotation = Rotation.from_euler("xyz", [0.1 * number, 2.0 * number, 0.2]).as_matrix()
        matrix = np.array([[1600.0 + number, 0.0, 540.0], [0.0, 1590.0, 960.0 - number], [0.0, 0.0, 1.0]])
        bent = np.array([-0.05, 0.1, 6e-4, 7e-4, 0.01])
        cameras.append(Camera(f"cam0{number}", matrix, bent, rotation, np.array([0.1 * number, 0.2, 4.0])))
    return cameras


def own(cameras: list[Camera]) -> str:
    """Return our own JSON."""
    return json.dumps([
        {
            "name": one.name, "K": one.matrix.tolist(), "distortion_k1k2p1p2k3": one.distortion.tolist(),
            "R_world_to_camera": one.rotation.tolist(), "t_world_to_camera_m": one.translation.tolist(),
        }
        for one in cameras
    ])  # fmt: skip


def _toml(cameras: list[Camera]) -> str:
    tables = [
        f"[{one.name}_table]\nname = '{one.name}'\nsize = [1080, 1920]\nmatrix = {one.matrix.tolist()}\n"
        f"distortions = {one.distortion.tolist()}\nfisheye = false\n"
        f"rotation = {Rotation.from_matrix(one.rotation).as_rotvec().tolist()}\n"
        f"translation = {one.translation.tolist()}\n"
        for one in cameras
    ]
    return "\n".join([*tables, "[metadata]\nerror = 0.0\n"])


def _qualisys(cameras: list[Camera]) -> str:
    entries = []
    for one in cameras:
        turned, place = np.diag([1.0, -1.0, -1.0]) @ one.rotation, 1000 * one.position
        attributes = " ".join(f'r{i + 1}{j + 1}="{turned[i, j]!r}"' for i in range(3) for j in range(3))
        lens = {
            "focalLengthU": 64 * one.matrix[0, 0], "focalLengthV": 64 * one.matrix[1, 1],
            "centerPointU": 64 * (one.matrix[0, 2] + 8), "centerPointV": 64 * one.matrix[1, 2],
            "radialDistortion1": one.distortion[0], "radialDistortion2": one.distortion[1],
            "radialDistortion3": one.distortion[4], "tangentalDistortion1": one.distortion[2],
            "tangentalDistortion2": one.distortion[3],
        }  # fmt: skip
        lens = " ".join(f'{name}="{float(value)!r}"' for name, value in lens.items())
        entries.append(
            f'<camera serial="{one.name}"><fov_video left="8" top="0" right="1087" bottom="1919"/>'
            f'<transform {attributes} x="{place[0]!r}" y="{place[1]!r}" z="{place[2]!r}"/><intrinsic {lens}/></camera>'
        )
    text = f"<?xml version='1.0'?><calibration><cameras>{''.join(entries)}</cameras></calibration>"
    return text.replace("np.float64(", "").replace(')"', '"')


def _opencv(cameras: list[Camera]) -> str:
    def matrix(name, values):
        rows, columns = np.atleast_2d(values).shape
        data = ", ".join(repr(float(value)) for value in np.ravel(values))
        return f"{name}: !!opencv-matrix\n  rows: {rows}\n  cols: {columns}\n  dt: d\n  data: [{data}]\n"

    parts = ["%YAML:1.0\n---\nnames:\n", *(f'  - "{one.name}"\n' for one in cameras)]
    for one in cameras:
        parts += [matrix(f"K_{one.name}", one.matrix), matrix(f"dist_{one.name}", one.distortion)]
        parts += [matrix(f"Rot_{one.name}", one.rotation), matrix(f"T_{one.name}", one.translation[:, None])]
    return "".join(parts)


def _human36m(cameras: list[Camera]) -> str:
    placed = {
        one.name: {"R": one.rotation.tolist(), "t": (1000 * one.translation[:, None]).tolist()} for one in cameras
    }
    lenses = {
        one.name: {"calibration_matrix": one.matrix.tolist(), "distortion": one.distortion.tolist()} for one in cameras
    }
    return json.dumps({"extrinsics": {"S1": placed}, "intrinsics": lenses})


@pytest.mark.parametrize("write", [own, _toml, _qualisys, _opencv, _human36m])
def test_every_kind_of_file_has_the_same_cameras(tmp_path, write):
    path = tmp_path / "calibration.txt"
    path.write_text(write(rig()))
    found = cameras_file.read(f"{path}:S1" if write is _human36m else path)
    for one, true in zip(found, rig(), strict=True):
        assert one.name == true.name
        for name in ("matrix", "distortion", "rotation", "translation"):
            np.testing.assert_allclose(getattr(one, name), getattr(true, name), atol=SAME, rtol=SAME)


def test_rays_are_what_the_lens_projects():
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    for one in rig():
        camera = points @ one.rotation.T + one.translation
        np.testing.assert_allclose(one.rays(one.project(points)), camera[:, :2] / camera[:, 2:], atol=SAME)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing at all", "holds no cameras as"),
        (own(rig()[:1]), "needs two cameras or more"),
        (own(rig()).replace('"K"', '"k"', 1), "camera 0: has no K"),
        (own(rig()).replace("1600.0", "NaN"), "camera 0: K is"),
        (_toml(rig()).replace("fisheye = false", "fisheye = true"), "is a fish eye"),
        (_toml(rig()).replace("rotation = [", "rotation = [1.0, "), "rotation has 4 numbers, not 9"),
        (_qualisys(rig()).replace("<?xml version='1.0'?>", "<!DOCTYPE a>"), "declares a document type"),
        (_opencv(rig()).replace("T_cam01", "U_cam01"), "camera cam01: has no T_cam01"),
        (_human36m(rig()), "name the subject"),
    ],
)  # fmt: skip
def test_what_is_no_camera_is_named(tmp_path, text, said):
    path = tmp_path / "calibration"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as raised:
        cameras_file.read(path)
    assert str(path) in str(raised.value)


@annotation_files.needs_real_data
def test_real_cameras_look_at_the_person_they_recorded():
    folder = annotation_files.real("several_cameras")
    cameras = cameras_file.read(folder / "cameras.json")
    with np.load(folder / "triangulated.npz") as archive:
        joints = archive["joints_m"]
    for one in cameras:
        pixels = one.project(joints[np.isfinite(joints).all(axis=-1)])
        assert ((pixels > 0) & (pixels < (1088, 1920))).all()
