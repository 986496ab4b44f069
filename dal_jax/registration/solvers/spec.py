"""How an optimiser is written in one flag: `NAME` or `NAME(argument=literal, ...)`.

NAME is a word (`adam`), a dotted name (`optax.adabelief`) or a function of a module (`package.module:function`).
Nothing is evaluated: arguments are Python literals.
"""

import ast
import dataclasses
import difflib
import inspect
from collections.abc import Container, Iterable
from typing import Any

_LONGEST = 500


class SpecError(ValueError):
    """A spec that cannot be used; one line."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """name: as written, without arguments; arguments: by name."""

    text: str
    name: str
    arguments: dict[str, Any]

    def wrong(self, reason: object) -> "SpecError":
        """Return the one-line error that names the spec."""
        return SpecError(f"optimizer '{self.text}': {' '.join(str(reason).split())[:300]}")


def parse(text: str) -> Spec:
    """Take a spec apart.

    Raises:
      SpecError: it is not of that form; one line.
    """
    shown = Spec(" ".join(str(text).split())[:80], "", {})
    form = "write NAME, NAME(argument=value, ...) or package.module:NAME"
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise shown.wrong(f"not a text of at most {_LONGEST} characters")
    module, call = _split(text.strip())
    try:
        tree = ast.parse(call, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise shown.wrong(form) from error
    called = tree.func if isinstance(tree, ast.Call) else tree
    name = ast.get_source_segment(call, called) or ""
    if not all(word.isidentifier() for word in (name if module is None else f"{module}.{name}").split(".")):
        raise shown.wrong(form)
    full_name = name if module is None else f"{module}:{name}"
    if not isinstance(tree, ast.Call):
        return Spec(shown.text, full_name, {})
    if tree.args:
        raise shown.wrong("arguments are given by name, as in NAME(argument=value)")
    return Spec(shown.text, full_name, _literals(shown, call, tree.keywords))


def _split(text: str) -> tuple[str | None, str]:
    """Return what stands before a colon that is not among the arguments, and the rest."""
    module, colon, call = text.partition(":")
    return (module, call) if colon and "(" not in module else (None, text)


def _literals(shown: Spec, call: str, keywords: list[ast.keyword]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for keyword in keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise shown.wrong(f"argument {keyword.arg or '**'} is not given once, by name")
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            value = (ast.get_source_segment(call, keyword.value) or "")[:60]
            raise shown.wrong(f"{keyword.arg}={value} is no literal (a number, text, True, None, ...)") from error
    return arguments


def check_arguments(spec: Spec, parameters: Iterable[inspect.Parameter], filled: Container[str] = ()) -> None:
    """Compare a spec's arguments with a function's parameters; those `filled` in by the caller need not be given.

    Raises:
      SpecError: an argument that it does not have, or lacks; names the nearest.
    """
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [p.name for p in named]
    for argument in spec.arguments:
        if argument not in known:
            raise spec.wrong(f"{spec.name} has no argument '{argument}'; {nearest(argument, known)}")
    missing = [p.name for p in named if p.default is p.empty and p.name not in (*spec.arguments, *filled)]
    if missing:
        raise spec.wrong(f"{spec.name} needs {', '.join(missing)}")


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return "nearest: ...", judged by the last word of dotted names; `otherwise`, or all there is, if none is near."""
    by_word = {full.rpartition(".")[2]: full for full in reversed(list(known))}  # of equal words the first stays
    close = difflib.get_close_matches(name.rpartition(".")[2], by_word, n=3)
    if close:
        return f"nearest: {', '.join(by_word[word] for word in close)}"
    return otherwise or f"there is {', '.join(known) or 'none'}"
