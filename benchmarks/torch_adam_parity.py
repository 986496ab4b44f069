"""Write the golden file of tests/benchmark/test_adam_parity.py: Adam at the paper's settings, in PyTorch, in float64.

  python -m benchmarks.torch_adam_parity --out=tests/benchmark/adam_parity.npz

Three people of the benchmark, 60 points each, from the T-pose, stiff weights, rate 0.1, 20 steps. The file holds what
is observed, the energy before each step and after the last, and the free numbers at the end. The energy is
`torch_energy.py`'s, which shares no code with dal_jax.
"""

import pathlib

import jax
import numpy as np
import torch
from absl import flags

from benchmarks import problems, torch_energy
from benchmarks.torch_energy import Body, Energy, Weights
from dal_jax.body.formats import load
from dal_jax.runtime import cli, files
from dal_jax.runtime.errors import InputError

_CONFIG = flags.DEFINE_string("people", str(pathlib.Path(__file__).parent / "people.json"), "Config of the people.")
_DATA_DIR = flags.DEFINE_string("data_dir", "runs/data", "Folder where the people are kept once made.")
_OUT = flags.DEFINE_string("out", None, "The golden file, .npz.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")

_PEOPLE, _POINTS, _STEPS, _RATE = 3, 60, 20, 0.1
_FACING = np.diag([1.0, -1.0, -1.0])  # the body's y is up, the camera's down


def main(_: list[str]) -> None:
    """Run both programs' energies, which must agree to the last digits, and write."""
    if pathlib.Path(_OUT.value).exists() and not _OVERWRITE.value:
        raise InputError(f"--out={_OUT.value} exists; --overwrite replaces it")
    template = load.load_body()
    config = problems.read_config(_CONFIG.value)
    observed = problems.load(config, _DATA_DIR.value).take(_PEOPLE, _POINTS).observations
    vertex = torch_energy.matched_vertices(template.faces, observed)
    body = Body(template, torch.float64)
    runs = [_run(Energy(body, observed, vertex, Weights(), mesh)) for mesh in ("full", "points")]
    (energies, end), (other, _) = runs
    assert np.allclose(energies, other, rtol=1e-9, atol=0), "full mesh and points differ"
    arrays = {name: value for name, value in vars(observed).items() if isinstance(value, np.ndarray)}
    fields = {f"observed_{name}": value for name, value in arrays.items()}
    files.savez(_OUT.value, energies=energies, learning_rate=np.float64(_RATE), **fields, **end)
    print(f"{_OUT.value}: energies of the first person {energies[0, 0]:.3f} to {energies[-1, 0]:.3f}")


def _run(energy: Energy) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the energies after 0 to 20 steps, (21, people), and the free numbers at the end."""
    start = {
        "pose": np.zeros((_PEOPLE, 23, 3)),
        "log_segment_scale": np.zeros((_PEOPLE, 24)),
        "raw_rotation": np.broadcast_to(_FACING, (_PEOPLE, 3, 3)),
        "log_camera_scale": np.zeros(_PEOPLE),
        "translation": np.zeros((_PEOPLE, 2)),
    }
    unknowns = torch_energy.unknowns_at(start, torch.float64)
    adam = torch.optim.Adam(list(unknowns.values()), lr=_RATE)
    seen = []
    for _ in range(_STEPS):
        adam.zero_grad()
        energies = energy(unknowns)
        energies.sum().backward()
        adam.step()
        seen.append(energies.detach().numpy())
    seen.append(energy(unknowns).detach().numpy())
    return np.stack(seen), {f"end_{name}": values.detach().numpy() for name, values in unknowns.items()}


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    cli.run(main)
