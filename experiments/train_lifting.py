"""Train a lifter, 2D joints to depth, from 2D poses alone (Kudo et al. 2018).

    python -m experiments.train_lifting --poses=poses.npz --workdir=runs/lifting
    python -m experiments.train_lifting --poses=person_keypoints.json --workdir=runs/kudo --config.preset=kudo

--poses: .npz with `keypoints` (n, 17, 2) px, y down, Human3.6M order, and, if some are missing, `visible` (n, 17);
.npy (n, 34); or COCO key point JSON. Writes WORKDIR/config.json, metrics.jsonl and checkpoints/. The same command goes
on where a killed run stopped; with a larger --steps a finished one goes on too. About a minute for `demo` on two cores.
"""

import time

import jax
import jax.numpy as jnp
from absl import flags

from dal_jax.lifting import training
from dal_jax.lifting.config import PRESETS, Config, best, validate
from dal_jax.lifting.folder import LifterFolder
from dal_jax.lifting.poses import Poses, read
from dal_jax.lifting.training import LiftingState
from dal_jax.runtime import cli, config_flag, progress

_CONFIG = config_flag.define(best(), PRESETS)
_POSES = flags.DEFINE_string("poses", None, "2D poses: .npz, .npy or COCO key point .json.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an existing run goes on.", required=True)
_STEPS = flags.DEFINE_integer("steps", None, "Total number of steps, instead of --config.steps.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of every random number of the run.", lower_bound=0)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Throw away the run in --workdir and start anew.")
_CHECKPOINT_S = flags.DEFINE_float("checkpoint_seconds", 60.0, "Seconds between two checkpoints.", lower_bound=0.0)


def main(_: list[str]) -> None:
    """Read, train, save."""
    config = _CONFIG.value
    config.steps = config.steps if _STEPS.value is None else _STEPS.value
    validate(config)
    poses = read(_POSES.value)
    initial_key, training_key = jax.random.split(jax.random.key(_SEED.value))
    with LifterFolder(_WORKDIR.value, config, _SEED.value, poses, _OVERWRITE.value) as run:
        state = _train(run, run.resume(initial_key), poses, config, training_key)
    skipped = f" ({poses.skipped} annotations without a usable pose skipped)" if poses.skipped else ""
    print(f"{int(state.step)} steps on {len(poses.entry)} poses{skipped}: {run.path}")


def _train(run: LifterFolder, state, poses: Poses, config: Config, key) -> object:
    saved_at = time.monotonic()
    with progress.bar("training the lifter", total=config.steps, unit="step") as bar:
        bar.update(int(state.step))

        def report(step: int, losses: dict[str, float]) -> None:
            bar.update(step - bar.n)
            run.log(step, losses)

        def checkpoint(state: LiftingState) -> None:
            nonlocal saved_at
            if time.monotonic() - saved_at >= _CHECKPOINT_S.value:
                run.save(state)
                saved_at = time.monotonic()

        state = training.train(
            state,
            jnp.asarray(poses.keypoints_px),
            jnp.asarray(poses.visible),
            config,
            key,
            steps=config.steps,
            progress=report,
            on_checkpoint=checkpoint,
        )
    run.save(state)
    return state


if __name__ == "__main__":
    cli.run(main)
