"""Lift 2D poses to 3D with a trained lifter.

    python -m experiments.lift --poses=poses.npz --out=lifted.npz --pictures=looks
    python -m experiments.lift --poses=poses.npz --checkpoint=runs/lifting --out=lifted.npz

--poses, --intrinsics_px, --assume_camera: as for experiments.train_lifting. Where intrinsics are known each pose is
lifted as a camera sees it that looks at the pelvis, and joints are rotated into the true camera's axes. Writes an .npz:
  joints     (n, 17, 3), the pelvis at the origin, x right, y down, z away from the camera, in the unit of the 2D poses
             at the pelvis; `unit` is 'px'. A lifter that has learned how near cameras stand (not kudo) undoes
             perspective: x and y of what is farther away are larger than in the image.
  points     (n, 17, 2), x and y in the image from the pelvis on, noise taken off where the lifter has learned how large
             it is; of a missing or unusual joint where the others put it. Of the camera that looks at the pelvis.
  depth_sd   (n, 17), standard deviation of each depth along that camera's axis; absent from a lifter of the preset
             kudo, which has none.
  points_sd  (n, 17), of x and of y; 0 for a given joint.
  standardised_residual  (n, 17), how many standard deviations a joint is from where the others put it; `unusual`
             (n, 17), true above 5: clicked wrong, or a pose unlike the training poses (four joints in ten thousand of
             other poses of the kind), and where left was given for right; `exchanged` (n, 17), the latter alone, which
             were lifted as if they had been given right.
  visible    (n, 17), false where the joint was not given; `entry` (n,), the annotation's id or the row.
--fps: of videos, whose poses have a `track_id` and a `frame` in the file: joints are smoothed over the frames of each
track. `points` and `joints` then move smoothly, given ones too; deviations stay as they are.
--pictures: folder for sheet.png, each pose as given, half from the side, from the side and from behind, unusual joints
ringed, and turntable.gif; of --pictured poses, evenly spaced.
"""

import pathlib

import jax.numpy as jnp
import numpy as np
from absl import flags

import dal_jax as dal
from dal_jax.lifting import folder, losses
from dal_jax.lifting.lift import Lifted
from dal_jax.lifting.outliers import OUTLIER_RESIDUAL
from dal_jax.lifting.poses import Poses2D, read
from dal_jax.observations import observation, photographs
from dal_jax.runtime import cli, files, machine
from dal_jax.runtime.errors import InputError
from dal_jax.viewing import plots

_POSES = flags.DEFINE_string(
    "poses", None, "2D poses: .npz, .npy, or what a detector writes (docs/formats.md).", required=True
)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", folder.SHIPPED, "The folder or the small .npz that train_lifting wrote, or shipped."
)
_OUT = flags.DEFINE_string("out", None, "The .npz to write.", required=True)
_PICTURES = flags.DEFINE_string("pictures", None, "Folder for sheet.png and turntable.gif.")
_PICTURED = flags.DEFINE_integer("pictured", 24, "Poses in the pictures.", lower_bound=1)
_INTRINSICS = flags.DEFINE_list(
    "intrinsics_px", None, "fx,fy,cx,cy of the camera of all poses, px, instead of those in the file of --poses."
)
_ASSUME = flags.DEFINE_bool(
    "assume_camera", False, "A focal length as long as the photographs' longer side (COCO JSON)."
)
_FPS = flags.DEFINE_float(
    "fps", None, "Frames a second as they are numbered: smooth joints over the frames of each track_id.", 0.01, 1000.0
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out and the pictures.")


def main(_: list[str]) -> None:
    """Read, lift, write."""
    _check_outputs()
    poses = read(_POSES.value, _INTRINSICS.value, _ASSUME.value)
    for note in poses.notes:
        print(note)
    frames = _frames(poses)
    with machine.compiling("lift", "a quarter of a minute"):
        columns = _columns(dal.lift(poses.keypoints_px, _CHECKPOINT.value, poses.visible, poses.intrinsics_px, frames))
    files.savez(_OUT.value, **columns, unit="px", visible=poses.visible, entry=poses.entry)
    skipped = f" ({poses.skipped} annotations without a usable pose skipped)" if poses.skipped else ""
    print(f"{len(poses.entry)} poses{skipped}: {_OUT.value}")
    bones = losses.bone_figures(jnp.asarray(columns["joints"]))
    print(f"bones: left and right differ by {bones['bone_asymmetry']:.1%}, people by {bones['bone_spread']:.1%}")
    for name, told in (("unusual", "joints where the others do not expect them"), ("exchanged", "left for right")):
        if len(entries := poses.entry[columns[name].any(axis=1)]):
            named = [str(entry) for entry in entries[:5]] + ["..."] * (len(entries) > 5)
            print(f"{len(entries)} have {told}: {', '.join(named)}")
    if _PICTURES.value:
        _draw(columns, poses, pathlib.Path(_PICTURES.value))


def _frames(poses: Poses2D) -> dal.Frames | None:
    if _FPS.value is None:
        return None
    if poses.track_id is None or poses.frame is None:
        raise InputError(f"--fps={_FPS.value:g}: {_POSES.value} does not say whose its poses are, track_id and frame")
    return dal.Frames(poses.track_id, poses.frame, _FPS.value)


def _columns(lifted: Lifted) -> dict[str, np.ndarray]:
    """Return the fields of the file."""
    names = ["joints", "points", "points_sd", "standardised_residual", "exchanged"]
    names += [] if lifted.depth_sd is None else ["depth_sd"]
    columns = {name: np.asarray(getattr(lifted, name)) for name in names}
    return columns | {"unusual": (columns["standardised_residual"] > OUTLIER_RESIDUAL) | columns["exchanged"]}


def _check_outputs() -> None:
    if not _OUT.value.endswith(".npz"):
        raise InputError(f"--out={_OUT.value}: the name must end in .npz")
    drawn = [pathlib.Path(_PICTURES.value) / name for name in ("sheet.png", "turntable.gif")] if _PICTURES.value else []
    for path in [pathlib.Path(_OUT.value), *drawn]:
        if path.exists() and not _OVERWRITE.value:
            raise InputError(f"{path} exists; --overwrite replaces it")


def _draw(columns: dict[str, np.ndarray], poses: Poses2D, path: pathlib.Path) -> None:
    rows = observation.evenly(len(poses.entry), _PICTURED.value)
    joints = columns["joints"][rows]
    sheet = plots.sheet(joints, [str(entry) for entry in poses.entry[rows]], columns["unusual"][rows])
    files.write_bytes(path / "sheet.png", photographs.png(sheet))
    files.write_bytes(path / "turntable.gif", plots.turntable(joints))
    print(f"wrote {path / 'sheet.png'} and {path / 'turntable.gif'}")


if __name__ == "__main__":
    cli.run(main)
