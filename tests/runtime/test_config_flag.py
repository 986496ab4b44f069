"""A dataclass as flags: what is set is set, what is wrong is named."""

import dataclasses
import sys
from typing import Literal

import pytest
from absl import flags

from dal_jax.runtime import cli


@dataclasses.dataclass
class _Training:
    learning_rate: float = 1e-3  # of Adam (paper: 1e-4)
    optimizer: Literal["adam", "lm"] = "adam"  # who minimises
    steps: int | None = None


@dataclasses.dataclass
class _Config:
    preset: str = "demo"  # demo or paper
    refit: bool = True
    sizes: tuple[int, ...] = (64, 128)  # px
    range: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ("S1",)
    training: _Training = dataclasses.field(default_factory=_Training)


def _paper() -> _Config:
    return _Config(preset="paper", training=_Training(learning_rate=1e-4, steps=300))


@pytest.fixture
def parse(monkeypatch):
    """Return a function from command line to configuration, on flags that only this test sees."""

    def parse_line(*arguments: str) -> _Config:
        values = flags.FlagValues()
        argv = ["binary", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        holder = cli.define_config(_Config(), {"demo": _Config, "paper": _paper}, flag_values=values)
        values(argv)
        return holder.value

    return parse_line


def test_defaults_and_presets(parse):
    assert parse() == _Config()
    assert parse("--config.preset=paper") == _paper()


@pytest.mark.parametrize(
    "line",
    [
        ("--config.preset=paper", "--config.training.steps=5"),
        ("--config.training.steps=5", "--config.preset=paper"),
        ("--config.training.steps", "5", "--config.preset", "paper"),
    ],
)
def test_overrides_apply_on_top_of_a_preset(parse, line):
    expected = _paper()
    expected.training.steps = 5
    assert parse(*line) == expected


@pytest.mark.parametrize(
    ("argument", "path", "value"),
    [
        ("--config.refit=False", "refit", False),
        ("--noconfig.refit", "refit", False),
        ("--config.sizes=3,4,5", "sizes", (3, 4, 5)),
        ("--config.sizes=(3,)", "sizes", (3,)),
        ("--config.sizes=()", "sizes", ()),
        ("--config.range=0,0.5", "range", (0.0, 0.5)),
        ("--config.names=S1,S5", "names", ("S1", "S5")),
        ("--config.names=('S1', 'S5')", "names", ("S1", "S5")),
    ],
)
def test_values_have_their_field_type(parse, argument, path, value):
    assert repr(getattr(parse(argument), path)) == repr(value)


def test_a_choice_is_taken(parse):
    assert parse("--config.training.optimizer=lm").training.optimizer == "lm"


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--config.preset=papre", "flag --config.preset=papre: one of demo, paper"),
        ("--config.refti=1", "flag --config.refti: no such field; did you mean --config.refit?"),
        ("--config.zzz=1", "flag --config.zzz: no such field; --help lists the fields"),
        ("--config.training=1", "flag --config.training: is a group"),
    ],
)
def test_what_does_not_exist_is_named(parse, capsys, argument, told):
    with pytest.raises(SystemExit) as exit_:
        parse(argument)
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--config.training.learning_rate=fast", "learning_rate=fast: could not convert"),
        ("--config.training.steps=1.5", "steps=1.5: invalid literal"),
        ("--config.training.optimizer=sgd", "optimizer=sgd: value should be one of <adam|lm>"),
        ("--config.refit=perhaps", "refit=perhaps: .*Non-boolean"),
        ("--config.sizes=3,a", "sizes=3,a: is no tuple"),
        ("--config.sizes=3,4.5", "sizes=3,4.5: 4.5 is no int"),
        ("--config.range=1", "range=1: 2 values are needed"),
    ],
)
def test_a_value_of_another_type_is_refused(parse, argument, told):
    with pytest.raises(flags.IllegalFlagValueError, match=told):
        parse(argument)


def test_help_lists_every_field_with_its_comment(parse, monkeypatch):
    values = flags.FlagValues()
    monkeypatch.setattr(sys, "argv", ["binary"])
    cli.define_config(_Config(), flag_values=values)
    lines = values["config"].help.splitlines()
    assert "training.learning_rate=0.001  of Adam (paper: 1e-4)" in lines
    assert "sizes=(64, 128)  px" in lines
    assert "training.steps=None" in lines
    assert len(lines) == 1 + 5 + 3
