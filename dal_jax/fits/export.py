"""Fits as files that other programs open: rigs (.glb, .usd, .bvh), meshes (.obj, .ply), SMPL's parameters (.npz).

All are in metres, y up, z towards the viewer. With a known focal length the camera is the origin and people stand where
it sees them; without one a person's pelvis is the origin. A scene holds all people of a photograph and its camera; a
track is a body that moves (.glb, .bvh, .usd).
"""

import contextlib
import dataclasses
import importlib
import math
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation, Slerp

from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.fits import file, overlays, rig as rigs, rig_files
from dal_jax.fits.file import FitRows
from dal_jax.fits.fits import Fits
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError, needs_extra

FORMATS = ("glb", "obj", "ply", "bvh", "npz", "usd")
MOVING_FORMATS = ("glb", "bvh", "usd")
"""Of tracks: one file a track."""

_LONGEST_NAME = 100  # a file system takes 255 bytes; temporary names need some of them


def parse_formats(flag: str) -> tuple[str, ...]:
    """Return the formats that a flag such as 'glb,bvh' names; '' names none.

    Raises:
      errors.InputError: a format is unknown; the line names it.
    """
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in flag.split(",") if part.strip()))
    for name in wanted:
        if name not in FORMATS:
            raise InputError(f"--export={flag}: '{name}' is not one of {', '.join(FORMATS)}")
    return wanted


def check(formats: Sequence[str], template: Template) -> None:
    """Refuse formats that a body cannot be written in, before the work.

    Raises:
      errors.InputError: SMPL's parameters of a body that is not SMPL's, or a package is not installed.
    """
    if "npz" in formats and template.smpl is None:
        raise InputError("--export=npz: holds SMPL's parameters, and the body was not read from a model of SMPL")
    packages = {"glb": ("viewing", "pygltflib"), "obj": ("viewing", "trimesh"), "usd": ("usd", "pxr")}
    for name in packages.keys() & set(formats):
        extra, package = packages[name]
        with needs_extra(extra):
            importlib.import_module(package)


def file_names(names: Iterable[str]) -> list[str]:
    """Return distinct file names without extension, safe inside one folder, for names from outside (paths, ids).

    Anything but ASCII letters, digits, '.', '_' and '-' becomes '_'; a name cannot begin with a dot, be empty or be
    too long; equal names get '-2', '-3', ..., also where only the case differs.
    """
    taken: set[str] = set()
    result = []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", str(name)).strip("._-")[:_LONGEST_NAME] or "person"
        candidate, number = stem, 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{stem}-{number}"
        taken.add(candidate.lower())
        result.append(candidate)
    return result


class Body(NamedTuple):
    """One body to be written. position: of its pelvis, camera axes, metres. extras: JSON values that a .glb keeps."""

    name: str
    parameters: BodyParameters
    position: Float[np.ndarray, "3"]
    extras: dict[str, Any]


def export_fits(
    fits: Fits, template: Template, directory: pathlib.Path, formats: Sequence[str], keep_fragments: bool = False
) -> list[pathlib.Path]:
    """Write every person into `directory`, made if missing, in `formats` of `FORMATS`; return the paths written.

    A fit that is not finite is left out, and so are fragments, but with `keep_fragments`.
    """
    check(formats, template)
    written = []
    for body in bodies_of(fits, intrinsics_px(fits), keep_fragments).values():
        for file_format in formats:
            path = directory / f"{body.name}.{file_format}"
            _write(path, body, template)
            written.append(path)
    return written


def export_scenes(
    fits: Fits, template: Template, directory: pathlib.Path, keep_fragments: bool = False
) -> list[pathlib.Path]:
    """Write every photograph whose size is known as a .glb of its camera and its people; return the paths written.

    Note: a focal length that is not known is taken for the photograph's diagonal, a normal lens, and the file says so.
    """
    intrinsics, sizes = intrinsics_px(fits), _photograph_sizes(fits)
    assumed = set()
    for row, (width, height) in sizes.items():
        if not np.isfinite(intrinsics[row]).all():
            assumed.add(row)
            intrinsics[row] = [math.hypot(width, height)] * 2 + [width / 2, height / 2]
    photographs: dict[tuple[str, str], list[int]] = {}
    bodies = bodies_of(fits, intrinsics, keep_fragments)
    for row in sorted(bodies.keys() & sizes.keys()):
        photographs.setdefault((str(fits.file_name[row]), str(fits.image_id[row])), []).append(row)
    written = []
    names = file_names(pathlib.PurePath(name).stem or f"image_{image}" for name, image in photographs)
    for stem, rows in zip(names, photographs.values(), strict=True):
        view, seen_by = _camera(intrinsics[rows[0]], sizes[rows[0]], rows[0] in assumed)
        shown = [bodies[row] for row in rows]
        people = {body.name: rigs.make(template, rigs.still(body.parameters), body.position[None]) for body in shown}
        extras = {body.name: body.extras for body in shown} | {rig_files.CAMERA: seen_by}
        files.write_bytes(path := directory / f"{stem}.glb", rig_files.glb(template, people, view, extras=extras))
        written.append(path)
    return written


def _write(path: pathlib.Path, body: Body, template: Template) -> None:
    """Write one body in the format that the ending names."""
    if path.suffix in (".obj", ".ply"):
        vertices = viewer_vertices(template, body.parameters) + body.position @ rigs.VIEWER_FROM_CAMERA
        files.write_bytes(path, mesh_bytes(vertices, np.asarray(template.faces), path.suffix[1:]))
        return
    rig = rigs.make(template, rigs.still(body.parameters), body.position[None])
    if path.suffix == ".glb":
        files.write_bytes(path, rig_files.glb(template, {body.name: rig}, extras={body.name: body.extras}))
    elif path.suffix == ".bvh":
        files.write_text(path, rigs.bvh(rig, rig_files.STILL_S))
    elif path.suffix == ".usd":
        files.write_text(path, rig_files.usd(template, body.name, rig))
    else:
        files.savez(path, **rigs.smpl(template, rig))


def mesh_bytes(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], file_format: str) -> bytes:
    """Return a still mesh as the content of a .glb, .obj or .ply file, vertices and faces in their order."""
    with needs_extra("viewing"):
        import trimesh
        from trimesh.exchange import ply

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    if file_format == "ply":
        return ply.export_ply(mesh, vertex_normal=True)
    content = mesh.export(file_type=file_format, include_normals=True)
    return content if isinstance(content, bytes) else str(content).encode()


def viewer_vertices(template: Template, parameters: BodyParameters) -> Float[np.ndarray, "n 3"]:
    """Return one posed mesh in metres, pelvis at the origin, y up, z towards the viewer."""
    metric = dataclasses.replace(
        parameters,
        camera_scale=np.ones_like(parameters.camera_scale),
        translation=np.zeros_like(parameters.translation),
    )
    return overlays.posed_vertices(template, metric) @ rigs.VIEWER_FROM_CAMERA


# --- Who is written, where they stand, and what saw them ---


def intrinsics_px(fits: Fits) -> Float[np.ndarray, "n 4"]:
    """Return fx, fy, cx, cy of each row's photograph, NaN where the focal length is not known."""
    if "intrinsics_px" in fits.extra:
        return np.array(fits.extra["intrinsics_px"], np.float64)
    focal = np.asarray(fits.focal_px, np.float64)[:, None]
    return np.concatenate([focal, focal, np.asarray(fits.principal_px, np.float64)], axis=1)


def bodies_of(fits: Fits, intrinsics_px: Float[np.ndarray, "n 4"], keep_fragments: bool = False) -> dict[int, Body]:
    """Return the people who are written, by their rows, at their places before their photographs' cameras."""
    rotation, position = placed(fits, intrinsics_px)
    rows, names, reports = fits.fitted_rows(), fits.names(), fits.report_rows()
    result = {}
    for index, (row, name, report) in enumerate(zip(rows.tolist(), names, reports, strict=True)):
        quality = fits.quality[index] if fits.quality else None
        if not fits.valid[row] or (quality and quality.verdict == "fragment" and not keep_fragments):
            continue
        one = overlays.select(fits.parameters, row)
        verdict = {"verdict": quality.verdict, "flags": list(quality.flags)} if quality else {}
        camera = {name: getattr(fits, name)[row].tolist() for name in _CAMERA}
        shape = {"segment_scale": fits.segment_scale[row].tolist(), "girth": float(fits.girth[row])}
        if fits.segment_girth is not None:
            shape["segment_girth"] = fits.segment_girth[row].tolist()
        extras = report | {"quality": verdict, "shape": shape, "camera": camera}
        result[row] = Body(name, dataclasses.replace(one, rotation=rotation[row]), position[row], _without_gaps(extras))
    return result


_CAMERA = ("box_px", "bbox_px", "camera_scale", "translation", "focal_px", "principal_px")


def placed(
    rows: FitRows, intrinsics_px: Float[np.ndarray, "n 4"]
) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 3"]]:
    """Return rotations (body to camera) and places of the pelvis, metres, both in the axes of each photograph's camera.

    intrinsics_px: fx, fy, cx, cy of each row's photograph; NaN: not known, such a pelvis is the origin.
    """
    rotation = np.asarray(rows.rotation)
    known = np.isfinite(intrinsics_px.sum(axis=1))
    position = np.zeros((len(rows), 3))
    if known.any():
        seen = file.in_camera(rows, np.where(known[:, None], intrinsics_px, 1.0))
        along_the_ray = known & ~np.isfinite(rows.focal_px)  # where weak perspective looks
        rotation = np.where(along_the_ray[:, None, None], seen["rotation_camera"], rotation)
        position[known] = seen["joints_camera"][known, 0]
    return rotation, position


def _photograph_sizes(fits: Fits) -> dict[int, tuple[float, float]]:
    """Return width and height, px, of each fitted person's photograph, by row; those not known are left out."""
    sizes = {}
    for index, row in enumerate(fits.fitted_rows().tolist()):
        if fits.annotations is not None:
            with contextlib.suppress(InputError):  # neither annotation nor photograph tells
                x, y = fits.annotations.middle_px(fits.annotations.people[index])
                sizes[row] = 2 * x, 2 * y
        elif str(fits.file_name[row]):
            x, y = fits.principal_px[row].tolist()  # of a file of fits: the photograph's middle
            if math.isfinite(x + y):
                sizes[row] = 2 * x, 2 * y
    return sizes


def _camera(
    intrinsics_px: Float[np.ndarray, "4"], size_px: tuple[float, float], assumed: bool
) -> tuple[tuple[float, float], dict[str, Any]]:
    """Return view and extras (`rig_files.glb`) of the camera of a photograph of this size; it looks at the middle."""
    fx, fy, *_ = intrinsics_px.tolist()
    width, height = size_px
    extras = {"intrinsics_px": intrinsics_px.tolist(), "size_px": [width, height], "focal_length_is_assumed": assumed}
    return (2 * math.atan(height / 2 / fy), (width / fx) / (height / fy)), extras


def _without_gaps(value: Any) -> Any:
    """Return JSON values without those that are null or no number, which strict JSON has no word for."""
    if isinstance(value, dict):
        kept = {name: _without_gaps(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one is not None}
    if isinstance(value, list):
        kept = [_without_gaps(one) for one in value]
        return None if any(one is None for one in kept) else kept
    return None if isinstance(value, float) and not math.isfinite(value) else value


def export_motion(
    fits: Fits, template: Template, directory: pathlib.Path, formats: Sequence[str]
) -> list[pathlib.Path]:
    """Write every track into `directory`, made if missing, in `formats` of `MOVING_FORMATS`; return the paths."""
    if fits.fps is None:
        raise ValueError("motion is that of tracks: dal.fit with FitOptions(tracks=True)")
    check(formats, template)
    bodies, written = bodies_of(fits, intrinsics_px(fits), keep_fragments=True), []
    track, frame = (np.asarray(fits.extra[name]) for name in ("track_id", "frame"))
    for number in np.unique(track[track >= 0]).tolist():
        rows = [row for row in np.flatnonzero(track == number)[np.argsort(frame[track == number])] if row in bodies]
        if not rows:
            continue
        parameters = jax.tree.map(lambda *leaves: np.stack(leaves), *(bodies[row].parameters for row in rows))
        position = np.stack([bodies[row].position for row in rows])
        parameters, position = _every_frame(parameters, position, frame[rows])
        times_s = np.arange(len(position)) / fits.fps
        for file_format in formats:
            path = directory / f"track_{number}.{file_format}"
            rig_files.animation(template, parameters, times_s, path, position)
            written.append(path)
    return written


def _every_frame(
    parameters: BodyParameters, position: Float[np.ndarray, "rows 3"], frame: Int[np.ndarray, "rows"]
) -> tuple[BodyParameters, Float[np.ndarray, "frames 3"]]:
    """Fill in the frames that are missing between known ones: rotations on the shortest way, the rest in proportion."""
    wanted = np.arange(frame[0], frame[-1] + 1)
    if len(wanted) == len(frame):
        return parameters, position

    def between(values: np.ndarray) -> np.ndarray:
        columns = [np.interp(wanted, frame, column) for column in values.reshape(len(frame), -1).T]
        return np.stack(columns, axis=1).reshape(len(wanted), *values.shape[1:])

    def turned(start: Rotation) -> Rotation:
        return Slerp(frame, start)(wanted)

    pose = [turned(Rotation.from_rotvec(joint)).as_rotvec() for joint in np.moveaxis(np.asarray(parameters.pose), 1, 0)]
    rest = {
        field.name: between(value)
        for field in dataclasses.fields(parameters)
        if (value := getattr(parameters, field.name)) is not None
    }
    rotation = turned(Rotation.from_matrix(parameters.rotation)).as_matrix()
    return dataclasses.replace(parameters, **rest | {"pose": np.stack(pose, 1), "rotation": rotation}), between(
        position
    )
