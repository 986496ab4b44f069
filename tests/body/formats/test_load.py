"""Loading the free body must not cost the imports that other formats need."""

import subprocess
import sys

OF_OTHER_FORMATS = ("pygltflib", "trimesh", "yaml", "matplotlib", "tensorflow_datasets", "grain", "PIL", "scipy")
"""Of a package that JAX or Flax import themselves (Flax imports yaml) we can save nothing."""

PROGRAM = """
import sys
import flax.struct, jax.numpy
anyway = set(sys.modules)
from dal_jax.body.formats import load
load.load_body()
print(*(name for name in sys.argv[1:] if name in sys.modules and name not in anyway))
"""


def test_the_free_body_loads_without_the_packages_of_other_formats():
    command = [sys.executable, "-c", PROGRAM, *OF_OTHER_FORMATS]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == []
