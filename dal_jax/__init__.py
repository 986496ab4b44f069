"""Deform-and-Learn in JAX: 3D human shape and pose from 2D annotation alone.

    import dal_jax as dal

    body = dal.load_body()
    people = dal.read_annotations("people.json", images="photos", chart="UV_Processed.mat")
    fits = dal.fit(people, body)
    fits.save("out")

Names are loaded when they are first used: `import dal_jax` alone loads nothing, not even JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_FACE = {
    "load_body": "dal_jax.body.formats.load",
    "read_annotations": "dal_jax.observations.annotations",
    "detect": "dal_jax.observations.detect",
    "Observations": "dal_jax.observations.observations",
    "Frames": "dal_jax.observations.following",
    "fit": "dal_jax.fits.fitting",
    "FitOptions": "dal_jax.fits.options",
    "Fits": "dal_jax.fits.fits",
    "load_fits": "dal_jax.fits.fits",
    "Term": "dal_jax.registration.energy",
    "lift": "dal_jax.lifting.folder",
    "predict": "dal_jax.loop.prediction",
    "Config": "dal_jax.config",
    "preset": "dal_jax.config",
    "deform_and_learn": "dal_jax.loop.run",
    "InputError": "dal_jax.runtime.errors",
}
__all__ = [*_FACE, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]: loaded by __getattr__

if TYPE_CHECKING:
    from dal_jax.body.formats.load import load_body as load_body
    from dal_jax.config import Config as Config, preset as preset
    from dal_jax.fits.fits import Fits as Fits, load_fits as load_fits
    from dal_jax.fits.fitting import fit as fit
    from dal_jax.fits.options import FitOptions as FitOptions
    from dal_jax.lifting.folder import lift as lift
    from dal_jax.loop.prediction import predict as predict
    from dal_jax.loop.run import deform_and_learn as deform_and_learn
    from dal_jax.observations.annotations import read_annotations as read_annotations
    from dal_jax.observations.detect import detect as detect
    from dal_jax.observations.following import Frames as Frames
    from dal_jax.observations.observations import Observations as Observations
    from dal_jax.registration.energy import Term as Term
    from dal_jax.runtime.errors import InputError as InputError


def __getattr__(name: str) -> Any:
    """Load a name of the face (PEP 562)."""
    if name not in _FACE:
        raise AttributeError(f"module 'dal_jax' has no attribute '{name}'")
    value = getattr(importlib.import_module(_FACE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
