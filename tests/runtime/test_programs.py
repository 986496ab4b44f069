"""Traced programs on disk: the same numbers as without, and no file that is not this very program is believed."""

import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import rotations
from dal_jax.runtime import programs

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


def _only(folder: pathlib.Path) -> pathlib.Path:
    (path,) = folder.iterdir()
    return path


def test_a_program_from_the_disk_computes_what_the_function_does_bit_for_bit(folder):
    expected = jax.jit(jax.vmap(rotations.axis_angle_to_matrix))(ANGLES)
    np.testing.assert_array_equal(_process()(ANGLES), expected)
    written = _only(folder).stat().st_ino
    np.testing.assert_array_equal(_process()(ANGLES), expected)
    assert _only(folder).stat().st_ino == written, "it was traced again"


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign", "empty"])
def test_a_file_that_is_not_this_program_is_made_anew(folder, damage):
    expected = np.asarray(_process()(ANGLES))
    path = _only(folder)
    whole = path.read_bytes()
    if damage == "foreign":
        _process()(ANGLES[:2])
        (other,) = set(folder.iterdir()) - {path}
        shutil.copy(other, path)
    else:
        path.write_bytes({"cut": whole[:-9], "changed": whole[:99] + b"?" + whole[100:], "empty": b""}[damage])
    np.testing.assert_array_equal(_process()(ANGLES), expected)
    assert path.read_bytes()[:64] == whole[:64], "the damaged file stayed"


def test_whatever_tracing_reads_makes_another_program(folder, monkeypatch):
    def count() -> int:
        return len(list(folder.iterdir()))

    _process()(ANGLES)
    _process()(jnp.asarray(ANGLES))
    assert count() == 1
    _process(("other",))(ANGLES)
    assert count() == 2
    with jax.default_matmul_precision("bfloat16"):
        _process()(ANGLES)
    assert count() == 3
    monkeypatch.setattr(rotations, "skew", lambda vector: jnp.zeros((3, 3)))
    np.testing.assert_array_equal(_process()(ANGLES), np.tile(np.eye(3), (4, 1, 1)))
    assert count() == 4


def test_what_cannot_be_told_is_not_kept(folder, monkeypatch):
    _process((object(),))(ANGLES)
    programs.kept(lambda x: x + 1)(ANGLES)  # its source is not the package's
    monkeypatch.setattr(programs, "_IMPORTED_NS", 0)  # as if the package had been edited since
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
        with programs.for_people(people):
            found.append(np.asarray(_process()(ANGLES)))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    monkeypatch.setattr(programs, "_QUICK", {"no_such_option": 1})
    with programs.for_people(5001):
        _process()(ANGLES)
    with programs.for_people(5000), pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        _process()(ANGLES)
