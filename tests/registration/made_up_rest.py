"""A rest pose that is no T-pose, with a precision that is no multiple of one."""

import numpy as np

from dal_jax.registration.priors import RestPose


def rest(seed: int = 0) -> RestPose:
    """Return turns of 10 degrees or so and pulls that differ fourfold and more between directions."""
    random = np.random.default_rng(seed)
    turn = random.normal(0.0, 0.1, (23, 3)).astype(np.float32)
    lower = np.tril(random.normal(0.0, 0.3, (23, 3, 3))) + np.diag([1.0, 2.0, 4.0])
    return RestPose(turn, np.swapaxes(lower, 1, 2).astype(np.float32))
