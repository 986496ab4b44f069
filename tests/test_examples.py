"""The numbered examples run, are as short as promised, and print what they say."""

import importlib
import pathlib
import re

import pytest

import dal_jax as dal

EXAMPLES = sorted(path.stem for path in (pathlib.Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))
LINES, OWN_LINES = 60, 25


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name):
    assert len(_source(name).splitlines()) <= LINES


@pytest.mark.parametrize(("name", "function"), [("05_own_solver", "newton_cg"), ("06_own_energy_term", "asymmetry")])
def test_a_solver_and_a_term_of_one_s_own_are_shorter(name, function):
    own = _source(name).partition(f"def {function}(")[2].partition("\ndef ")[0]
    assert len(own.splitlines()) < OWN_LINES


def _source(name):
    return (pathlib.Path(__file__).parents[1] / "examples" / f"{name}.py").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXAMPLES if "_own_" not in name])
def test_an_example_runs(name, monkeypatch, tmp_path, capsys):
    """The two of one's own solver and term run below, where what they print is looked at."""
    monkeypatch.setattr("sys.argv", [name])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    importlib.import_module(f"examples.{name}").main()
    assert "nan" not in capsys.readouterr().out


def test_the_own_solver_finds_the_minimum(capsys):
    importlib.import_module("examples.05_own_solver").main()
    reference, own = _numbers(r"energy (\S+)", capsys.readouterr().out)
    assert own == pytest.approx(reference, rel=0.01)


def test_the_own_term_makes_bodies_symmetric(capsys):
    importlib.import_module("examples.06_own_energy_term").main()
    without, with_it = _numbers(r"by (\S+) mm", capsys.readouterr().out)
    assert with_it < 0.1 * without


def _numbers(pattern, text):
    return [float(number) for number in re.findall(pattern, text)]


def test_the_sample_is_small_and_can_be_read():
    """What the README's first command reads; two people with dense points and key points, seen by the photographs."""
    folder = pathlib.Path(__file__).parents[1] / "examples" / "sample"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 300_000
    people = dal.read_annotations(folder / "people.json", images=folder / "photos").people
    assert [person.file_name for person in people] == ["person_0.jpg", "person_1.jpg"]
    assert all(len(person.part) > 50 and (person.keypoints.flag > 0).sum() > 10 for person in people)
