"""Fits without an optimiser: people observed with noise, fitted by one Gauss-Newton step from the truth."""

import functools

import jax
import numpy as np

from dal_jax.body import skeleton
from dal_jax.observations import residuals
from dal_jax.observations.observation import HEADING
from dal_jax.registration import energy
from dal_jax.registration.priors import PosePrior, gaussian
from dal_jax.uncertainty import sandwich
from dal_jax.uncertainty.sandwich import Precisions
from tests.registration import small_problem

NOISE = {"point": 0.003, "keypoint": 0.004, "depth": 0.01, "turn": 0.01, "log_scale": 0.02, "pose": 0.02}
POINTS = 60


def poses(sd=NOISE["pose"]) -> PosePrior:
    """Return the T-pose, give or take `sd` radians: how these people stand."""
    return gaussian(np.zeros((23, 3), np.float32), np.tile(np.float32(sd**2) * np.eye(3, dtype=np.float32), (23, 1, 1)))


@functools.cache
def people(count=32, seed=0):
    """Return (truth, observations, fits, precisions): inverse variances of NOISE, which is small, so all is linear."""
    template, random = small_problem.small_template(), np.random.default_rng(seed)
    truth = small_problem.random_people(count, seed=seed, pose_sd=NOISE["pose"])
    log_scale = random.normal(0.0, NOISE["log_scale"], (count, 24))
    for child, parent in enumerate(skeleton.SMPL_PARENTS[1:], start=1):
        log_scale[:, child] += log_scale[:, parent]
    truth = truth.replace(segment_scale=np.exp(log_scale).astype(np.float32), camera_scale=np.ones(count, np.float32))
    observed = small_problem.observe(truth, seed=seed + 1, points=POINTS)
    clean = {"point_position": "point", "keypoint_position": "keypoint", "depth": "depth"}
    noisy = {
        name: np.asarray(
            getattr(observed, name) + random.normal(0, NOISE[kind], getattr(observed, name).shape), np.float32
        )
        for name, kind in clean.items()
    }
    place = observed.keypoint_position - observed.keypoint_position.mean(axis=1, keepdims=True)
    turned = np.einsum("pkc,pc->pk", place, NOISE["turn"] * random.normal(0.0, (HEADING, 1.0), (count, 2)))
    observed = observed.replace(**noisy | {"depth": (noisy["depth"] + turned).astype(np.float32)})
    precisions = Precisions(
        dense=np.float32(NOISE["point"] ** -2),
        keypoint=np.float32(NOISE["keypoint"] ** -2),
        depth=np.float32(NOISE["depth"] ** -2),
        scale=np.float32(NOISE["log_scale"] ** -2),
        joint=np.float32(NOISE["pose"] ** -2 * np.eye(3)[None].repeat(23, axis=0)),
        mean_pose=np.zeros((23, 3), np.float32),
    )
    return truth, observed, jax.tree.map(np.asarray, _step(template, observed, truth, precisions)), precisions


@jax.jit
def _step(template, observations, truth, precisions):
    def one(person):
        observation, body = person
        target = residuals.make_target(template, observation)
        linear = sandwich.linearise(template, target, body, precisions)
        gradient = precisions.dense * _score(linear.dense_jacobian, linear.dense)
        gradient += precisions.keypoint * _score(linear.keypoint_jacobian, linear.keypoint)
        gradient += precisions.depth * _score(linear.depth_jacobian, linear.depth)
        gradient += precisions.scale * _score(linear.scale_jacobian, linear.scale)
        gradient += _score(linear.weighted_pose_jacobian, linear.pose)
        return energy.to_parameters(sandwich.move(body, -linear.inverse_hessian @ gradient))

    return jax.lax.map(one, (observations, truth), batch_size=16)


def _score(jacobian, residual):
    """Return J'r; the unknowns are the Jacobian's innermost axis."""
    return jacobian.reshape(-1, jacobian.shape[-1]).T @ residual.reshape(-1)
