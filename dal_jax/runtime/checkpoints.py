"""Checkpoints of a training state: a pytree and a little JSON a step, whole or absent, the last few kept.

Orbax writes a step into a temporary folder and renames it, so a process killed at any instant leaves the steps before
it intact and the unfinished one is ignored. The state's structure is stored beside the values and compared before any
value is read: Orbax alone would cast a changed dtype silently and answer a changed shape with pages of text.
A step ends with the checksums of its files: a disk that returns other bits than it was given is found before Orbax sees
them, and the step before goes on.
Orbax takes about two milliseconds a leaf, and a ResNet50 in training has 700 of them, nearly all small: the small ones
are stored as one array of bytes.
"""

import contextlib
import errno
import json
import logging
import os
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from dal_jax.runtime import files, mesh
from dal_jax.runtime.errors import DamagedError, InputError, damage_named
from dal_jax.runtime.files import DISK_FULL, PathLike

PyTree = Any

_STATE = "state"
_SUMS = "checksums.json"
_STEP = re.compile(r"0|[1-9][0-9]*")
_UNFINISHED = ".orbax-checkpoint-tmp"
_SMALL_BYTES = 2**20


class Checkpoints:
    """The steps saved under one folder.

    A leaf of the state may be a JAX or NumPy array, a typed PRNG key, a number or a string; None is structure.
    """

    def __init__(self, directory: PathLike, keep: int = 2):
        """Look at a folder; nothing is created or removed before the first `save`.

        Args:
          directory: holds one sub-folder a step; may be absent or empty.
          keep: how many of the latest steps survive a save.

        Raises:
          InputError: the folder holds something that is no checkpoint.
        """
        self._directory = pathlib.Path(directory).absolute()
        self._keep = keep
        self._damaged: set[int] = set()  # steps that `resume` has passed over; the next save removes them
        self._checked: set[pathlib.Path] = set()  # steps whose checksums are right
        _refuse_foreign_content(self._directory)

    def save(self, step: int, state: PyTree, metadata: dict[str, Any] | None = None) -> None:
        """Write one step and wait until it is on disk; steps beyond the last `keep` are removed afterwards.

        Args:
          step: at least 0, above every saved step.
          state: any pytree.
          metadata: strict JSON (no NaN), returned as it is by `restore`.

        Raises:
          InputError: the disk is full; the steps before stay.
        """
        latest = self.latest_step()
        if latest is not None and step <= latest:
            raise ValueError(f"step {step} is not above the saved step {latest}")
        json.dumps(metadata, allow_nan=False)
        saved, packing = _pack(state)
        notes = {"metadata": metadata or {}, "structure": _structure(state), "packing": packing, "has_sums": True}
        _refuse_without_room(self._directory, sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(saved)))
        if mesh.is_first():
            for rest in self._numbered() - set(self._steps()):
                shutil.rmtree(self._directory / str(rest))
        self._damaged.clear()  # their numbers are given again
        mesh.meet("checkpoint")
        policy: Any = ocp.training.preservation_policies.LatestN(self._keep)
        with (
            _full_disk_named(self._directory),
            ocp.training.Checkpointer(
                str(self._directory), preservation_policy=policy, cleanup_tmp_directories=True
            ) as checkpointer,
        ):
            checkpointer.save(step, saved, checkpointable_name=_STATE, force=True, custom_metadata=notes)
            checkpointer.close()
            if mesh.is_first():
                files.write_json(self._directory / str(step) / _SUMS, _sums(self._directory / str(step)))
        mesh.meet("checksums")

    def latest_step(self) -> int | None:
        """Return the last step, or None where there is none yet; steps that `resume` has found damaged do not count."""
        return max(self._steps(), default=None)

    def _steps(self) -> list[int]:
        return sorted(step for step in self._numbered() - self._damaged if not self._is_unfinished(step))

    def _numbered(self) -> set[int]:
        if not self._directory.is_dir():
            return set()
        return {int(path.name) for path in self._directory.iterdir() if _STEP.fullmatch(path.name)}

    def _is_unfinished(self, step: int) -> bool:
        """Return whether a process was killed after Orbax had written a step and before its checksums were there."""
        path = self._directory / str(step)
        if (path / _SUMS).exists():
            return False
        try:
            return "has_sums" in self._notes(path)
        except InputError:  # who reads the step will hear of it
            return False

    def resume(
        self,
        example: Callable[[int], PyTree],
        partial: bool = False,
        complete: Callable[[PyTree, dict[str, Any]], PyTree] = lambda state, _: state,
        remedy: str = "",
    ) -> tuple[PyTree, dict[str, Any], int]:
        """Read the last step that is whole; a line says which later ones are damaged. There must be a step.

        Args:
          example: as `restore` takes it, of a step.
          partial: as `restore`.
          complete: adds to a state what its metadata say lies elsewhere; damage there is damage of the step.
          remedy: ends the line where no step is whole.

        Returns:
          The state, the metadata and the number of the step. Saving goes on after that step.

        Raises:
          InputError: as `restore`; of damaged steps, where none is whole.
        """
        steps = self._steps()
        for step in reversed(steps):
            try:
                state, metadata = self.restore(example(step), step, partial)
                return complete(state, metadata), metadata, step
            except DamagedError as error:
                if step == steps[0]:
                    raise DamagedError(f"{error}{remedy}") from error
                before = steps[steps.index(step) - 1]
                print(f"warning: {error}; going on from {self._directory / str(before)}", flush=True)
                self._damaged.add(step)
        raise InputError(f"{self._directory}: there is no checkpoint")

    def forget_after(self, step: int) -> None:
        """Take the steps after one for damaged: the next save removes them."""
        self._damaged |= {later for later in self._steps() if later > step}

    def restore(self, example: PyTree, step: int | None = None, partial: bool = False) -> tuple[PyTree, dict[str, Any]]:
        """Read a step into the structure, dtypes and devices of an example.

        Args:
          example: a state of arrays, or of `jax.ShapeDtypeStruct` (without a sharding it lands on all of
            `mesh.of_networks`).
          step: the latest if None.
          partial: the example may leave out leaves of the saved state, for instance all but a network's variables.

        Returns:
          The state, and the metadata of its step.

        Raises:
          InputError: no such step, a damaged one, or another structure; the first leaf that differs is named.
        """
        path = self.path(step)
        notes = self._notes(path)
        context = ocp.Context()
        context.pytree.loading.partial_load = partial
        placed = _placed(example)
        with context, damage_named(path, "checkpoint"):
            _compare(path, _structure(example), notes["structure"], partial)
            packing = notes["packing"]
            wanted = _packed(_leaves(placed), packing, np.zeros(packing["bytes"], np.uint8))
            saved: Any = ocp.load(str(path), wanted, checkpointable_name=_STATE)
            state = _unpack(placed, saved, packing)
        return state, notes["metadata"]

    def structure(self, step: int | None = None) -> dict[str, str]:
        """Return the kind of every leaf of a saved state (the latest if None), by its path: 'float32[3,4]', 'int'.

        Raises:
          InputError: no such step, or a damaged one.
        """
        return self._notes(self.path(step))["structure"]

    def path(self, step: int | None = None) -> pathlib.Path:
        """Return the folder of a step (the latest if None), which must be there."""
        step = self.latest_step() if step is None else step
        path = self._directory if step is None else self._directory / str(step)
        if step is None or not path.is_dir():
            raise (InputError if step is None else DamagedError)(f"{path}: there is no checkpoint")
        if not ocp.is_orbax_checkpoint(str(path)):
            raise DamagedError(f"{path}: damaged checkpoint (Orbax's own notes are missing)")
        self._check_sums(path)
        return path

    def _check_sums(self, path: pathlib.Path) -> None:
        """Compare a step's files with their checksums; steps of before there were any have none."""
        if path in self._checked or not (path / _SUMS).exists():
            return
        with damage_named(path, "checkpoint"):
            wanted, found = files.parse_json((path / _SUMS).read_bytes()), _sums(path)
            different = sorted(wanted.items() ^ found.items())
        if different:
            raise DamagedError(f"{path}: damaged checkpoint ({different[0][0]} is not what was saved)")
        self._checked.add(path)

    def _notes(self, path: pathlib.Path) -> dict[str, Any]:
        with damage_named(path, "checkpoint"):
            notes: Any = ocp.metadata(str(path)).custom_metadata
            if "packing" not in notes:
                raise InputError(f"{path}: was written by dal_jax before small arrays were packed; train again")
            return notes


def _refuse_foreign_content(directory: pathlib.Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: is a file, not a folder of checkpoints")
    for path in sorted(directory.iterdir()) if directory.exists() else []:
        unfinished = _UNFINISHED in path.name or path.name.startswith(".")
        if not unfinished and not (_STEP.fullmatch(path.name) and path.is_dir()):
            raise InputError(f"{directory}: holds '{path.name}', so it is not a folder of checkpoints")


def _structure(state: PyTree) -> dict[str, str]:
    """Describe every leaf: `{"params/dense/kernel": "float32[3,4]", "key": "key<fry>[]", "epoch": "int"}`."""
    return {name: _kind(leaf) for name, leaf in _leaves(state).items()}


def _leaves(state: PyTree) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {_name(path): leaf for path, leaf in leaves}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _kind(leaf: Any) -> str:
    if not hasattr(leaf, "dtype"):
        return type(leaf).__name__
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _compare(path: pathlib.Path, wanted: dict[str, str], saved: dict[str, str], partial: bool) -> None:
    for name, kind in wanted.items():
        if saved.get(name) != kind:
            raise InputError(f"{path}: {name} is {saved.get(name, 'absent')}, expected {kind}")
    unwanted = next((name for name in saved if name not in wanted), None)
    if unwanted is not None and not partial:
        raise InputError(f"{path}: {unwanted} is {saved[unwanted]}, expected absent")


def _placed(example: PyTree) -> PyTree:
    """Give abstract leaves a device: without one Orbax asks for those that were there when the step was saved."""
    everywhere = jax.sharding.NamedSharding(mesh.of_networks(), mesh.WHOLE)

    def place(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
            return leaf.update(sharding=everywhere)
        return leaf

    return jax.tree.map(place, example)


def _pack(state: PyTree) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what Orbax saves, and where in its bytes each small leaf begins: `{"bytes": 96, "offsets": {name: 0}}`."""
    leaves = _leaves(state)
    small = jax.device_get({name: leaf for name, leaf in leaves.items() if _is_small(leaf)})
    offsets, count = {}, 0
    for name, leaf in small.items():
        offsets[name] = count
        count += leaf.nbytes
    packing = {"bytes": count, "offsets": offsets}
    content = b"".join(leaf.tobytes() for leaf in small.values())
    return _packed(leaves, packing, np.frombuffer(content, np.uint8)), packing


def _packed(leaves: dict[str, Any], packing: dict[str, Any], small: np.ndarray) -> dict[str, Any]:
    large = {name: leaf for name, leaf in leaves.items() if name not in packing["offsets"]}
    return {key: value for key, value in (("large", large), ("small", small)) if len(value)}


def _unpack(example: PyTree, saved: dict[str, Any], packing: dict[str, Any]) -> PyTree:
    small = saved.get("small", np.zeros(0, np.uint8))

    def read(path: tuple[Any, ...], leaf: Any) -> Any:
        offset = packing["offsets"].get(_name(path))
        if offset is None:
            return saved["large"][_name(path)]
        value = small[offset : offset + leaf.size * leaf.dtype.itemsize].copy().view(leaf.dtype).reshape(leaf.shape)
        return value if isinstance(leaf, np.ndarray) else mesh.placed(leaf.sharding, value)

    return jax.tree_util.tree_map_with_path(read, example)


def _is_small(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return False
        return leaf.nbytes <= _SMALL_BYTES and (leaf.is_fully_addressable or leaf.is_fully_replicated)
    return isinstance(leaf, np.ndarray) and leaf.nbytes <= _SMALL_BYTES


def _sums(path: pathlib.Path) -> dict[str, int]:
    """Return a checksum of each file of a step, by its name below the step's folder."""
    return {
        file.relative_to(path).as_posix(): zlib.crc32(file.read_bytes())
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != _SUMS and not file.name.endswith(".tmp")
    }


@contextlib.contextmanager
def _full_disk_named(directory: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        said = _of_full_disk(str(error))
        if said is None:
            raise
        raise InputError(f"{directory}: {said}: {_FREE_SOME}") from error


def _of_full_disk(text: str) -> str | None:
    """Return the system's words in one of TensorStore's errors, None where it is another error."""
    return next((os.strerror(code) for code in DISK_FULL if os.strerror(code) in text), None)


# Orbax's threads log errors with their tracebacks, some of them after they have been raised
logging.getLogger("absl").addFilter(lambda record: _of_full_disk(f"{record.getMessage()} {record.exc_info}") is None)

_FREE_SOME = "free some space, and the same command goes on from the checkpoint before"


def _refuse_without_room(directory: pathlib.Path, size: int) -> None:
    """Look before Orbax does: its threads, and TensorStore's, tell of a full disk in pages."""
    place = next(path for path in (directory, *directory.parents) if path.exists())
    if shutil.disk_usage(place).free < 1.05 * size + 2**20:  # what Orbax writes beside: 0.1 MB for the demo
        raise InputError(f"{directory}: {os.strerror(errno.ENOSPC)}: {_FREE_SOME}")
