"""Fits in rerun's viewer: photographs with their annotation, and bodies where a camera would see them so.

A step of the timeline `photograph` is a photograph. Space is the photograph's camera: x right, y down, z away, metres.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from dal_jax.fits import overlays
from dal_jax.observations.observation import px_from_crop
from dal_jax.runtime.errors import InputError, needs_extra

if TYPE_CHECKING:
    from dal_jax.fits.fits import Fits

VIEWERS = ("none", "rerun")
_FAR = 20.0  # focal length, in longer sides of a photograph, where the camera is weak: depth then hardly changes size
_COLOUR = [round(255 * channel) for channel in overlays.BODY_COLOUR]


def place(
    fits: "Fits", row: int, size_px: tuple[int, int]
) -> tuple[float, Float[np.ndarray, "2"], Float[np.ndarray, "v 3"]]:
    """Return a camera that sees a person as the fit does, and where the person stands before it.

    Weak perspective does not say how far away that is: the camera is then taken to be far, with a focal length of 20
    photographs, and the principal point in the middle of the photograph.

    Args:
      fits: with a body.
      row: of the person.
      size_px: width and height of the photograph.

    Returns:
      Focal length and principal point, px of the photograph, and the vertices in the camera's axes, metres.
    """
    scale_px = float(fits.camera_scale[row]) * float(fits.box_px[row, 2]) / 2.0
    pelvis_px = px_from_crop(fits.translation[row][None], fits.box_px[row])[0]
    focal, principal = float(fits.focal_px[row]), np.asarray(fits.principal_px[row], np.float64)
    if not np.isfinite(focal):
        focal, principal = _FAR * max(size_px), np.array(size_px) / 2.0
    pelvis = np.append((pelvis_px - principal) / scale_px, focal / scale_px)
    return focal, principal, fits.vertices(row) + pelvis[None]


def send(fits: "Fits", recording: Any) -> None:
    """Send photographs, annotation, cameras and bodies to a recording (`rerun.RecordingStream`).

    Raises:
      errors.InputError: rerun is not installed, or a photograph cannot be read.
      ValueError: the fits have no annotation, or were read without a body.
    """
    with needs_extra("viewer"):
        import rerun  # pyright: ignore[reportMissingImports]
    if fits.annotations is None or fits.observations is None:
        raise ValueError("a viewer shows fits to an annotation: those of `fit` and `predict`")
    people, read = fits.annotations.people, fits.annotations.reader()
    for step, name in enumerate(dict.fromkeys(one.file_name for one in people)):
        here = [index for index, one in enumerate(people) if one.file_name == name]
        recording.set_time("photograph", sequence=step)
        for path in ("camera", "people"):
            recording.log(path, rerun.Clear(recursive=True))  # what the photograph before has shown
        size = _send_photograph(fits, here[0], read, recording)
        for index in here:
            if fits.valid[fits.fitted_rows()[index]]:
                _send_person(fits, index, size, recording)
        lines = [f"{fits.names()[index]}: {_report(fits, index)}" for index in here]
        recording.log("report", rerun.TextDocument("\n\n".join(lines), media_type=rerun.MediaType.TEXT))


def _report(fits: "Fits", index: int) -> str:
    one = fits.quality[index] if fits.quality else None
    return "not judged" if one is None else "; ".join([one.verdict, *one.flags])


def _send_photograph(fits: "Fits", index: int, read: Callable, recording: Any) -> tuple[int, int]:
    """Send a person's photograph, if there is one; return its size."""
    import rerun  # pyright: ignore[reportMissingImports]

    assert fits.annotations is not None
    one, box_px = fits.annotations.people[index], fits.box_px[fits.fitted_rows()[index]]
    if not fits.annotations.images:
        x, y, width, height = box_px
        return one.picture_size or (int(np.ceil(x + width)), int(np.ceil(y + height)))
    picture = read(one)
    recording.log("camera", rerun.Image(picture).compress(jpeg_quality=90))
    return picture.shape[1], picture.shape[0]


def _send_person(fits: "Fits", index: int, size: tuple[int, int], recording: Any) -> None:
    import rerun  # pyright: ignore[reportMissingImports]

    assert fits.observations is not None
    faces = np.asarray(fits.known_body().faces)
    focal_px, principal_px, vertices = place(fits, int(fits.fitted_rows()[index]), size)
    camera = rerun.Pinhole(
        focal_length=focal_px, principal_point=principal_px, resolution=size,
        camera_xyz=rerun.ViewCoordinates.RDF, image_plane_distance=float(vertices[:, 2].min()) / 2.0,
    )  # fmt: skip
    normals = overlays.vertex_normals(vertices, faces)
    mesh = rerun.Mesh3D(
        vertex_positions=vertices, triangle_indices=faces, vertex_normals=normals, albedo_factor=_COLOUR
    )
    recording.log("camera", camera)
    recording.log(f"people/{index}", mesh)
    seen = overlays.select(fits.observations.stacked, index)
    for kind, places, confidence, radius in (
        ("dense", seen.point_position, seen.point_confidence, 2.0),
        ("keypoints", seen.keypoint_position, seen.keypoint_confidence, 4.0),
    ):
        points_px = px_from_crop(np.asarray(places)[np.asarray(confidence) > 0], np.asarray(seen.box_px))
        recording.log(f"camera/{kind}/{index}", rerun.Points2D(points_px, radii=radius))


def check() -> None:
    """Refuse before the work what would fail after it.

    Raises:
      errors.InputError: rerun is not installed.
    """
    with needs_extra("viewer"):
        import rerun  # pyright: ignore[reportMissingImports] # noqa: F401


def show(fits: "Fits") -> None:
    """Open rerun's viewer and send it the fits.

    Raises:
      errors.InputError: rerun is not installed, its viewer does not open, or a photograph cannot be read.
    """
    with needs_extra("viewer"):
        import rerun  # pyright: ignore[reportMissingImports]
    recording = rerun.RecordingStream("dal_jax")
    recording.spawn()
    send(fits, recording)
    try:
        recording.flush()
    except RuntimeError as error:  # the viewer is a process of its own, which wants a display
        raise InputError(f"rerun's viewer does not open, perhaps for want of a display: {error}") from error
