"""Fits without an optimiser: people observed with noise, fitted by one Gauss-Newton step from the truth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dal_jax.body import skeleton
from dal_jax.observations import residuals
from dal_jax.registration import energy
from dal_jax.registration.priors import PosePrior, gaussian
from dal_jax.uncertainty import sandwich
from dal_jax.uncertainty.sandwich import Precisions
from tests.registration import small_problem

NOISE = {"point": 0.003, "keypoint": 0.004, "depth": 0.01, "log_scale": 0.02, "pose": 0.02}
POINTS = 60


def poses(sd=NOISE["pose"]) -> PosePrior:
    """Return the T-pose, give or take `sd` radians: how these people stand."""
    return gaussian(np.zeros((23, 3), np.float32), np.tile(np.float32(sd**2) * np.eye(3, dtype=np.float32), (23, 1, 1)))


@functools.cache
def people(count=96, seed=0):
    """Return (truth, observations, fits, pulls): pulls are inverse variances, noise is NOISE, so all is linear."""
    template, random = small_problem.small_template(), np.random.default_rng(seed)
    truth = small_problem.random_people(count, seed=seed, pose_sd=NOISE["pose"])
    log_scale = random.normal(0.0, NOISE["log_scale"], (count, 24))
    for child, parent in enumerate(skeleton.SMPL_PARENTS[1:], start=1):
        log_scale[:, child] += log_scale[:, parent]
    truth = truth.replace(segment_scale=np.exp(log_scale).astype(np.float32), camera_scale=np.ones(count, np.float32))
    seen = small_problem.observe(truth, seed=seed + 1, points=POINTS)
    clean = {"point_position": "point", "keypoint_position": "keypoint", "depth": "depth"}
    noisy = {
        name: np.asarray(getattr(seen, name) + random.normal(0, NOISE[kind], getattr(seen, name).shape), np.float32)
        for name, kind in clean.items()
    }
    seen = seen.replace(**noisy)
    pulls = Precisions(
        dense=NOISE["point"] ** -2,
        keypoint=NOISE["keypoint"] ** -2,
        depth=NOISE["depth"] ** -2,
        scale=NOISE["log_scale"] ** -2,
        joint=NOISE["pose"] ** -2 * np.eye(3)[None].repeat(23, axis=0),
        rest=np.zeros((23, 3)),
    )
    pulls = jax.tree.map(np.float32, pulls)
    return truth, seen, jax.tree.map(np.asarray, _step(template, seen, truth, pulls)), pulls


@jax.jit
def _step(template, seen, truth, pulls):
    def one(person):
        observation, body = person
        target = residuals.make_target(template, observation)
        linear = sandwich.linearise(template, target, body, pulls.rest)
        zero = jnp.zeros((POINTS, POINTS)), jnp.zeros((17, 17))
        sides = sandwich.bread(linear, *zero, pulls)
        dense, keypoint = (
            getattr(linear, f"{name}_jacobian").reshape(-1, 98).T @ getattr(linear, name).reshape(-1)
            for name in ("dense", "keypoint")
        )
        gradient = pulls.dense * dense + pulls.keypoint * keypoint
        gradient += pulls.depth * linear.depth_jacobian.T @ linear.depth
        gradient += pulls.scale * linear.scale_jacobian.T @ linear.scale
        gradient += jnp.einsum("kil,ki->l", sides.pose_pull, linear.pose.reshape(23, 3))
        return energy.to_parameters(sandwich.move(body, -sides.inverse @ gradient))

    return jax.lax.map(one, (seen, truth), batch_size=16)
