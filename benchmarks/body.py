"""Full-mesh skinning measured: ours, forward and gradient, beside `smplx.lbs.lbs` where that is installed."""

import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from dal_jax.body import kinematics, rotations, skinning
from dal_jax.body.template import Template
from dal_jax.runtime import machine

_AGREEMENT_M = 1e-5

Work = Callable[[], object]


def has_smplx() -> bool:
    """Return whether both smplx and PyTorch are installed."""
    return all(importlib.util.find_spec(name) for name in ("smplx", "torch"))


def rows(template: Template, batch: int, seconds: float, torch_threads: int) -> list[dict[str, object]]:
    """Measure one batch size, interleaved: forward and gradient of both, and the matmul rate.

    Raises:
      AssertionError: the two programs skin the same body differently.
    """
    random = np.random.default_rng(0)
    pose = random.normal(0, 0.3, (batch, 24, 3)).astype(np.float32)  # the root's rotation first, as smplx has it
    works, compile_s = _ours(template, pose)
    if has_smplx():
        works |= _smplx(template, pose, torch_threads)
    calls = {name: measure.calls(work) for name, work in works.items()}
    repeated = {name: measure.repeated(work, calls[name]) for name, work in works.items()}
    devices = jax.devices()[:1]
    measured = measure.rates(repeated, measure.matmul_probe(devices), seconds)
    ours = measured["dal_jax forward"]
    return [
        {
            "program": name.split()[0],
            "pass": name.split()[1],
            "batch": batch,
            "vertices": len(template.vertices),
            "compile_s": compile_s.get(name),
            "repeats": rate.repeats,
            "bodies_per_second": calls[name] * batch / rate.wall_s,
            "cpu_s_per_body": rate.cpu_s / calls[name] / batch,
            "wall_over_dal_jax_forward": rate.wall_s / calls[name] / (ours.wall_s / calls["dal_jax forward"]),
            "cpu_over_dal_jax_forward": rate.cpu_s / calls[name] / (ours.cpu_s / calls["dal_jax forward"]),
            "matmul_gflops": rate.matmul_gflops,
            "threads": machine.cores() if name.startswith("dal_jax") else torch_threads,
            **measure.machine(devices),
        }
        for name, rate in measured.items()
    ]


def _ours(template: Template, pose: np.ndarray) -> tuple[dict[str, Work], dict[str, float]]:
    """Return the works, and the seconds of each one's first call."""

    def skin(rotation_vectors: jax.Array) -> jax.Array:
        return _skin_one(template, rotation_vectors)

    forward = jax.jit(jax.vmap(skin))
    gradient = jax.jit(jax.grad(lambda every: jnp.sum(jax.vmap(skin)(every) ** 2)))
    on_device = jnp.asarray(pose)
    works: dict[str, Work] = {
        "dal_jax forward": lambda: jax.block_until_ready(forward(on_device)),
        "dal_jax gradient": lambda: jax.block_until_ready(gradient(on_device)),
    }
    compile_s = {}
    for name, work in works.items():
        with measure.first_call() as first:
            work()
        compile_s[name] = first["first_s"]
    return works, compile_s


def _skin_one(template: Template, rotation_vectors: jax.Array) -> jax.Array:
    relative = rotations.axis_angle_to_matrix(rotation_vectors[0])
    segments = kinematics.pose_skeleton(template, relative, rotation_vectors[1:], jnp.ones(24))
    return skinning.skin_vertices(template, segments)


def _smplx(template: Template, pose: np.ndarray, threads: int) -> dict[str, Work]:
    """Return smplx's forward pass and its gradient, without pose blendshapes, checked against ours.

    `smplx.lbs.lbs` always multiplies by its pose blendshapes; blendshapes of zero would cost as much as real ones. We
    hand it `posedirs` of ONE vertex (207 x 3 zeros), whose product is nothing beside the rest and is broadcast over the
    mesh by the addition that follows. Shapes have one coefficient instead of ten. Its joint regressor (24 x n, dense,
    as SMPL's is when loaded) is the least-norm one that finds this body's joints.
    """
    import torch
    from smplx import lbs

    torch.set_num_threads(threads)
    vertices = torch.from_numpy(np.asarray(template.vertices))
    regressor = np.asarray(template.joints, np.float64) @ np.linalg.pinv(np.asarray(template.vertices, np.float64))
    fixed = (
        vertices[None],
        torch.zeros(len(vertices), 3, 1),
        torch.zeros(23 * 9, 3),
        torch.from_numpy(regressor.astype(np.float32)),
        torch.tensor(template.parents),
        torch.from_numpy(np.asarray(template.skin_weight)),
    )
    full_posedirs = torch.zeros(23 * 9, 3 * len(vertices))
    betas = torch.zeros(len(pose), 1)
    still = torch.from_numpy(pose.reshape(len(pose), -1))
    moving = still.clone().requires_grad_()

    def forward() -> object:
        with torch.no_grad():
            return lbs.lbs(betas, still, *fixed)[0]

    def whole() -> object:
        with torch.no_grad():
            return lbs.lbs(betas, still, *fixed[:2], full_posedirs, *fixed[3:])[0]

    def gradient() -> object:
        moving.grad = None
        (lbs.lbs(betas, moving, *fixed)[0] ** 2).sum().backward()
        return moving.grad

    ours = jax.vmap(lambda one: _skin_one(template, one))(jnp.asarray(pose[:2]))
    difference = float(np.abs(forward()[:2].numpy() - np.asarray(ours)).max())
    assert difference < _AGREEMENT_M, f"smplx and dal_jax differ by {difference} m on the same body"
    whole(), gradient()
    name = "smplx.lbs_without_pose_blendshapes"
    return {f"{name} forward": forward, f"{name} gradient": gradient, "smplx.lbs forward": whole}
