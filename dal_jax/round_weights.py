"""What a round's registration weighs with: eq. 2's weights of the round, and the rest pose that L_joint pulls to.

tpose      the paper's
usual      how synthetic people hold their joints (`registration.poses`)
learned    in later rounds: how the run's own people held theirs in the last round's fits. No 3D truth is read
"""

import dataclasses

from dal_jax.body import parameters as parameters_lib, template as template_lib
from dal_jax.correspondences import observations as observations_lib
from dal_jax.presets import Config
from dal_jax.registration import energy, noise as noise_lib, poses as poses_lib, sandwich

REST_POSES = {"first_rest_pose": ("tpose", "usual"), "rest_pose": ("tpose", "usual", "learned")}
"""What `Config` may ask for."""


def weights(config: Config, first: bool, learned: poses_lib.Poses) -> energy.EnergyWeights:
    """Return eq. 2's weights of the first round, or of a later one; `learned` is read where that is asked for."""
    plain, rest_pose = (config.first_weights, config.first_rest_pose) if first else (config.weights, config.rest_pose)
    if rest_pose == "tpose":
        return plain
    poses = learned if rest_pose == "learned" else poses_lib.usual()
    return dataclasses.replace(plain, rest=poses.rest_pose())


def learn_poses(
    template: template_lib.Template,
    observations: observations_lib.Observation,
    fits: parameters_lib.BodyParameters,
    used: energy.EnergyWeights,
) -> poses_lib.Poses:
    """Return how people hold their joints in fits that were made with the weights `used`."""
    seen = noise_lib.believed(template, observations, fits, used.outlier)
    noise = noise_lib.initial()
    for _ in range(_ESTIMATES):
        noise = noise_lib.estimate(template, seen, fits, sandwich.Pulls.of_weights(used), noise)
    return noise.poses


_ESTIMATES = 2  # the spread of poses needs the levels of noise, and they need it
