"""What is saved comes back bit by bit, on a good day and after a SIGKILL in the middle of a save."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

from dal_jax.runtime import struct
from dal_jax.runtime.checkpoints import Checkpoints
from dal_jax.runtime.errors import InputError


@struct.dataclass
class _State:
    parameters: Any
    optimiser: Any
    key: jax.Array
    fits: np.ndarray
    missing: None
    round: int
    name: str = struct.static()


def _state(step: int = 0, width: int = 3) -> _State:
    parameters = {"dense": {"kernel": jnp.full((width, 4), step, jnp.float32), "bias": jnp.zeros(())}}
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(parameters)
    fits = np.arange(5, dtype=np.float64) / 3 + step  # float64: NumPy leaves never pass through JAX
    return _State(parameters, optimiser, jax.random.key(step), fits, None, step, "state")


def _assert_same(state, expected):
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for leaf, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert type(leaf) is type(wanted)
        if hasattr(leaf, "dtype"):
            assert leaf.dtype == wanted.dtype
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf, wanted = jax.random.key_data(leaf), jax.random.key_data(wanted)
        np.testing.assert_array_equal(leaf, wanted)


def test_every_kind_of_leaf_comes_back(tmp_path):
    metadata = {"phase": "deform", "history": [{"round": 1, "error_mm": 0.1, "truth": None}]}
    Checkpoints(tmp_path / "new").save(7, _state(7), metadata)
    folder = Checkpoints(tmp_path / "new")
    assert folder.latest_step() == 7
    state, restored = folder.restore(_state(0))
    _assert_same(state, _state(7))
    assert restored == metadata


def test_small_arrays_are_packed_and_large_ones_are_not(tmp_path):
    """Of any dtype and shape, at any place in the bytes; a part of them can be read, too."""
    arrays = {
        "byte": np.arange(3, dtype=np.uint8),
        "half": jnp.arange(5, dtype=jnp.bfloat16),
        "nothing": np.zeros((0, 3), np.float32),
        "yes": jnp.asarray(True),
        "double": np.arange(4.0).reshape(2, 2).T,
        "large": jnp.arange(600_000.0),
        "large too": np.arange(300_000.0),
    }
    folder = Checkpoints(tmp_path)
    folder.save(1, arrays)
    example = {name: (np if isinstance(leaf, np.ndarray) else jnp).zeros_like(leaf) for name, leaf in arrays.items()}
    _assert_same(folder.restore(example)[0], arrays)
    for name in ("half", "large"):
        _assert_same(folder.restore({name: arrays[name]}, partial=True)[0], {name: arrays[name]})
    assert len(list((tmp_path / "1" / "state").rglob("*"))) < 25  # Orbax merges its files or does not


def test_nothing_is_made_before_the_first_save(tmp_path):
    folder = Checkpoints(tmp_path / "none")
    assert folder.latest_step() is None
    with pytest.raises(InputError, match="none: there is no checkpoint"):
        folder.restore(_state())
    assert not (tmp_path / "none").exists()


def test_the_last_few_are_kept(tmp_path):
    folder = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 5, 12):
        folder.save(step, {"x": np.array(step)})
    assert sorted(os.listdir(tmp_path)) == ["12", "5"]
    assert folder.restore({"x": np.array(0)}, step=5)[0]["x"] == 5
    with pytest.raises(InputError, match="/2: there is no checkpoint"):
        folder.restore({"x": np.array(0)}, step=2)


def test_steps_only_grow_and_metadata_is_json(tmp_path):
    folder = Checkpoints(tmp_path)
    folder.save(3, {"x": np.array(1)})
    with pytest.raises(ValueError, match="step 3 is not above the saved step 3"):
        folder.save(3, {"x": np.array(1)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.save(4, {"x": np.array(1)}, {"error_mm": float("nan")})
    assert folder.latest_step() == 3


def test_a_part_can_be_read_alone(tmp_path):
    folder = Checkpoints(tmp_path)
    folder.save(1, {"network": {"w": jnp.ones((2, 3))}, "optimiser": jnp.zeros(4)})
    part = {"network": {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32)}}
    state, _ = folder.restore(part, partial=True)
    chex.assert_trees_all_equal(state, {"network": {"w": jnp.ones((2, 3))}})
    assert state["network"]["w"].devices() == {jax.devices()[0]}
    with pytest.raises(InputError, match=r"optimiser is float32\[4\], expected absent"):
        folder.restore(part)


@pytest.mark.parametrize("count", [8, 400_000], ids=["small", "large"])
def test_leaves_land_where_the_example_lies(tmp_path, count):
    folder = Checkpoints(tmp_path)
    mesh = jax.make_mesh((2,), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    folder.save(1, {"x": jnp.arange(float(count))})
    state, _ = folder.restore({"x": jax.device_put(jnp.zeros(count), split)})
    assert state["x"].sharding == split
    np.testing.assert_array_equal(state["x"], np.arange(count))


def test_a_checkpoint_of_before_packing_is_one_line(tmp_path):
    with ocp.training.Checkpointer(str(tmp_path)) as checkpointer:
        notes = {"metadata": {}, "structure": {"x": "float64[3]"}}
        checkpointer.save(1, {"x": np.zeros(3)}, checkpointable_name="state", custom_metadata=notes)
    with pytest.raises(InputError, match="1: was written by dal_jax before small arrays were packed; train again"):
        Checkpoints(tmp_path).restore({"x": np.zeros(3)})


@pytest.mark.parametrize(
    ("example", "told"),
    [
        (_state(width=2), r"1: parameters/dense/kernel is float32\[3,4\], expected float32\[2,4\]"),
        (_state().replace(fits=np.zeros(5, np.float32)), r"1: fits is float64\[5\], expected float32\[5\]"),
        (_state().replace(key=jax.random.PRNGKey(0)), r"1: key is key<fry>\[\], expected uint32\[2\]"),
        (_state().replace(missing=np.zeros(1)), r"1: missing is absent, expected float64\[1\]"),
        (_state().replace(fits=None), r"1: fits is float64\[5\], expected absent"),
    ],
)
def test_another_structure_is_named(tmp_path, example, told):
    folder = Checkpoints(tmp_path)
    folder.save(1, _state())
    with pytest.raises(InputError, match=told) as caught:
        folder.restore(example)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["photo.jpg", "007", "best"])
def test_a_foreign_folder_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"holds '{name}', so it is not a folder of checkpoints"):
        Checkpoints(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file"):
        Checkpoints(tmp_path / "file")


@pytest.mark.parametrize("pattern", ["state/manifest.ocdbt", "state/_METADATA", "_CHECKPOINT_METADATA", "state/d/*"])
def test_damage_is_told_in_one_line(tmp_path, pattern):
    folder = Checkpoints(tmp_path)
    folder.save(1, {"x": np.arange(1000.0)})
    for path in (tmp_path / "1").glob(pattern):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError) as caught:
        folder.restore({"x": np.arange(1000.0)})
    assert str(caught.value).startswith(f"{tmp_path}/1: ")
    assert "\n" not in str(caught.value)


def _three(folder: pathlib.Path) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=3)
    for step in (1, 2, 3):
        large = np.random.default_rng(step).normal(size=200_000)  # above what is packed
        checkpoints.save(step, {"large": large, "small": np.arange(5.0), "key": jax.random.key(step)}, {"at": step})
    return checkpoints


_EXAMPLE = {"large": np.zeros(200_000), "small": np.zeros(5), "key": jax.random.key(0)}


def test_no_flipped_bit_is_believed(tmp_path):
    """Anywhere in a step: the step before is read."""
    rng = np.random.default_rng(0)
    _three(tmp_path / "whole")
    paths = [path for path in sorted((tmp_path / "whole" / "3").rglob("*")) if path.is_file() and path.stat().st_size]
    for path in paths * 3:
        content = path.read_bytes()
        flipped = bytearray(content)
        place = rng.integers(len(content))
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        state, notes, step = Checkpoints(tmp_path / "whole").resume(lambda _: _EXAMPLE)
        assert step == notes["at"] == 2
        np.testing.assert_array_equal(state["large"], np.random.default_rng(2).normal(size=200_000))
        path.write_bytes(content)
    assert Checkpoints(tmp_path / "whole").resume(lambda _: _EXAMPLE)[2] == 3


def test_a_damaged_step_is_passed_over_and_goes_with_the_next_save(tmp_path, capsys):
    folder = _three(tmp_path)
    notes = tmp_path / "3" / "_CHECKPOINT_METADATA"
    notes.write_text(notes.read_text().replace('"at":3', '"at":4').replace('"at": 3', '"at": 4'))
    _, metadata, step = folder.resume(lambda _: _EXAMPLE)
    assert (metadata, step, folder.latest_step()) == ({"at": 2}, 2, 2)
    told = capsys.readouterr().out
    assert told == (
        f"warning: {tmp_path}/3: damaged checkpoint (_CHECKPOINT_METADATA is not what was saved); "
        f"going on from {tmp_path}/2\n"
    )
    for step in (3, 4, 5):
        folder.save(step, _EXAMPLE, {"at": step + 2})
        assert folder.latest_step() == step
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4", "5"]
    assert Checkpoints(tmp_path).resume(lambda _: _EXAMPLE)[1:] == ({"at": 7}, 5)


def test_a_step_without_its_checksums_was_not_finished(tmp_path):
    folder = _three(tmp_path)
    (tmp_path / "3" / "checksums.json").unlink()
    assert folder.latest_step() == 2
    folder.save(3, _EXAMPLE)
    assert folder.latest_step() == 3


def test_without_a_whole_step_the_damage_is_named(tmp_path):
    Checkpoints(tmp_path).save(1, {"x": np.arange(9)})
    (tmp_path / "1" / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(InputError, match="1: damaged checkpoint ._CHECKPOINT_METADATA is not .*; begin anew$"):
        Checkpoints(tmp_path).resume(lambda _: {"x": np.zeros(9, int)}, remedy="; begin anew")


_FULL = """
import resource, sys
import numpy as np
from dal_jax.runtime import checkpoints, errors, files

folder = checkpoints.Checkpoints(sys.argv[1])
folder.save(1, {"x": np.arange(300_000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))
try:
    folder.save(2, {"x": np.random.default_rng(0).normal(size=300_000)})
except errors.InputError as error:
    print(error)
try:
    files.write_bytes(sys.argv[1] + "/../out", bytes(200_000))
except OSError as error:
    print(error.filename, error.strerror)
"""


def test_a_full_disk_is_one_line_and_keeps_the_step_before(tmp_path):
    """The system's limit on a file's size stands for the disk: what is written to it fails alike."""
    command = [sys.executable, "-c", _FULL, str(tmp_path / "steps")]
    done = subprocess.run(command, cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr, "Orbax logs what it raises"
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{tmp_path}/steps: File too large: free some space, and the same command goes on")
    assert second == f"{tmp_path}/steps/../out File too large" and os.listdir(tmp_path) == ["steps"]
    state, _, step = Checkpoints(tmp_path / "steps").resume(lambda _: {"x": np.zeros(300_000, int)})
    assert step == 1 and np.array_equal(state["x"], np.arange(300_000))


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000))
    folder = Checkpoints(tmp_path / "run" / "steps")
    with pytest.raises(InputError, match="steps: No space left on device: free some space, and the same command"):
        folder.save(1, {"x": np.zeros(2_000_000, np.uint8)})
    assert not (tmp_path / "run").exists()
    folder.save(1, {"x": np.zeros(1_800_000, np.uint8)})


_SAVES = 10_000  # never reached
_SIZE = 300_000
_CHILD = textwrap.dedent(
    """
    import sys
    import numpy as np
    from dal_jax.runtime import checkpoints

    folder = checkpoints.Checkpoints(sys.argv[1])
    start = folder.latest_step()
    for step in range(0 if start is None else start + 1, int(sys.argv[2])):
        folder.save(step, {"x": np.full(int(sys.argv[3]), step)}, {"step": step})
        print(step, flush=True)
    """
)


@pytest.mark.slow
def test_sigkill_in_the_middle_of_saves(tmp_path):
    """Every save that returned is there afterwards, whole; killed saves leave nothing that is read."""
    rng = random.Random(0)
    root = pathlib.Path(__file__).parents[2]
    reached = -1
    for _ in range(4):
        command = [sys.executable, "-c", _CHILD, str(tmp_path / "steps"), str(_SAVES), str(_SIZE)]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as child:
            first = int(child.stdout.readline())
            assert first == reached + 1
            time.sleep(rng.uniform(0.0, 0.3))
            child.send_signal(signal.SIGKILL)
            told = [first, *map(int, child.stdout.read().split())]
        folder = Checkpoints(tmp_path / "steps")
        reached = folder.latest_step()
        assert reached in (told[-1], told[-1] + 1)  # the last may have been whole before it was told
        state, metadata = folder.restore({"x": np.zeros(_SIZE, np.int64)})
        assert metadata == {"step": reached}
        np.testing.assert_array_equal(state["x"], reached)
