"""The errors that the user of a binary can cause and mend: one line each."""

import contextlib
from collections.abc import Iterator


class InputError(ValueError):
    """A file, a flag or a folder is not what it must be.

    The message is ONE line that names the file (or flag), the entry and the value, for instance
    `people.json: annotation 17: dp_I[3] is 25, a part is 1 to 24`. `runtime.cli.run` prints it and exits with code 2.
    Values come from files that are not trusted: blanks and line ends become one blank, what a terminal would obey is
    written out, and the middle of a long message is left out.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


class DamagedError(InputError):
    """A file of our own is not what was written."""


class DivergedError(FloatingPointError):
    """Numbers that are not finite where training or registration goes on from them: nothing of them has been saved.

    The message is one line that names what is not finite, and the step. `runtime.cli.run` prints it and exits with code
    1; the last checkpoint is finite.
    """


@contextlib.contextmanager
def damage_named(path: object, what: str, remedy: str = "") -> Iterator[None]:
    """Turn any error of a library that reads a file of our own into one line that names it.

    Raises:
      DamagedError: as `people: damaged data set (ValueError: cut off); REMEDY`.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the errors of Orbax, TensorStore and array_record share no narrower class
        line = (str(error).splitlines() or [""])[0][:200]
        raise DamagedError(f"{path}: damaged {what} ({type(error).__name__}: {line}){remedy}") from error


def one_line(message: str) -> str:
    """Return a message as a line of less than a thousand characters, all of which can be printed."""
    text = " ".join(message.split())
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - _LAST]} ... {text[-_LAST:]}"


_LONGEST, _LAST = 900, 200
"""Characters of a message, and how many of them are its end."""


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Import packages of an optional extra, in the function that needs them.

        with needs_extra("data"):
            import grain

    Raises:
      InputError: a package is not installed; names it and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise InputError(f"package '{package}' is not installed: pip install 'dal_jax[{extra}]'") from error
