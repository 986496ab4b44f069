"""Bodies that move as files that other programs open: one a track (.glb, .bvh, .usd)."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
import scipy.interpolate
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation, Slerp

from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.fits import export, rig as rigs, rig_files
from dal_jax.fits.fits import Fits
from dal_jax.fits.rig_files import Person
from dal_jax.runtime import files

FORMATS = ("glb", "bvh", "usd")


def animation(
    template: Template,
    parameters: BodyParameters,
    times_s: Float[np.ndarray, "frames"],
    path: str | os.PathLike[str],
    position: Float[np.ndarray, "frames 3"] | None = None,
) -> None:
    """Write a body that moves: `.glb` (whatever changes is animated, linearly between frames), `.bvh` or `.usd`.

    Args:
      template: the body.
      parameters: stacked over frames, (frames, ...). A .bvh needs one `segment_scale` for all.
      times_s: of the frames, seconds, increasing from 0 or later; evenly for a .bvh or a .usd.
      path: the file; its ending names the format, its stem the person.
      position: of the pelvis, camera axes, metres; left out: the origin.

    Raises:
      ValueError: another ending, times that do not increase or do not fit, or more than one skeleton for a .bvh.
    """
    path, times_s = pathlib.Path(path), np.asarray(times_s, np.float64)
    if times_s.shape != (len(parameters.pose),):
        raise ValueError(f"times_s has shape {times_s.shape} for {len(parameters.pose)} frames")
    steps = np.diff(times_s.astype(np.float32))
    if not (np.isfinite(times_s).all() and times_s[0] >= 0 and (steps > 0).all()):
        raise ValueError("times_s must increase, from 0 or later")
    rig = rigs.make(template, parameters, position)
    if path.suffix in (".bvh", ".usd") and len(steps) and not np.allclose(steps, np.mean(steps), rtol=0.01):
        raise ValueError(f"times_s must be evenly spaced for a {path.suffix}")
    if path.suffix == ".glb":
        files.write_bytes(path, rig_files.glb(template, [Person(path.stem, rig)], times_s=times_s))
    elif path.suffix == ".bvh":
        frame_s = float(np.mean(steps)) if len(steps) else export.STILL_S
        files.write_text(path, rigs.bvh(rig, frame_s))
    elif path.suffix == ".usd":
        files.write_text(path, rig_files.usd(template, path.stem, rig, times_s))
    else:
        raise ValueError(f"{path}: an animation is a .glb, a .bvh or a .usd")


def export_motion(
    fits: Fits, template: Template, directory: pathlib.Path, formats: Sequence[str]
) -> list[pathlib.Path]:
    """Write every track into `directory`, made if missing, in `formats` of `FORMATS`; return the paths written."""
    if fits.fps is None:
        raise ValueError("motion is that of tracks: dal.fit with FitOptions(tracks=True)")
    export.check(formats, template)
    bodies, written = export.bodies_of(fits, export.intrinsics_px(fits), keep_fragments=True), []
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
            animation(template, parameters, times_s, path, position)
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
        return scipy.interpolate.interp1d(frame, values, axis=0)(wanted)

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
