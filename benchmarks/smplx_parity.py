"""Write the golden file of tests/body/test_smpl_body.py: made-up models of SMPL and SMPL-H, posed by `smplx.lbs.lbs`.

  python -m benchmarks.smplx_parity --out=tests/body/smplx_parity.npz

The models are those of tests/body/smpl_files.py, with pose blendshapes; smplx gets their numbers, not our files.
Fingers are straight. The golden file holds rotation vectors, every 53rd vertex and the joints, relative to the pelvis,
metres.
"""

import pathlib

import numpy as np
import torch
from absl import flags
from smplx import lbs

from dal_jax.runtime import cli, files
from dal_jax.runtime.errors import InputError
from tests.body import smpl_files

_OUT = flags.DEFINE_string("out", None, "The golden file, .npz.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")

_POSES, _EVERY = 3, 53


def main(_: list[str]) -> None:
    """Pose both models and write."""
    if pathlib.Path(_OUT.value).exists() and not _OVERWRITE.value:
        raise InputError(f"--out={_OUT.value} exists; --overwrite replaces it")
    pose = np.random.default_rng(0).normal(0, 0.5, (_POSES, 24, 3)).astype(np.float32)
    fields = {"pose": pose, "every": np.int64(_EVERY)}
    for name, joints in (("smpl", 24), ("smplh", 52)):
        vertices, centres = _posed(smpl_files.model(joints), pose)
        fields |= {f"{name}_vertices": vertices[:, ::_EVERY], f"{name}_joints": centres[:, :22]}
    files.savez(_OUT.value, **fields)
    print(f"{_OUT.value}: {_POSES} poses of {', '.join(fields)}")


def _posed(model: dict[str, np.ndarray], pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and joints relative to the pelvis; of SMPL-H's 52 joints the first 22 turn."""
    joints = len(model["J_regressor"])
    turns = np.zeros((len(pose), joints, 3))
    turns[:, :22] = pose[:, :22]
    if joints == 24:
        turns = pose.astype(np.float64)
    tensors = {name: torch.from_numpy(np.asarray(values, np.float64)) for name, values in model.items()}
    parents = torch.from_numpy(model["kintree_table"][0].astype(np.int32).astype(np.int64))
    posed, centres = lbs.lbs(
        torch.zeros(len(pose), 10, dtype=torch.float64),
        torch.from_numpy(turns).reshape(len(pose), -1),
        tensors["v_template"][None],
        tensors["shapedirs"],
        tensors["posedirs"].reshape(-1, 9 * (joints - 1)).T,
        tensors["J_regressor"],
        parents,
        tensors["weights"],
    )
    return tuple((values - centres[:, :1]).numpy().astype(np.float32) for values in (posed, centres))


if __name__ == "__main__":
    cli.run(main)
