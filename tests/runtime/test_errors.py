"""A missing optional package is one line with the command that installs it."""

import pytest

from dal_jax.runtime.errors import InputError, needs_extra


def test_a_missing_package_names_its_extra():
    with (
        pytest.raises(InputError, match=r"^package 'no_such_package' is not installed: pip install 'dal_jax\[data\]'$"),
        needs_extra("data"),
    ):
        import no_such_package  # noqa: F401
