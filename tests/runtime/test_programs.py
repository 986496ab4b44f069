"""Compiled programs on disk: the same numbers as without, and no file that is not this very program is believed."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import kinematics, rotations
from dal_jax.runtime import machine, programs

ANGLES = np.linspace(-2.0, 2.0, 12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def folder(tmp_path):
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", before)


def _process(variant: tuple = ()):
    """Return the function as another process has it: nothing in memory."""
    return programs.kept(jax.vmap(rotations.axis_angle_to_matrix), variant)


def _files(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Return the file that says which program it is, and the program's."""
    paths = sorted(folder.iterdir(), key=lambda path: "-" not in path.name)
    return paths[0], paths[1]


def test_a_program_from_the_disk_computes_what_the_function_does_bit_for_bit(folder):
    expected = jax.jit(lambda angles: jax.vmap(rotations.axis_angle_to_matrix)(angles))(ANGLES)
    np.testing.assert_array_equal(_process()(ANGLES), expected)
    written = [path.stat().st_ino for path in _files(folder)]
    np.testing.assert_array_equal(_process()(ANGLES), expected)
    assert [path.stat().st_ino for path in _files(folder)] == written, "it was compiled again"


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", ["cut", "changed", "foreign", "empty", "gone"])
def test_a_file_that_is_not_this_program_is_made_anew(folder, damage, which):
    expected = np.asarray(_process()(ANGLES))
    path = _files(folder)[which]
    whole, others = path.read_bytes(), set(folder.iterdir())
    if damage == "foreign":
        _process()(ANGLES[:2])
        (other,) = [one for one in set(folder.iterdir()) - others if ("-" in one.name) == ("-" in path.name)]
        shutil.copy(other, path)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": whole[:-9], "changed": whole[:99] + b"?" + whole[100:], "empty": b""}[damage])
    np.testing.assert_array_equal(_process()(ANGLES), expected)
    again = path.read_bytes()
    assert again[:32] == whole[:32] and again[32:64] == hashlib.sha256(again[64:]).digest(), "the damaged file stayed"
    np.testing.assert_array_equal(_process()(ANGLES), expected)


def test_an_edit_that_changes_no_program_costs_no_compiling(folder, monkeypatch):
    expected = np.asarray(_process()(ANGLES))
    written = _files(folder)[1].stat().st_ino
    monkeypatch.setattr(programs, "_hash", lambda: "of edited files")
    np.testing.assert_array_equal(_process()(ANGLES), expected)
    (program,) = [path for path in folder.iterdir() if "-" not in path.name]
    assert len(list(folder.iterdir())) == 3 and program.stat().st_ino == written


def test_a_program_whose_answer_is_of_a_class_that_has_moved_is_made_anew(folder):
    expected = programs.kept(kinematics.fix_gauge)(kinematics.t_pose()).segment_scale
    path = _files(folder)[1]
    whole = path.read_bytes()
    moved = whole[64:].replace(b"dal_jax.body.kinematics", b"dal_jax.body.kinematicz")
    assert moved != whole[64:]
    path.write_bytes(whole[:32] + hashlib.sha256(moved).digest() + moved)
    again = programs.kept(kinematics.fix_gauge)(kinematics.t_pose())
    np.testing.assert_array_equal(again.segment_scale, expected)
    assert path.read_bytes()[64:] != moved


_SCRIPT = """
import sys
import jax, numpy as np
from dal_jax.body import rotations
from dal_jax.runtime import programs
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
print(programs.kept(rotations.nearest_rotation)(np.diag([3.0, 2.0, 1.0]).astype(np.float32)).tolist())
"""


def test_a_process_that_lowers_nothing_finds_lapack(folder):
    """JAX looks for LAPACK's functions when it lowers a call of one; a call without them is a segmentation fault."""
    written = []
    for _ in range(2):
        command = [sys.executable, "-c", _SCRIPT, str(folder.parent)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[:2000]
        np.testing.assert_allclose(json.loads(done.stdout), np.eye(3), atol=1e-6)
        written.append(_files(folder)[1].stat().st_ino)
    assert written[0] == written[1] and programs._LAPACK in _files(folder)[1].read_bytes()


def test_what_jax_s_own_cache_gives_is_run_and_not_written(folder):
    """It has lost the names of its functions, which another process would ask for."""
    expected = jax.jit(jax.vmap(rotations.axis_angle_to_matrix))(ANGLES)
    for _ in range(2):
        hits = len(programs._hits)
        np.testing.assert_allclose(_process()(ANGLES), expected, atol=1e-6)
        assert len(programs._hits) > hits
    assert [path for path in folder.iterdir() if "-" not in path.name] == []


@pytest.mark.parametrize("devices", [1, 2])
def test_arguments_stay_on_their_devices(folder, devices):
    mesh = jax.make_mesh((devices,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[-devices:])
    split = jax.device_put(ANGLES, jax.NamedSharding(mesh, jax.P("data")))
    for _ in range(2):
        found = _process()(split)
        assert found.sharding.device_set == set(jax.devices()[-devices:])
        np.testing.assert_allclose(found, _process()(ANGLES), atol=1e-6)


def test_whatever_tracing_reads_makes_another_program(folder, monkeypatch):
    def count() -> int:
        return sum("-" in path.name for path in folder.iterdir())

    _process()(ANGLES)
    _process()(jnp.asarray(ANGLES))
    assert count() == 1
    _process(("other",))(ANGLES)
    assert count() == 2
    with jax.default_matmul_precision("bfloat16"):
        _process()(ANGLES)
    assert count() == 3
    monkeypatch.setattr(rotations, "skew", jnp.diag)
    _process()(ANGLES)
    assert count() == 4


def test_what_cannot_be_told_is_not_kept(folder, monkeypatch):
    _process((object(),))(ANGLES)
    programs.kept(lambda x: x + 1)(ANGLES)  # its source is not the package's
    monkeypatch.setattr(programs, "_IMPORTED_NS", 0)  # as if the package had been edited since
    _process()(ANGLES)
    assert not folder.exists()


@pytest.mark.parametrize("registry", [False, True])
def test_a_function_of_the_caller_s_own_is_not_kept(folder, monkeypatch, registry):
    """It may change without a word that could be read; the folder's programs are of what it was before."""
    if registry:
        monkeypatch.setattr(rotations, "BY_NAME", {"skew": lambda vector: 0}, raising=False)
    else:
        monkeypatch.setattr(rotations, "skew", lambda vector: jnp.zeros((3, 3)))
        np.testing.assert_array_equal(_process()(ANGLES), np.tile(np.eye(3), (4, 1, 1)))
    _process()(ANGLES)
    assert not folder.exists()


def test_it_is_differentiated_and_batched_as_the_function_is(folder):
    kept = _process()
    slope = jax.grad(lambda angles: jnp.sum(kept(angles) ** 3))(ANGLES)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(jax.vmap(kept)(ANGLES[None])[0], kept(ANGLES), atol=1e-6)


def test_a_full_disk_costs_no_result(folder):
    folder.parent.joinpath("programs").write_text("no folder")
    np.testing.assert_array_equal(_process()(ANGLES), jax.jit(jax.vmap(rotations.axis_angle_to_matrix))(ANGLES))
    os.remove(folder)


def test_for_few_people_it_is_compiled_quickly_with_the_same_numbers(folder, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # the tests' own say how hard to try
    found = []
    for people in (5000, 5001):
        with machine.for_people(people):
            found.append(np.asarray(_process()(ANGLES)))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    monkeypatch.setattr(machine, "known_options", lambda: {"no_such_option": 1})
    with machine.for_people(5001):
        _process()(ANGLES[:3])
    with machine.for_people(5000), pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        _process()(ANGLES[:3])


def test_an_option_that_this_xla_does_not_have_is_left_out(monkeypatch):
    known = {"xla_backend_optimization_level": 1}
    monkeypatch.setattr(machine, "QUICK", {"xla_of_another_release": 1, **known})
    assert machine.known_options.__wrapped__() == known
