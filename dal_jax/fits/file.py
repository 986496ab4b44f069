"""fits.npz: people with bodies, one row each, on disk."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dal_jax.body import cameras, kinematics, skinning
from dal_jax.body.cameras import Pinhole
from dal_jax.body.kinematics import BodyParameters, fix_gauge
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.moments import Moments
from dal_jax.observations.observation import Observation, crop_from_px, px_from_crop
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import AnnotatedPerson, Rejected
from dal_jax.registration.views import Together
from dal_jax.runtime import door, files, programs
from dal_jax.runtime.errors import InputError


@dataclasses.dataclass(eq=False)
class FitRows:
    """Rows of `fits.npz` (NumPy), one an entry of the annotation.

    A row that is not `valid` holds NaN; so do errors and energies that were not measured.

    image_id, annotation_id, file_name: the annotation's own.
    pose: axis-angle, radians; segment_scale: mean log 0; rotation: body to camera.
    camera_scale, translation: in the crop's [-1, 1] (eq. 1). box_px: x, y, width, height of the square crop.
    bbox_px: the annotation's own box.
    focal_px, principal_px: of a camera of full perspective, in the photograph; NaN: weak perspective.
    girth: of trunk and limbs over the template's; 1 where it was no unknown.
    segment_girth: of anisotropic scales alone, how much wider than long each segment is along its two girth axes; else
      None, and no field of the file.
    joints, joints_h36m: camera axes, relative to the pelvis, metres; joints_px: in the photograph.
    dense_error_px: root mean square over the dense points; keypoint_error_px: the same over the key points.
    converged: true of what was predicted and not registered.
    """

    image_id: np.ndarray
    annotation_id: np.ndarray
    file_name: np.ndarray
    valid: Bool[np.ndarray, "n"]
    pose: Float[np.ndarray, "n 23 3"]
    segment_scale: Float[np.ndarray, "n 24"]
    rotation: Float[np.ndarray, "n 3 3"]
    camera_scale: Float[np.ndarray, "n"]
    translation: Float[np.ndarray, "n 2"]
    box_px: Float[np.ndarray, "n 4"]
    bbox_px: Float[np.ndarray, "n 4"]
    joints: Float[np.ndarray, "n 24 3"]
    joints_h36m: Float[np.ndarray, "n 17 3"]
    joints_px: Float[np.ndarray, "n 24 2"]
    dense_error_px: Float[np.ndarray, "n"]
    keypoint_error_px: Float[np.ndarray, "n"]
    energy: Float[np.ndarray, "n"]
    converged: Bool[np.ndarray, "n"]
    focal_px: Float[np.ndarray, "n"]
    principal_px: Float[np.ndarray, "n 2"]
    girth: Float[np.ndarray, "n"]
    segment_girth: Float[np.ndarray, "n 24 2"] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.valid)

    @property
    def parameters(self) -> BodyParameters:
        """The rows as batched body parameters."""
        return BodyParameters(**{name: getattr(self, name) for name in _PARAMETERS})


_SHAPES = {
    "image_id": (), "annotation_id": (), "file_name": (), "valid": (), "pose": (23, 3), "segment_scale": (24,),
    "rotation": (3, 3), "camera_scale": (), "translation": (2,), "box_px": (4,), "bbox_px": (4,), "joints": (24, 3),
    "joints_h36m": (17, 3), "joints_px": (24, 2), "dense_error_px": (), "keypoint_error_px": (), "energy": (),
    "converged": (), "focal_px": (), "principal_px": (2,), "girth": (),
}  # fmt: skip
_OPTIONAL = {"segment_girth": (24, 2)}
_PARAMETERS = tuple(field.name for field in dataclasses.fields(BodyParameters))


def rows_of(
    observations: Observations,
    template: Template,
    parameters: BodyParameters,
    energy: Float[np.ndarray, "k"] | float = np.nan,
    converged: Bool[np.ndarray, "k"] | bool = True,
) -> dict[str, np.ndarray]:
    """Return the fields of rows for people with these bodies (stacked).

    A row is valid where body, camera, joints and the energies that are given are finite, the rotation is proper and the
    scale is above zero.
    """
    observation, count = observations.stacked, len(observations)
    girth = np.ones(count, np.float32) if parameters.girth is None else parameters.girth
    parameters = jax.tree.map(np.asarray, _fixed_gauge(dataclasses.replace(parameters, girth=girth)))
    parameters = dataclasses.replace(parameters, rotation=_without_drift(np.asarray(parameters.rotation)))
    joints, joints_h36m, joints_crop = _joints(template, parameters, observation.pinhole)
    dense, keypoint = residuals.errors_px(template, parameters, observation)
    numbers = [*jax.tree.leaves(parameters), joints, joints_h36m, joints_crop, observation.box_px]
    finite = [np.isfinite(np.asarray(leaf)).reshape(count, -1).all(axis=1) for leaf in numbers]
    finite += [_is_proper(np.asarray(parameters.rotation)), np.asarray(parameters.camera_scale) > 0]
    finite += [np.isfinite(np.asarray(energy))] * bool(np.ndim(energy))  # one number: of what was not registered
    return {
        "image_id": _ids(observations.image_id),
        "annotation_id": _ids(observations.annotation_id),
        "file_name": np.array(observations.file_name, np.str_),
        "valid": np.logical_and.reduce(finite),
        **{name: value for name in _PARAMETERS if (value := getattr(parameters, name)) is not None},
        "box_px": np.asarray(observation.box_px, np.float32),
        "bbox_px": np.asarray(observations.bbox_px, np.float32),
        "joints": np.asarray(joints),
        "joints_h36m": np.asarray(joints_h36m),
        "joints_px": np.asarray(px_from_crop(np.asarray(joints_crop), np.asarray(observation.box_px))),
        "dense_error_px": residuals.root_mean_square(dense, observation.point_confidence),
        "keypoint_error_px": residuals.root_mean_square(keypoint, observation.keypoint_confidence),
        "energy": np.broadcast_to(np.asarray(energy, np.float32), count).copy(),
        "converged": np.broadcast_to(converged, count).copy(),
        **_camera(observation),
    }


def _is_proper(rotation: Float[np.ndarray, "k 3 3"], most: float = 1e-3) -> Bool[np.ndarray, "k"]:
    """Return which matrices are rotations: orthonormal to `most` (of files written with few digits), determinant 1."""
    with np.errstate(over="ignore", invalid="ignore"):  # of a file: infinity is no rotation
        gap = np.abs(rotation @ np.swapaxes(rotation, 1, 2) - np.eye(3)).max(axis=(1, 2))
        determinant = np.sum(np.cross(rotation[:, 0], rotation[:, 1]) * rotation[:, 2], axis=1)
    return (gap < most) & (determinant > 0)


def _without_drift(rotation: Float[np.ndarray, "k 3 3"]) -> Float[np.ndarray, "k 3 3"]:
    """Return the nearest rotations: turned step by step through a degenerate problem, one drifts by thousandths."""
    drifted = _is_proper(rotation, _DRIFT) & ~_is_proper(rotation, _FLOAT32)
    if not drifted.any():
        return rotation
    left, _, right = np.linalg.svd(rotation[drifted].astype(np.float64))
    mended = rotation.copy()
    mended[drifted] = left @ right
    return mended


_DRIFT, _FLOAT32 = 0.1, 1e-5


def _camera(observation: Observation) -> dict[str, np.ndarray]:
    """Return the photograph's camera of stacked people, NaN where it is weak."""
    count, pinhole = len(observation.box_px), observation.pinhole
    if pinhole is None:
        return {"focal_px": np.full(count, np.nan, np.float32), "principal_px": np.full((count, 2), np.nan, np.float32)}
    box = np.asarray(observation.box_px, np.float32)
    centre = np.asarray(px_from_crop(np.asarray(pinhole.centre)[:, None], box))[:, 0]
    return {"focal_px": np.asarray(pinhole.focal) * box[:, 2] / 2.0, "principal_px": centre}


def spread(fields: dict[str, np.ndarray], entries: Sequence[AnnotatedPerson | Rejected]) -> dict[str, np.ndarray]:
    """Return fields with a row for every entry of the annotation: NaN and not valid for those that were rejected."""
    taken = np.array([isinstance(entry, AnnotatedPerson) for entry in entries])
    result = {
        "image_id": _ids([entry.image_id for entry in entries]),
        "annotation_id": _ids([entry.annotation_id for entry in entries]),
        "file_name": np.array([entry.file_name for entry in entries], np.str_),
    }
    for name, values in fields.items():
        if name not in result:
            missing = False if values.dtype == bool else np.nan
            result[name] = np.full((len(entries), *values.shape[1:]), missing, values.dtype)
            result[name][taken] = values
    return result


def starts_for(
    fits: FitRows,
    identity: Sequence[tuple[int | str, int | str]],
    box_px: Float[np.ndarray, "k 4"],
) -> BodyParameters:
    """Return earlier fits of the same people, as starts in their present crops.

    Args:
      identity: (image_id, annotation_id) of each person.
      box_px: the square crops to start in; where they differ from the file's, the camera is carried over.

    Raises:
      errors.InputError: a person has no valid row.
    """
    known = zip(fits.image_id.tolist(), fits.annotation_id.tolist(), fits.valid.tolist(), strict=True)
    row_of = {(str(image), str(annotation)): row for row, (image, annotation, valid) in enumerate(known) if valid}
    rows = []
    for image, annotation in identity:
        if (str(image), str(annotation)) not in row_of:
            raise InputError(f"no valid row for image_id {image}, annotation_id {annotation}")
        rows.append(row_of[str(image), str(annotation)])
    found = jax.tree.map(lambda leaf: leaf[rows], fits.parameters)
    centre_px = px_from_crop(found.translation[:, None], fits.box_px[rows])
    return found.replace(
        camera_scale=found.camera_scale * fits.box_px[rows, 2] / box_px[:, 2],
        translation=crop_from_px(centre_px, box_px)[:, 0],
    )


def write(path: str | pathlib.Path, fits: FitRows, extra: dict[str, np.ndarray] | None = None) -> None:
    """Write the file whole or not at all; `extra` are more fields, which `read` passes over."""
    fields = {name: getattr(fits, name) for name in (*_SHAPES, *_OPTIONAL) if getattr(fits, name) is not None}
    files.savez(path, **fields, **(extra or {}))


def read(path: str | pathlib.Path) -> FitRows:
    """Read and check a file.

    Raises:
      errors.InputError: missing, no .npz, or a field is missing or misshaped.
    """
    fields = door.read_npz(path, (*_SHAPES, *_OPTIONAL))
    if "image_id" in fields:  # files of before had weak cameras and the template's girth alone
        for name, value in (("focal_px", np.nan), ("principal_px", np.nan), ("girth", 1.0)):
            fields.setdefault(name, np.full((fields["image_id"].size, *_SHAPES[name]), value, np.float32))
    for name, shape in (_SHAPES | _OPTIONAL).items():
        if name not in fields:
            if name in _OPTIONAL:
                continue
            raise InputError(f"{path}: field '{name}' is missing")
        count = len(fields["image_id"]) if fields["image_id"].ndim else 0
        if fields[name].shape != (count, *shape):
            raise InputError(f"{path}: field '{name}' has shape {fields[name].shape}, not {(count, *shape)}")
        kinds = _KINDS.get(name, "f")
        if fields[name].dtype.kind not in kinds:
            raise InputError(f"{path}: field '{name}' holds {fields[name].dtype}, expected {_CALLED[kinds]}")
    for name in (one for one in _FINITE if one in fields):
        wrong = fields["valid"] & ~np.isfinite(fields[name].reshape(count, -1)).all(axis=1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(f"{path}: {name}[{row}] is {fields[name][row].tolist()} in a row that is valid")
    for name, good in (("rotation", _is_proper(fields["rotation"])), ("camera_scale", fields["camera_scale"] > 0)):
        if (fields["valid"] & ~good).any():
            row = int(np.argmax(fields["valid"] & ~good))
            raise InputError(f"{path}: {name}[{row}] is {fields[name][row].tolist()} in a row that is valid")
    return FitRows(**fields)


_KINDS = {"image_id": "iU", "annotation_id": "iU", "file_name": "U", "valid": "b", "converged": "b"}
_CALLED = {"iU": "numbers or names", "U": "names", "b": "true or false", "f": "numbers with a fraction"}
_FINITE = (*_PARAMETERS, "box_px")


def _ids(values: list[int | str]) -> np.ndarray:
    if all(isinstance(value, int) for value in values):
        return np.array(values, np.int64)
    return np.array([str(value) for value in values], np.str_)


_fixed_gauge = programs.kept(fix_gauge)


@programs.kept
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def _joints(
    template: Template, parameters: BodyParameters, pinhole: Pinhole | None
) -> tuple[Float[Array, "24 3"], Float[Array, "17 3"], Float[Array, "24 2"]]:
    segments = kinematics.pose_segments(template, parameters)
    projected = cameras.project(segments.position, parameters.camera_scale, parameters.translation, pinhole)
    return segments.position, skinning.h36m_joints(template, segments), projected


# --- What fits say about the camera's own frame once its focal length is known: extra fields of fits.npz ---


def in_camera(fits: FitRows, intrinsics_px: Float[np.ndarray, "n 4"]) -> dict[str, np.ndarray]:
    """Return `joints_camera` (n, 24, 3), `joints_h36m_camera` (n, 17, 3), `rotation_camera` (n, 3, 3), `intrinsics_px`.

    Joints stand at their distance from the camera, metres; the rotation is body to camera. Both are turned by the ray
    through the crop's centre. The distance is that of a body of the size which segment scales of mean log 0 have.

    Args:
      intrinsics_px: fx, fy, cx, cy of each row's photograph.
    """
    intrinsics_px = np.asarray(intrinsics_px, np.float32)
    camera = (fits.camera_scale, fits.translation, fits.box_px, intrinsics_px)
    return {
        "joints_camera": np.asarray(_placed(fits.joints, *camera)),
        "joints_h36m_camera": np.asarray(_placed(fits.joints_h36m, *camera)),
        "rotation_camera": np.asarray(_turned(fits.rotation, fits.box_px, intrinsics_px)),
        "intrinsics_px": intrinsics_px,
    }


_placed = programs.kept(jax.vmap(cameras.camera_from_crop))


@programs.kept
@jax.vmap
def _turned(
    rotation: Float[Array, "3 3"], box_px: Float[Array, "4"], intrinsics_px: Float[Array, "4"]
) -> Float[Array, "3 3"]:
    return cameras.crop_rotation(box_px, intrinsics_px) @ rotation


# --- What several cameras say of a moment: extra fields of fits.npz and of summary.json ---


def of_moments(fits: FitRows, rows: Int[np.ndarray, "k"], together: Together) -> tuple[dict, dict[str, list]]:
    """Return which moment each row is, which camera saw it, where its body is in the world, m; and the same in words.

    Args:
      fits: whose rows are an annotation's.
      rows: of the people who were fitted.
      together: their moments.
    """
    moments, bodies = together.moments, together.bodies
    moment, camera = moments.of_rows(len(rows))
    names = np.array([one.camera for one in together.agreement])[camera]
    fields = {
        "camera": names, "moment": moment, "frame": moments.frame[moment], "person": moments.person[moment],
        "joints_world": bodies.joints_m[moment], "rotation_world": bodies.rotation[moment],
        "size_world": bodies.size[moment],
    }  # fmt: skip
    extra = {}
    for name, values in fields.items():
        missing = {"i": -1, "U": ""}.get(values.dtype.kind, np.nan)
        extra[name] = np.full((len(fits), *values.shape[1:]), missing, values.dtype)
        extra[name][rows] = values
    flags = {one.camera: [one.line()] if one.contradicts else [] for one in together.agreement}
    summary = {name: fields[name].tolist() for name in ("camera", "moment", "frame", "person")}
    return extra, summary | {"camera_flags": [flags[name] for name in names.tolist()]}


def tracks_of_moments(fits: FitRows, rows: Int[np.ndarray, "k"], moments: Moments) -> Int[np.ndarray, "n"]:
    """Return tracks of persons, each in the camera that sees it most often; -1 of the other cameras' rows."""
    moment, camera = moments.of_rows(len(rows))
    track = np.full(len(fits), -1, np.int64)
    for person in np.unique(moments.person):
        own = moments.person[moment] == person
        track[rows[own & (camera == np.bincount(camera[own]).argmax())]] = person
    return track
