"""Where compiled programs are kept."""

import pathlib

import jax
import pytest

from dal_jax.runtime import machine


@pytest.fixture
def unset():
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DAL_CACHE": "{tmp}/mine", "XDG_CACHE_HOME": "{tmp}/xdg"}, "{tmp}/mine"),
        ({"XDG_CACHE_HOME": "{tmp}/xdg"}, "{tmp}/xdg/dal_jax"),
        ({"HOME": "{tmp}"}, "{tmp}/.cache/dal_jax"),
    ],
)
def test_folder(monkeypatch, tmp_path, environment, expected):
    for name in ("DAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    folder = pathlib.Path(expected.format(tmp=tmp_path))
    assert machine.configure() == folder
    assert folder.is_dir()
    assert jax.config.jax_compilation_cache_dir == str(folder)


@pytest.mark.usefixtures("unset")
def test_empty_turns_it_off(monkeypatch):
    monkeypatch.setenv("DAL_CACHE", "")
    assert machine.configure() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_jax_own_setting_wins(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    monkeypatch.setenv("DAL_CACHE", str(tmp_path / "other"))
    try:
        assert machine.configure() == tmp_path
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("unset")
def test_a_first_run_says_that_it_compiles_and_an_interrupted_one_does_not_count(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DAL_CACHE", str(tmp_path))

    def said(ends_well=True):
        try:
            with machine.compiling("fit", "a minute"):
                if not ends_well:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        return capsys.readouterr().out

    first = "compiling (first run: about a minute; later runs read the cache)\n"
    assert said(ends_well=False) == first and said() == first
    assert said() == ""
    monkeypatch.setenv("DAL_CACHE", "")
    jax.config.update("jax_compilation_cache_dir", None)
    assert said() == "compiling: about a minute (nothing is kept: DAL_CACHE is empty)\n"
