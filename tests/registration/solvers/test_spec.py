"""Specs of optimisers: what is understood, and one line for everything else."""

import inspect

import pytest

from dal_jax.registration.solvers.spec import check_arguments, nearest, parse


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("adam", "adam", {}),
        (" lm ", "lm", {}),
        ("lm()", "lm", {}),
        ("adam(learning_rate=0.03)", "adam", {"learning_rate": 0.03}),
        ("optax.adabelief(learning_rate=5e-2, b1=.9,)", "optax.adabelief", {"learning_rate": 0.05, "b1": 0.9}),
        ("optax.contrib.muon", "optax.contrib.muon", {}),
        ("f(a=-1, b='x:y(', c=None, d=(1, 2), e=True)", "f", {"a": -1, "b": "x:y(", "c": None, "d": (1, 2), "e": True}),
        ("my_package.fits:heavy_ball", "my_package.fits:heavy_ball", {}),
        ("fits:heavy_ball(momentum=0.9)", "fits:heavy_ball", {"momentum": 0.9}),
    ],
)
def test_names_and_arguments_arrive(text, name, arguments):
    found = parse(text)
    assert (found.name, found.arguments) == (name, arguments)


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "3", "a b", "adam(", "adam)", "(lm", "a..b", ".a", "a.", ":f", "a:", "a:b:c", "a/b:c", "lambda: 0",
        "adam()()", "adam[0]", "'adam'", "not a", "a if b else c", "adam\0", "adam; lm", "adam, lm", "a.b:c.1",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(text):
    assert "write NAME" in _refusal(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("adam(0.1)", "by name"),
        ("adam(*[1])", "by name"),
        ("adam(**{'b1': 1})", "argument **"),
        ("adam(b1=1, b1=2)", "argument b1"),
        ("adam(b1=x)", "b1=x is no literal"),
        ("adam(b1=print('called'))", "is no literal"),
        ("adam(b1=10**9)", "is no literal"),
        ("adam(b1=[i for i in (1,)])", "is no literal"),
        ("adam(b1=" + "-" * 400 + "1)", "is no literal"),
        ("__import__('os').system('ls')", "write NAME"),
        ("x" * 501, "500"),
        (None, "500"),
        (b"adam", "500"),
    ],
)
def test_what_is_no_argument_is_refused(text, told, capsys):
    assert told in _refusal(text)
    assert capsys.readouterr().out == ""


def _refusal(text):
    with pytest.raises(ValueError, match="^optimizer '") as caught:
        parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 450
    return message


def _function(problem, needed, *, optional=1, filled, **rest):
    del problem, needed, optional, filled, rest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("f(needed=1)", None),
        ("f(needed=1, optional=2, filled=3)", None),
        ("f(optional=2)", "f needs needed"),
        ("f(needed=1, optionel=2)", "f has no argument 'optionel'; nearest: optional"),
        ("f(needed=1, qq=2)", "f has no argument 'qq'; there is needed, optional, filled"),
    ],
)
def test_arguments_are_compared_with_the_signature(text, told):
    _, *parameters = inspect.signature(_function).parameters.values()
    spec = parse(text)
    if told is None:
        check_arguments(spec, parameters, filled=("filled",))
    else:
        with pytest.raises(ValueError, match="^optimizer '") as caught:
            check_arguments(spec, parameters, filled=("filled",))
        assert str(caught.value) == f"optimizer '{text}': {told}"


def test_the_nearest_is_judged_by_the_last_word():
    known = ["lm", "adam", "optax.adam", "optax.nadam", "optax.contrib.prodigy"]
    assert nearest("nadam", known).startswith("nearest: optax.nadam, adam")
    assert nearest("optax.prodigi", known) == "nearest: optax.contrib.prodigy"
    assert nearest("wxyz", known, "look it up") == "look it up"
    assert nearest("wxyz", ["b", "a"]) == "there is b, a"
    assert nearest("wxyz", []) == "there is none"
