"""Make motion capture into 2D poses that a lifter learns from (docs/poses.md).

    python -m experiments.prepare_poses --source=amass --out=poses.npz
    python -m experiments.train_lifting --poses=poses.npz --workdir=runs/lifting

--source: a folder of AMASS's .npz, MoSh's .pkl, .bvh, or .amc beside their .asf, or one such file. Each pose is looked
at by cameras of its own.
"""

import pathlib
import sys

from absl import flags

from dal_jax.data.motions import collection
from dal_jax.data.motions.collection import CameraSampling
from dal_jax.runtime import cli
from dal_jax.runtime.errors import InputError

_SOURCE = flags.DEFINE_string("source", None, "Folder of motions, or one file.", required=True)
_OUT = flags.DEFINE_string("out", None, "The .npz to write.", required=True)
_RATE = flags.DEFINE_float("rate", 5.0, "Poses taken of a second of motion, at most.", lower_bound=0.01)
_VIEWS = flags.DEFINE_integer("views", 1, "Cameras a pose.", lower_bound=1)
_CAMERA = flags.DEFINE_enum("camera", "perspective", list(collection.CAMERAS), "Kind of the cameras.")
_ELEVATION = flags.DEFINE_float("elevation_deg", 10.0, "Standard deviation of a camera's elevation.", 0.0, 60.0)
_SEED = flags.DEFINE_integer("seed", 0, "Of the cameras.", lower_bound=0)
_SKIP_INVALID = flags.DEFINE_bool("skip_invalid", False, "Leave out files that cannot be read, and name them.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing --out.")


def main(_: list[str]) -> None:
    """Read the motions, project them, write the poses."""
    out = pathlib.Path(_OUT.value)
    if out.suffix != ".npz":
        raise InputError(f"--out={out}: 2D poses are written as .npz")
    if out.exists() and not _OVERWRITE.value:
        raise InputError(f"{out}: exists; --overwrite replaces it")
    views = CameraSampling(_CAMERA.value, _VIEWS.value, _ELEVATION.value, rate=_RATE.value, seed=_SEED.value)
    poses, files, skipped, notes = collection.collect(pathlib.Path(_SOURCE.value), out, views, _SKIP_INVALID.value)
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    for line in notes:
        print(f"note: {line}", file=sys.stderr)
    print(f"{out}: {poses} poses of {files} files, skipped {len(skipped)} files")


if __name__ == "__main__":
    cli.run(main)
