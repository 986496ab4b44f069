"""The made-up body that reports are drawn of."""

from tests.fits.conftest import ball  # noqa: F401
