"""Which packages there are: pyproject.toml can find those of one root only, and the binaries lie beside `dal_jax`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["dal_jax", "dal_jax.*"]), "dal_jax.experiments"],
    package_dir={"dal_jax.experiments": "experiments"},  # no top-level `experiments` in anyone's site-packages
)
