"""Loading the free body costs the imports of JAX and little more."""

import subprocess
import sys

OF_OTHERS = (
    "flax", "optax", "absl", "pygltflib", "trimesh", "yaml", "matplotlib", "tensorflow_datasets", "grain", "PIL",
    "scipy",
)  # fmt: skip

PROGRAM = """
import sys
import jax
anyway = set(sys.modules)
import dal_jax
assert "dal_jax.body" not in sys.modules
dal_jax.load_body()
print(*(name for name in sys.argv[1:] if name in sys.modules and name not in anyway))
"""


def test_the_free_body_loads_without_the_packages_of_others():
    command = [sys.executable, "-c", PROGRAM, *OF_OTHERS]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == []
