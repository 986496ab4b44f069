"""Human3.6M's four cameras: where each stood for a subject, and its lens, distorted along the radius and across it."""

import pathlib
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

NAMES = ("54138969", "55011271", "58860488", "60457274")
SUBJECTS = 11

_ITERATIONS = 30  # of the inverse of the lens: to 1e-12 anywhere in the picture
_SETTLED = 1e-14  # of the plane at z = 1: far below what a pixel is
_POSES = 6 * len(NAMES) * SUBJECTS  # numbers of `w0` that say where cameras stood: 3 angles and a place each
_LENSES = 9 * len(NAMES)  # the rest: focal lengths, principal point, 3 radial and 2 tangential coefficients


class Lens(NamedTuple):
    """How a camera's frame (x right, y down, z away) becomes pixels; the same for every subject."""

    focal_px: Float[np.ndarray, "2"]
    centre_px: Float[np.ndarray, "2"]
    radial: Float[np.ndarray, "3"]
    tangential: Float[np.ndarray, "2"]

    @property
    def intrinsics_px(self) -> Float[np.ndarray, "4"]:
        """Focal lengths and principal point: fx, fy, cx, cy."""
        return np.concatenate([self.focal_px, self.centre_px])

    def project(self, points_camera: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 2"]:
        """Return the pixels of points before the camera, in any unit of length."""
        plane = points_camera[..., :2] / points_camera[..., 2:]
        return self._distort(plane) * self.focal_px + self.centre_px

    def rays(self, points_px: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 3"]:
        """Return the directions, with z = 1, that pixels look along: the inverse of `project`, by fixed point."""
        distorted = (np.asarray(points_px, np.float64) - self.centre_px) / self.focal_px
        plane = distorted
        for _ in range(_ITERATIONS):
            factor, shift = self._bend(plane)
            before, plane = plane, (distorted - shift) / factor
            if np.all(np.abs(plane - before) < _SETTLED):
                break
        return np.concatenate([plane, np.ones_like(plane[..., :1])], axis=-1)

    def _distort(self, plane: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 2"]:
        factor, shift = self._bend(plane)
        return plane * factor + shift

    def _bend(self, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the factor and the shift of the release's own model (H36MCamera, ProjectPointRadial).

        Its tangential factor is p1 y + p2 x, where OpenCV's has twice that.
        """
        x, y = plane[..., 0], plane[..., 1]
        squared = x * x + y * y
        radial = 1.0 + squared * (self.radial[0] + squared * (self.radial[1] + squared * self.radial[2]))
        factor = radial + self.tangential[0] * y + self.tangential[1] * x
        return factor[..., None], squared[..., None] * self.tangential[::-1]


Extrinsics = Float[np.ndarray, "3 4"]
"""Where a camera stood for one subject, [R | t]: world (the release's: mm, z up) to camera is R x + t."""


def to_camera(extrinsics: Extrinsics, world: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
    """Return world points in the camera's frame."""
    return world @ extrinsics[:, :3].T + extrinsics[:, 3]


def published() -> dict[str, Lens]:
    """Return the lenses by camera as they are published, for archives without `metadata.xml`.

    The numbers are those of the release's metadata.xml, rounded to 9 decimals (1e-6 px); they are printed in many
    papers' code, for instance in github.com/karfly/human36m-camera-parameters.
    """
    rows = np.array(_PUBLISHED)
    return {name: _lens(row) for name, row in zip(NAMES, rows, strict=True)}


def read_metadata(path: pathlib.Path) -> tuple[dict[str, Lens], dict[tuple[str, str], Extrinsics]]:
    """Return (lenses by camera, extrinsics by subject and camera) of the release's `metadata.xml`.

    `w0` holds 300 numbers, `dbcameras/index2id` the names of the cameras.

    Raises:
      errors.InputError: the file is missing, is no such XML, or has other cameras; one line that names file and entry.
    """
    root = _parse(path)
    names = [element.text or "" for element in root.findall("dbcameras/index2id/*")]
    if sorted(names) != sorted(NAMES):
        raise InputError(f"{path}: dbcameras/index2id names {', '.join(names) or 'nothing'}, not the cameras")
    numbers = _numbers(path, root.findtext("w0"))
    poses = numbers[:_POSES].reshape(len(NAMES), SUBJECTS, 6)
    lenses = numbers[_POSES:].reshape(len(NAMES), 9)
    extrinsics = {
        (f"S{subject + 1}", name): _extrinsics(poses[row, subject])
        for row, name in enumerate(names)
        for subject in range(SUBJECTS)
    }
    return {name: _lens(lenses[row]) for row, name in enumerate(names)}, extrinsics


def _parse(path: pathlib.Path) -> ElementTree.Element:
    try:
        content = door.contents(path, 1 << 24)
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # entities can be made to fill the memory
            raise InputError(f"{path}: declares a document type, which the release's metadata.xml does not")
        return ElementTree.fromstring(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no XML: {error}") from error


def _numbers(path: pathlib.Path, text: str | None) -> Float[np.ndarray, "300"]:
    words = (text or "").strip().strip("[]").replace(",", " ").split()
    if len(words) != _POSES + _LENSES:
        raise InputError(f"{path}: w0 has {len(words)} numbers, not {_POSES + _LENSES}")
    for place, word in enumerate(words):
        try:
            finite = np.isfinite(float(word))
        except ValueError:
            finite = False
        if not finite:
            raise InputError(f"{path}: w0[{place}] is '{word[:40]}', not a finite number")
    return np.array(words, np.float64)


def _lens(row: Float[np.ndarray, "9"]) -> Lens:
    return Lens(row[:2], row[2:4], row[4:7], row[7:9])


def _extrinsics(pose: Float[np.ndarray, "6"]) -> Extrinsics:
    """Return R and t of the release's numbers: the angles of R = X Y Z, and the camera's position in the world."""
    rotation = Rotation.from_euler("XYZ", pose[:3]).as_matrix()
    return np.concatenate([rotation, -rotation @ pose[3:, None]], axis=1)


# fx, fy, cx, cy, k1, k2, k3, p1, p2 of each camera, in the order of NAMES
_PUBLISHED = (
    (1145.049404588, 1143.781095724, 512.541504957, 515.451486978,
     -0.207098911, 0.247775183, -0.003075150, -0.001424472, -0.000975699),
    (1149.675699868, 1147.591616668, 508.848621646, 508.064917089,
     -0.194213630, 0.240408539, 0.006819976, -0.002740894, -0.001619027),
    (1149.140716761, 1148.798968568, 519.815837182, 501.402658889,
     -0.208338188, 0.255488007, -0.002460497, -0.000759999, 0.001484387),
    (1145.511338423, 1144.773928077, 514.968197320, 501.882018538,
     -0.198384094, 0.218323676, -0.008947807, -0.001813362, -0.000587206),
)  # fmt: skip
