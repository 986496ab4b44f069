"""A lifter's folder (config.json, checkpoints/, metrics.jsonl): train into it, load from it, lift with it.

And its small file, an .npz that holds what lifting needs and nothing else; one is shipped.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import reprlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from dal_jax.lifting import lift as lift_arrays, outliers, poses as poses_lib, training
from dal_jax.lifting.config import LiftingConfig, validate
from dal_jax.lifting.lift import Lifted, Lifter
from dal_jax.lifting.poses import Poses2D, checked
from dal_jax.lifting.training import LiftingState
from dal_jax.observations.following import Frames
from dal_jax.runtime import configs, door, files, machine, progress
from dal_jax.runtime.checkpoints import Checkpoints
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import PathLike
from dal_jax.runtime.progress import MetricLog

SHIPPED = "shipped"
"""Stands for `SHIPPED_FILE` wherever a lifter's folder is asked for."""
SHIPPED_FILE = pathlib.Path(__file__).parent / "assets" / "lifter.npz"
"""A lifter of the embedded people's 2D poses, made by `make lifter`."""

_CONTENT = {"config.json", "checkpoints", "metrics.jsonl", "tensorboard"}
_BATCH = 1024
_NEW = {"elevation_spread_deg", "flow_weight", "track_weight"}  # fields that lifters of before lack: off by default
_RECIPE = "recipe"  # the field of a small file that is no parameter: JSON


def lift(
    keypoints_px: Float[np.ndarray, "n 17 2"],
    lifter: PathLike | tuple[LiftingConfig, Lifter] = SHIPPED,
    visible: Bool[np.ndarray, "n 17"] | None = None,
    intrinsics_px: Float[np.ndarray, "*n 4"] | None = None,
    frames: Frames | None = None,
) -> Lifted:
    """Lift 2D poses to 3D with a trained lifter; NumPy in, NumPy out.

    A joint that contradicts the others is not believed, but placed like a missing one, and what is left for right is
    exchanged (`outliers.believe`).

        lifted = lift(keypoints_px)    # the shipped lifter; or lift(keypoints_px, "runs/lifting")
        lifted.joints     # (n, 17, 3), pelvis at the origin, x right, y down, z away from the camera, px
        lifted.depth_sd   # (n, 17), standard deviation of each depth; None from a `kudo` lifter

    Args:
      keypoints_px: Human3.6M's joints, x right, y down, px (any unit will do: the result has the same).
      lifter: `shipped`; the folder or the small file that `experiments.train_lifting` wrote; or what `load` read.
      visible: which joints are known; None: all. The value at an unknown joint is not used.
      intrinsics_px: fx, fy, cx, cy of the camera, one or one a pose. `joints` are then in the camera's axes, all else
        as seen along the hip's ray. None: not known, and the camera is taken to look at the person.
      frames: of videos: whose each pose is (track -1: nobody's), and when; joints are then smoothed over each track's
        frames (`lift.smooth`). None: every pose by itself.

    Raises:
      errors.InputError: the folder holds no lifter; the shapes are wrong, a known joint is not finite, a pose has no
        size, a focal length is not positive, or a track is in one frame twice. Names the value.
    """
    machine.configure()
    config, parameters = lifter if isinstance(lifter, tuple) else load(lifter)
    keypoints = np.asarray(keypoints_px)
    if keypoints.ndim != 3 or keypoints.shape[1:] != (17, 2):
        raise InputError(f"keypoints_px has shape {keypoints.shape}, not (n, 17, 2)")
    known = np.ones(keypoints.shape[:2], bool) if visible is None else np.asarray(visible, bool)
    if known.shape != keypoints.shape[:2]:
        raise InputError(f"visible has shape {known.shape}, not {keypoints.shape[:2]}")
    poses = checked("keypoints_px", keypoints, known)
    if frames is not None and (frames.track.shape, frames.frame.shape) != 2 * (keypoints.shape[:1],):
        raise InputError(f"frames has {len(frames.track)} tracks and {len(frames.frame)} frames, not {len(keypoints)}")
    camera = () if intrinsics_px is None else (poses_lib.intrinsics("intrinsics_px", intrinsics_px, len(keypoints)),)
    factors = np.ones(17, np.float32)
    if len(keypoints) >= outliers.FEWEST_USUAL:
        looking = functools.partial(lift_arrays.compiled(lift_arrays.residual, config), parameters)
        factors = outliers.usual(_in_batches(looking, poses.keypoints_px, poses.visible, *camera), poses.visible)
    lifting = functools.partial(lift_arrays.compiled(lift_arrays.lift_believed, config), parameters, factors)
    lifted = _in_batches(lifting, poses.keypoints_px, poses.visible, *camera)
    return lifted if frames is None else lift_arrays.smooth(lifted, frames)


def _in_batches(run: Callable, *poses: np.ndarray) -> Any:
    """Apply a compiled function to poses in batches of one shape, which is one program."""
    count = len(poses[0])
    batch, parts = max(1, min(_BATCH, count)), []
    for first in range(0, max(1, count), batch):
        rows = np.minimum(np.arange(first, first + batch), count - 1)
        parts.append(jax.device_get(run(*(each[rows] for each in poses))))
    return jax.tree.map(lambda *each: np.concatenate(each)[:count], *parts)


def load(path: PathLike) -> tuple[LiftingConfig, Lifter]:
    """Return (config, lifter) for `lift`.

    Args:
      path: a training folder, whose last checkpoint is read; a small file (.npz) that `save` wrote; or `shipped`.

    Raises:
      errors.InputError: the folder has no configuration or no checkpoint yet, or it or the file is damaged.
    """
    if str(path) == SHIPPED:
        return _read_small(SHIPPED_FILE)
    path = pathlib.Path(path)
    if path.suffix == ".npz" and not path.is_dir():
        return _read_small(path)
    file = path / "config.json"
    if not file.exists():
        raise InputError(f"{path}: is no folder of a trained lifter (it has no config.json), nor '{SHIPPED}'")
    config = _config(file, _read_json(file).get("config"))
    example = jax.eval_shape(functools.partial(training.initial_state, config), jax.random.key(0))
    state, _, _ = Checkpoints(path / "checkpoints").resume(lambda _: example)
    return config, training.lifter_so_far(config, state)


def save(path: PathLike, config: LiftingConfig, lifter: Lifter, made_of: dict[str, Any]) -> None:
    """Write a lifter as one small .npz for `load`: parameters in half precision, and its recipe.

    Half precision changes depths by less than a thousandth of their error.

    Args:
      path: the file, which is replaced.
      config: of the training.
      lifter: its result.
      made_of: JSON values that say what the lifter learned from.
    """
    leaves = {name: np.asarray(leaf, np.float16) for name, leaf in _leaves(lifter).items()}
    recipe = json.dumps({"config": dataclasses.asdict(config)} | made_of)
    files.savez(path, **leaves, **{_RECIPE: np.array(recipe)})


def _read_small(path: pathlib.Path) -> tuple[LiftingConfig, Lifter]:
    fields = door.read_npz(path)
    try:
        recipe = files.parse_json(str(fields.pop(_RECIPE)))
    except (KeyError, ValueError):
        raise InputError(f"{path}: is no file of a lifter (its field '{_RECIPE}' is no JSON)") from None
    config = _config(path, recipe.get("config") if isinstance(recipe, dict) else None)
    example = _shapes(config)
    expected = _leaves(example)
    for name, leaf in expected.items():
        given = fields.get(name)
        if given is None or given.shape != leaf.shape or given.dtype.kind != "f":
            found = "missing" if given is None else f"{given.dtype} of shape {given.shape}"
            raise InputError(f"{path}: field '{name}' is {found}, expected floats of shape {leaf.shape}")
        if not np.isfinite(given).all():
            raise InputError(f"{path}: field '{name}' holds a value that is not finite")
    leaves = [fields[name].astype(np.float32) for name in expected]
    return config, jax.tree.unflatten(jax.tree.structure(example), leaves)


@configs.cached_by_config
def _shapes(config: LiftingConfig) -> Lifter:
    return jax.eval_shape(lambda key: training.initial_state(config, key).lifter, jax.random.key(0))


def _leaves(lifter: Lifter) -> dict[str, Any]:
    """Return a lifter's arrays by their place in it, as in `generators.params.mlp.first.kernel`."""
    places, _ = jax.tree.flatten_with_path(lifter)
    return {jax.tree_util.keystr(place, simple=True, separator="."): leaf for place, leaf in places}


def _config(file: pathlib.Path, fields: Any) -> LiftingConfig:
    """Return a configuration from what may still be anything."""
    known = {field.name for field in dataclasses.fields(LiftingConfig)}
    if not isinstance(fields, dict) or not known - _NEW <= set(fields) <= known:
        raise InputError(f"{file}: is no configuration of a lifter")
    config = LiftingConfig(**fields)
    for field in dataclasses.fields(LiftingConfig):
        value, expected = getattr(config, field.name), type(field.default)
        # True is an int, too; a number with a fraction may have none.
        good = type(value) is expected or (expected is float and type(value) is int)
        if not good:
            raise InputError(f"{file}: {field.name} is {reprlib.repr(value)}, expected {expected.__name__}")
    try:
        validate(config)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return config


def train(
    path: PathLike,
    poses: Poses2D,
    config: LiftingConfig,
    seed: int = 0,
    checkpoint_seconds: float = 60.0,
    on_stop: Callable[[LiftingState, dict[str, float]], None] | None = None,
) -> LiftingState:
    """Train a lifter in a folder, or resume from its last checkpoint; with more `config.steps` a finished one, too.

    Args:
      path: the folder; made if missing.
      poses: as from `poses.read`. With intrinsics each is seen by a camera that looks at its hip.
      config: as from `config.PRESETS`; checked by `config.validate` before.
      seed: of every random number.
      checkpoint_seconds: least time between two checkpoints; the last step always has one.
      on_stop: called as by `training.train`, before the checkpoint of the same step.

    Raises:
      errors.InputError: the folder holds a run of another configuration, seed or poses, or something else, or another
        process works in it; names the first value that differs.
      errors.DivergedError: numbers are not finite; the last checkpoint is.
    """
    path = pathlib.Path(path)
    with files.locked(path):
        return _train(path, poses, config, seed, checkpoint_seconds, on_stop)


def _train(path: pathlib.Path, poses: Poses2D, config: LiftingConfig, seed: int, checkpoint_seconds: float, on_stop):
    if poses.intrinsics_px is not None:
        looking, _ = lift_arrays.look_at_hip(poses.keypoints_px, poses.visible, poses.intrinsics_px)
        poses = dataclasses.replace(poses, keypoints_px=np.asarray(looking))
    if config.track_weight and poses.track_id is None:
        raise InputError("config.track_weight is about people in several frames, and the poses have no track_id")
    _claim(path, config, seed, poses)
    initial_key, training_key = jax.random.split(jax.random.key(seed))
    checkpoints = Checkpoints(path / "checkpoints")
    last = checkpoints.latest_step()
    state = training.initial_state(config, initial_key)
    if last is not None:
        fresh = state
        state, _, last = checkpoints.resume(lambda _: fresh, remedy="; no other is left, --overwrite starts anew")
        print(f"resuming at step {int(state.step)} of {config.steps}", flush=True)
    saved_at = time.monotonic()
    with (
        MetricLog(path / "metrics.jsonl", last) as log,
        progress.bar(f"lifter {path.name}", total=config.steps, unit="step") as bar,
    ):
        bar.update(int(state.step))

        def stop(state: LiftingState, figures: dict[str, float]) -> None:
            nonlocal saved_at
            step = int(state.step)
            bar.update(step - bar.n)
            log.write(step, figures)
            if on_stop is not None:
                on_stop(state, figures)
            due = time.monotonic() - saved_at >= checkpoint_seconds or machine.stop_requested()
            if step == config.steps or due:
                checkpoints.save(step, state)
                saved_at = time.monotonic()
            machine.stop_if_requested()

        return training.train(state, poses.keypoints_px, poses.visible, config, training_key, stop, poses.track_id)


def remove(path: PathLike) -> None:
    """Remove the run in a folder; nothing happens where there is none.

    Raises:
      errors.InputError: the folder holds something that is not of a lifter's training.
    """
    path = pathlib.Path(path)
    _refuse_other_content(path)
    for name in _CONTENT:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)


def _claim(path: pathlib.Path, config: LiftingConfig, seed: int, poses: Poses2D) -> None:
    """Write config.json, which says what the run is, or compare it; the number of steps and the rate may change."""
    _refuse_other_content(path)
    file = path / "config.json"
    content = hashlib.sha256(poses.keypoints_px.tobytes())
    content.update(poses.visible.tobytes())
    if config.track_weight and poses.track_id is not None:
        content.update(poses.track_id.tobytes())
    wanted = {"config": dataclasses.asdict(config), "seed": seed, "poses_sha256": content.hexdigest()}
    if file.exists():
        saved_values, wanted_values = _flat(_read_json(file)), _flat(wanted)
        for name in sorted((saved_values.keys() | wanted_values.keys()) - {"config.steps", "config.learning_rate"}):
            if saved_values.get(name) != wanted_values.get(name):
                raise InputError(
                    f"{file}: the run there has {name}={saved_values.get(name)}, not {wanted_values.get(name)}; "
                    "choose another --workdir, or --overwrite"
                )
    files.write_json(file, wanted)


def _refuse_other_content(path: pathlib.Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, not the folder of a run")
    names = {one.name for one in path.iterdir()} - _CONTENT if path.exists() else set()
    if foreign := {name for name in names if not name.startswith(".")}:
        raise InputError(f"{path}: holds '{min(foreign)}', so it is not the folder of a lifter's training")


def _read_json(file: pathlib.Path) -> dict[str, Any]:
    content = files.read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: is no JSON object")
    return content


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    config = content.get("config")
    nested = {f"config.{name}": value for name, value in config.items()} if isinstance(config, dict) else {}
    return {name: value for name, value in content.items() if name != "config"} | nested
