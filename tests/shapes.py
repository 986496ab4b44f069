"""Shapes and dtypes in signatures, checked whenever a test calls the function: jaxtyping's import hook with beartype.

Modules that define dataclasses are left out: JAX builds pytrees of placeholders, which are no arrays.
"""

import pathlib

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number will do for a float

_ROOT = pathlib.Path(__file__).parents[1]


def modules() -> list[str]:
    """Return the modules whose signatures are checked."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted((_ROOT / "dal_jax").rglob("*.py"))}
    return [
        ".".join(path.relative_to(_ROOT).with_suffix("").parts)
        for path, text in sources.items()
        if "from jaxtyping import" in text and "dataclass" not in text
    ]
