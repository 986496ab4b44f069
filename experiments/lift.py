"""Lift 2D poses to 3D with a trained lifter.

    python -m experiments.lift --poses=poses.npz --checkpoint=runs/lifting --out=lifted.npz

--poses: as for experiments.train_lifting. Writes an .npz with `joints` (n, 17, 3), the pelvis at the origin, x right,
y down, z away from the camera, in the unit of the 2D poses, and `unit` 'px'; `visible` (n, 17), false where the joint
was not given and its place is no more than a guess; `entry` (n,), the annotation's id or the row.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dal_jax.lifting import folder, lift, poses as poses_lib
from dal_jax.runtime import atomic, cli, errors

_POSES = flags.DEFINE_string("poses", None, "2D poses: .npz, .npy or COCO key point .json.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder that train_lifting wrote.", required=True)
_OUT = flags.DEFINE_string("out", None, "The .npz to write.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")


def main(_: list[str]) -> None:
    """Read, lift, write."""
    if not _OUT.value.endswith(".npz"):
        raise errors.InputError(f"--out={_OUT.value}: the name must end in .npz")
    if pathlib.Path(_OUT.value).exists() and not _OVERWRITE.value:
        raise errors.InputError(f"--out={_OUT.value} exists; --overwrite replaces it")
    poses = poses_lib.read(_POSES.value)
    config, parameters = folder.load(_CHECKPOINT.value)
    joints = jax.jit(lambda keypoints, visible: lift.lift_joints(config, parameters, keypoints, visible))(
        jnp.asarray(poses.keypoints_px), jnp.asarray(poses.visible)
    )
    atomic.savez(_OUT.value, joints=np.asarray(joints), unit="px", visible=poses.visible, entry=poses.entry)
    skipped = f" ({poses.skipped} annotations without a usable pose skipped)" if poses.skipped else ""
    print(f"{len(poses.entry)} poses{skipped}: {_OUT.value}")


if __name__ == "__main__":
    cli.run(main)
