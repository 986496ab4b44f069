"""Lift 2D poses to 3D: train a small lifter on 2D alone, then ask it for depths."""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

import dal_jax as dal
from dal_jax.body import kinematics, skinning
from dal_jax.lifting import config, folder
from dal_jax.lifting.poses import Poses2D


def poses_2d(count: int) -> np.ndarray:
    """Return Human3.6M's joints of people who face anywhere: (count, 17, 2) px."""
    body, random, person = dal.load_body(), np.random.default_rng(0), kinematics.t_pose()

    def joints(angle, pose):
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        yaw = jnp.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        segments = kinematics.pose_skeleton(body, person.rotation @ yaw, pose, person.segment_scale)
        return skinning.h36m_joints(body, segments)

    poses = random.normal(0.0, 0.3, (count, *person.pose.shape))
    found = jax.jit(jax.vmap(joints))(random.uniform(0, 2 * np.pi, count), poses)
    return 200 * np.asarray(found)[..., :2] + (320, 240)


def main() -> None:
    """Train for some seconds; real lifters take `config.best()`, 20,000 poses and minutes."""
    keypoints_px = poses_2d(256)
    settings = config.kudo()
    settings.width, settings.batch, settings.steps, settings.steps_per_call = 64, 32, 50, 50
    poses = Poses2D(keypoints_px, np.ones(keypoints_px.shape[:2], bool), np.arange(len(keypoints_px)))
    path = pathlib.Path(tempfile.mkdtemp()) / "lifter"
    folder.train(path, poses, settings)

    lifted = dal.lift(keypoints_px, path)
    print("joints:", lifted.joints.shape, "px, the pelvis at the origin, z away from the camera")
    print(f"depths: {lifted.depth.shape}; so short a training makes none that are worth anything")


if __name__ == "__main__":
    main()
