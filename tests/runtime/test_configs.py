"""Configurations: equal ones share what is made of them, choices are checked, files fill them."""

import dataclasses
from typing import Literal

import pytest

from dal_jax.runtime import configs
from dal_jax.runtime.errors import InputError


@dataclasses.dataclass
class _Inner:
    kind: Literal["round", "square"] = "round"
    size: float | None = None


@dataclasses.dataclass
class _Outer:
    steps: int = 3
    inner: _Inner = dataclasses.field(default_factory=_Inner)


def test_configurations_of_equal_values_share_a_program():
    made = []

    @configs.cached_by_config
    def make(config: _Outer):
        made.append(config)
        return len(made)

    config = _Outer()
    assert make(config) == make(_Outer()) == 1
    config.inner.size = 3.0
    assert make(config) == 2 and made[0].inner.size is None, "what was made keeps its own values"
    assert make(_Outer()) == 1


def test_a_value_that_is_no_choice_is_one_line():
    configs.check_choices(_Outer())
    config = _Outer()
    config.inner.kind = "oval"
    with pytest.raises(InputError, match=r"^config\.inner\.kind is 'oval': one of round, square$"):
        configs.check_choices(config)


def test_a_file_s_values_replace_the_defaults():
    filled = configs.with_values(_Outer(), {"inner": {"kind": "square", "size": 2}}, "a.json")
    assert filled == _Outer(inner=_Inner("square", 2)) and _Outer().inner.kind == "round"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"stpes": 1}, r"^a\.json: config\.stpes is unknown to this version$"),
        ({"steps": "many"}, r"^a\.json: config\.steps is 'many', not of type int$"),
        ({"inner": {"kind": "oval"}}, r"^a\.json: config\.inner\.kind is 'oval': one of round, square$"),
        ({"inner": {"size": "far"}}, r"config\.inner\.size is 'far', not of type NoneType or float"),
        ({"inner": 3}, r"config\.inner is 3, not of type _Inner"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line(values, told):
    with pytest.raises(InputError, match=told):
        configs.with_values(_Outer(), values, "a.json")
