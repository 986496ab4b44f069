"""Calibrated cameras of several views, from the files in which calibration programs leave them.

    our own JSON             a list of {name, K, R_world_to_camera, t_world_to_camera_m, distortion_k1k2p1p2k3, ...}
    Qualisys' QCA            XML, `.qca.txt`
    Pose2Sim, Anipose        TOML, a table a camera; fish eyes are refused
    OpenCV's YAML            `K_NAME`, `dist_NAME`, `Rot_NAME` or `R_NAME`, `T_NAME` (EasyMocap's names), in a file or
                             in the `.yml` files of a folder
    names alone              no file but cam01,cam02,cam03: nothing is known of these cameras but what photographs show
    Human3.6M                the release's metadata.xml, or JSON {intrinsics, extrinsics} of its four cameras; FILE:S1
                             names the subject

A file is recognised by its content. Lengths become metres: Qualisys and Human3.6M have millimetres, and so has a
file whose cameras would else stand more than 100 m apart (Anipose has the unit of its board).
"""

import dataclasses
import math
import pathlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
from absl import logging
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from dal_jax.observations import human36m_cameras
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError

_LARGEST = 10_000_000  # bytes
_APART = 100.0  # lengths between cameras that cannot be metres
_ROUNDED = 1e-3  # how far a rotation's rows may be from unit and orthogonal
_ITERATIONS = 20  # of the inverse of a lens


@dataclasses.dataclass(frozen=True)
class Camera:
    """A camera of full perspective in the calibration's world: Y = R X + t, metres, y down, z away.

    matrix: K, px. distortion: OpenCV's k1, k2, p1, p2, k3. rotation, translation: R and t.
    calibrated: whether any of these is known; if not, it has a weak-perspective camera of its own in every moment.
    """

    name: str
    matrix: Float[np.ndarray, "3 3"]
    distortion: Float[np.ndarray, "5"]
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    calibrated: bool = True

    @property
    def focal_px(self) -> float:
        """Focal length: the geometric mean of both axes'."""
        return math.sqrt(self.matrix[0, 0] * self.matrix[1, 1])

    @property
    def position(self) -> Float[np.ndarray, "3"]:
        """Where the camera stands in the world, metres."""
        return -self.rotation.T @ self.translation

    @property
    def extrinsics(self) -> Float[np.ndarray, "3 4"]:
        """[R | t]."""
        return np.column_stack([self.rotation, self.translation])

    def undistort(self, points_px: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 2"]:
        """Return pixels as a lens without distortion, square pixels of `focal_px` and no skew has them."""
        rays = self.rays(points_px)
        return rays * self.focal_px + self.matrix[:2, 2]

    def rays(self, points_px: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 2"]:
        """Return x and y of the directions, with z = 1, that pixels look along; by fixed point."""
        seen = np.asarray(points_px, np.float64) - self.matrix[:2, 2]
        y = seen[..., 1] / self.matrix[1, 1]
        seen = np.stack([(seen[..., 0] - self.matrix[0, 1] * y) / self.matrix[0, 0], y], axis=-1)
        plane = seen
        for _ in range(_ITERATIONS):
            radial, across = self._bend(plane)
            plane = (seen - across) / radial
        return plane

    def project(self, points: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 2"]:
        """Return the pixels of points of the world, the lens' distortion included."""
        camera = points @ self.rotation.T + self.translation
        plane = camera[..., :2] / camera[..., 2:]
        radial, across = self._bend(plane)
        return (plane * radial + across) @ self.matrix[:2, :2].T + self.matrix[:2, 2]

    def _bend(self, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the factor and the shift of Brown's model."""
        k1, k2, p1, p2, k3 = self.distortion
        x, y = plane[..., 0], plane[..., 1]
        square = x * x + y * y
        across = [2 * p1 * x * y + p2 * (square + 2 * x * x), p1 * (square + 2 * y * y) + 2 * p2 * x * y]
        return (1.0 + square * (k1 + square * (k2 + square * k3)))[..., None], np.stack(across, axis=-1)


def read(path: str | pathlib.Path) -> list[Camera]:
    """Read cameras, each with a name of its own; or take names that commas part for cameras without calibration.

    Raises:
      errors.InputError: missing, too large, of no known kind, or with an entry that cannot be; one line.
    """
    plain, subject = pathlib.Path(path), None
    if not plain.exists() and ":" in plain.name:
        name, _, subject = plain.name.rpartition(":")
        plain = plain.with_name(name)
    if not plain.exists() and "," in str(path):
        still = np.eye(3), np.zeros(5), np.eye(3), np.zeros(3)
        found = [Camera(name.strip(), *still, calibrated=False) for name in str(path).split(",")]
    else:
        found = list(_read(plain, subject))
    if len({camera.name for camera in found}) < len(found) or len(found) < 2 or not all(one.name for one in found):
        names = ", ".join(camera.name for camera in found) or "none"
        raise InputError(f"{path}: needs two cameras or more, each with a name of its own, it has {names}")
    places = np.array([camera.position for camera in found])
    if np.ptp(places, axis=0).max() > _APART:
        logging.warning("%s: cameras stand %.0f units apart: taken for millimetres", path, np.ptp(places, axis=0).max())
        found = [dataclasses.replace(one, translation=one.translation / 1000.0) for one in found]
    return found


def _read(path: pathlib.Path, subject: str | None) -> Iterator[Camera]:
    if path.is_dir():
        inside = sorted(each for each in path.iterdir() if each.suffix in (".yml", ".yaml"))
        if not inside:
            raise InputError(f"{path}: a folder of cameras has OpenCV's .yml files, this one has none")
        return _opencv(path, [_text(each) for each in inside])
    text = _text(path)
    start = text.lstrip()[:1]
    if start in ("[", "{") and not re.match(r"\[[^\[\]{}\"]+\]\s*$", text.lstrip().split("\n", 1)[0]):
        content = files.read_json(path)
        return _human36m(path, content, subject) if isinstance(content, dict) else _own(path, content)
    if start == "<":
        return _release(path, subject) if "<w0>" in text else _qualisys(path, text)
    if "opencv-matrix" in text:
        return _opencv(path, [text])
    try:
        return _toml(path, tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError):
        known = "our JSON, Qualisys' QCA, Pose2Sim's or Anipose's TOML, OpenCV's YAML, Human3.6M's metadata.xml or JSON"
        raise InputError(f"{path}: holds no cameras as {known}") from None


def _text(path: pathlib.Path) -> str:
    if path.exists() and path.stat().st_size > _LARGEST:
        raise InputError(f"{path}: has {path.stat().st_size} bytes; cameras have less than {_LARGEST}")
    return files.read_text(path)


def _camera(where: str, name: Any, matrix, distortion, rotation, translation) -> Camera:
    """Return a camera of what an entry says, checked; a rotation may be a matrix or a rotation vector."""
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: has no name")
    matrix, rotation = _array(where, "K", matrix, (3, 3)), np.asarray(_floats(where, "rotation", rotation))
    if rotation.size == 3:
        rotation = Rotation.from_rotvec(rotation.ravel()).as_matrix()
    rotation = _array(where, "rotation", rotation, (3, 3))
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > _ROUNDED or np.linalg.det(rotation) < 0:
        raise InputError(f"{where}: rotation {np.round(rotation, 4).tolist()} is none")
    coefficients = np.ravel(_floats(where, "distortion", distortion))
    if len(coefficients) > 5 and coefficients[5:].any():
        raise InputError(f"{where}: distortion has {len(coefficients)} coefficients; k1, k2, p1, p2, k3 are known")
    coefficients = np.pad(coefficients[:5], (0, max(0, 5 - len(coefficients))))
    if min(matrix[0, 0], matrix[1, 1]) <= 0:
        raise InputError(f"{where}: focal length {min(matrix[0, 0], matrix[1, 1])} is not positive")
    return Camera(name, matrix, coefficients, rotation, _array(where, "translation", translation, (3,)))


def _array(where: str, name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    found = np.asarray(_floats(where, name, values))
    if found.size != math.prod(shape):
        raise InputError(f"{where}: {name} has {found.size} numbers, not {math.prod(shape)}")
    return found.reshape(shape)


def _floats(where: str, name: str, values: Any) -> np.ndarray:
    try:
        found = np.asarray(values, np.float64)
    except (ValueError, TypeError):
        found = np.array(np.nan)
    if not np.isfinite(found).all():
        raise InputError(f"{where}: {name} is {str(values)[:60]}, not finite numbers")
    return found


def _field(where: str, entry: Any, *names: str) -> Any:
    for name in names:
        if isinstance(entry, dict) and name in entry:
            return entry[name]
    raise InputError(f"{where}: has no {names[0]}")


def _own(path: pathlib.Path, content: Any) -> Iterator[Camera]:
    for row, entry in enumerate(content):
        where = f"{path}: camera {row}"
        bent = entry.get("distortion_k1k2p1p2k3", [0.0] * 5) if isinstance(entry, dict) else []
        matrix, rotation = _field(where, entry, "K"), _field(where, entry, "R_world_to_camera")
        yield _camera(
            where, _field(where, entry, "name"), matrix, bent, rotation, _field(where, entry, "t_world_to_camera_m")
        )


def _human36m(path: pathlib.Path, content: dict, subject: str | None) -> Iterator[Camera]:
    placed, lenses = (_field(str(path), content, name) for name in ("extrinsics", "intrinsics"))
    if not isinstance(placed, dict) or subject not in placed:
        raise InputError(f"{path}: name the subject, as in {path}:S1; there is {', '.join(map(str, placed))}")
    for name, entry in placed[subject].items():
        where, lens = f"{path}: {subject}, camera {name}", _field(f"{path}: intrinsics", lenses, name)
        translation = _array(where, "t", _field(where, entry, "t"), (3,)) / 1000.0
        matrix, bent = (_field(where, lens, field) for field in ("calibration_matrix", "distortion"))
        yield _camera(where, name, matrix, bent, _field(where, entry, "R"), translation)


def _release(path: pathlib.Path, subject: str | None) -> Iterator[Camera]:
    """Yield the cameras of Human3.6M's metadata.xml.

    The release's lenses bend along the tangent by half of what OpenCV's do with the same numbers: at the border of a
    picture that is 0.2 px, which everybody neglects who takes them for OpenCV's.
    """
    lenses, placed = human36m_cameras.read_metadata(path)
    subjects = sorted({name for name, _ in placed}, key=lambda name: int(name[1:]))
    if subject not in subjects:
        raise InputError(f"{path}: name the subject, as in {path}:S1; there is {', '.join(subjects)}")
    for name, lens in lenses.items():
        (fx, fy), (cx, cy), stands = lens.focal_px, lens.centre_px, placed[subject, name]
        bent = [*lens.radial[:2], *lens.tangential, lens.radial[2]]
        matrix, where = [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], f"{path}: {subject}, camera {name}"
        yield _camera(where, name, matrix, bent, stands[:, :3], stands[:, 3] / 1000.0)


def _toml(path: pathlib.Path, content: dict) -> Iterator[Camera]:
    tables = {key: entry for key, entry in content.items() if isinstance(entry, dict) and "matrix" in entry}
    if not tables:
        raise InputError(f"{path}: has no table with the matrix of a camera")
    for key, entry in tables.items():
        where = f"{path}: [{key}]"
        if entry.get("fisheye"):
            raise InputError(f"{where}: is a fish eye, which is not known")
        bent, rotation = _field(where, entry, "distortions"), _field(where, entry, "rotation")
        yield _camera(
            where, entry.get("name", key), entry["matrix"], bent, rotation, _field(where, entry, "translation")
        )


def _qualisys(path: pathlib.Path, text: str) -> Iterator[Camera]:
    """Yield the cameras of a QCA: intrinsics in 64ths of a pixel, places in mm, y up and z towards the viewer."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can be made to fill the memory
        raise InputError(f"{path}: declares a document type, which a QCA does not")
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: is no XML: {error}") from error
    for entry in root.iterfind("cameras/camera"):
        where = f"{path}: camera {entry.get('serial')}"

        def numbers(tag: str, *names: str, where=where, entry=entry) -> np.ndarray:
            found = entry.find(tag)
            values = [None if found is None else found.get(name) for name in names]
            return _floats(where, f"{tag} {' '.join(names)}", values)

        corner = numbers("fov_video", "left", "top")
        focal = numbers("intrinsic", "focalLengthU", "focalLengthV") / 64.0
        centre = numbers("intrinsic", "centerPointU", "centerPointV") / 64.0 - corner
        matrix = [[focal[0], 0.0, centre[0]], [0.0, focal[1], centre[1]], [0.0, 0.0, 1.0]]
        radial = [f"radialDistortion{k}" for k in (1, 2, 3)]
        k1, k2, k3, p1, p2 = numbers("intrinsic", *radial, "tangentalDistortion1", "tangentalDistortion2")
        turned = numbers("transform", *(f"r{row}{column}" for row in "123" for column in "123")).reshape(3, 3)
        rotation = np.diag([1.0, -1.0, -1.0]) @ turned
        place = numbers("transform", "x", "y", "z") / 1000.0
        yield _camera(where, entry.get("serial"), matrix, [k1, k2, p1, p2, k3], rotation, -rotation @ place)


def _opencv(path: pathlib.Path, texts: Iterable[str]) -> Iterator[Camera]:
    import yaml

    content: dict[str, Any] = {}
    for text in texts:
        plain = re.sub(r"\A%YAML[: ]1\.\d\s*(?:---)?", "", text.lstrip()).replace("!!opencv-matrix", "")
        try:
            loaded = yaml.safe_load(plain)
        except (yaml.YAMLError, RecursionError) as error:
            raise InputError(f"{path}: is no YAML: {str(error)[:200]}") from error
        content |= loaded if isinstance(loaded, dict) else {}

    def matrix(where: str, *names: str) -> Any:
        return _field(where, _field(where, content, *names), "data")

    names = [key[2:] for key in content if str(key).startswith("K_")]
    if not names:
        raise InputError(f"{path}: has no matrices K_NAME of cameras")
    for name in names:
        where = f"{path}: camera {name}"
        bent = matrix(where, f"dist_{name}", f"D_{name}")
        rotation = matrix(where, f"Rot_{name}", f"R_{name}")
        yield _camera(where, name, matrix(where, f"K_{name}"), bent, rotation, matrix(where, f"T_{name}"))
