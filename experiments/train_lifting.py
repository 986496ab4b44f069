"""Train a lifter, 2D joints to depth, from 2D poses alone (Kudo et al. 2018).

    python -m experiments.train_lifting --poses=poses.npz --workdir=runs/lifting
    python -m experiments.train_lifting --poses=person_keypoints.json --workdir=runs/kudo --config.preset=kudo
    python -m experiments.train_lifting --poses=synthetic_people --workdir=runs/lifter --asset=lifter.npz

--poses: .npz with `keypoints` (n, 17, 2) px, y down, Human3.6M order, and, if some are missing, `visible` (n, 17), and,
if cameras are known, `intrinsics_px` (n, 4) or (4,): fx, fy, cx, cy; .npy (n, 34); COCO key point JSON or what a
detector writes (docs/formats.md); or the word synthetic_people, for 2D poses of the embedded training people, half of
them marked as COCO's annotators would. `make lifter` trains the shipped lifter so. Where intrinsics are known (in the
file, by --intrinsics_px or --assume_camera) each pose is first seen by a camera that looks at its pelvis.

Writes WORKDIR/config.json, metrics.jsonl and checkpoints/. The same command resumes a killed run, and with a larger
--steps a finished one, too, at the rates of the longer run from there.
About two minutes for `demo` on two cores.
"""

import pathlib

from absl import flags

from dal_jax.lifting import folder
from dal_jax.lifting.config import PRESETS, best, validate
from dal_jax.lifting.poses import Poses2D, of_both_sets, read
from dal_jax.runtime import cli, machine
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import people as synthetic_people

_CONFIG = cli.define_config(best(), PRESETS)
_POSES = flags.DEFINE_string(
    "poses", None, "2D poses: .npz, .npy, what a detector writes, or the word synthetic_people.", required=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an existing run is resumed.", required=True)
_STEPS = flags.DEFINE_integer("steps", None, "Total number of steps, instead of --config.steps.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of every random number of the run.", lower_bound=0)
_ASSET = flags.DEFINE_string(
    "asset", None, "The .npz to write the lifter to as well, replaced: one small file that --lifting takes."
)
_INTRINSICS = flags.DEFINE_list(
    "intrinsics_px", None, "fx,fy,cx,cy of the camera of all poses, px, instead of those in the file of --poses."
)
_ASSUME = flags.DEFINE_bool(
    "assume_camera", False, "A focal length as long as the photographs' longer side (COCO JSON)."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Remove the run in --workdir and start anew.")
_CHECKPOINT_S = flags.DEFINE_float("checkpoint_seconds", 60.0, "Seconds between two checkpoints.", lower_bound=0.0)

_SYNTHETIC = 20_000  # poses of the embedded people


def main(_: list[str]) -> None:
    """Read, train, save."""
    config = _CONFIG.value
    config.steps = config.steps if _STEPS.value is None else _STEPS.value
    validate(config, "--config")
    if _ASSET.value and not _ASSET.value.endswith(".npz"):
        raise InputError(f"--asset={_ASSET.value}: the name must end in .npz")
    poses = _poses()
    if len(poses.entry) < 2:
        raise InputError(f"{_POSES.value}: holds one pose, and a lifter learns from many")
    for note in poses.notes:
        print(note)
    if _OVERWRITE.value:
        folder.remove(_WORKDIR.value)
    with machine.compiling("train_lifting", "half a minute"):
        state = folder.train(_WORKDIR.value, poses, config, _SEED.value, _CHECKPOINT_S.value)
    skipped = f" ({poses.skipped} annotations without a usable pose skipped)" if poses.skipped else ""
    print(f"{int(state.step)} steps on {len(poses.entry)} poses{skipped}: {_WORKDIR.value}")
    if _ASSET.value:
        made_of = {"poses": pathlib.Path(_POSES.value).name, "people": len(poses.entry), "seed": _SEED.value}
        folder.save(_ASSET.value, config, state.lifter, made_of)
        print(f"wrote {_ASSET.value}: {pathlib.Path(_ASSET.value).stat().st_size / 1e6:.2f} MB")


def _poses() -> Poses2D:
    if _POSES.value != synthetic_people.NAME:
        return read(_POSES.value, _INTRINSICS.value, _ASSUME.value)
    made = synthetic_people.poses_2d(range(_SYNTHETIC))
    return of_both_sets(made["h36m"], made["body_25b"])


if __name__ == "__main__":
    cli.run(main, cli.GOES_ON)
