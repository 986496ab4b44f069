"""Project the body: eq. 1, weak perspective in a square crop."""

import numpy as np

import dal_jax as dal
from dal_jax.body import cameras, kinematics
from dal_jax.body.skeleton import SMPL_JOINT_NAMES
from dal_jax.observations.observation import px_from_crop


def main() -> None:
    """Print where the joints of a T-pose appear in a photograph."""
    body = dal.load_body()
    person = kinematics.t_pose()  # upright, facing the camera: rotation is diag(1, -1, -1)
    segments = kinematics.pose_segments(body, person)

    # x = s Pi(R X) + t: the crop is [-1, 1], y down; a camera scale of 0.9 fills it with two metres of person
    crop = cameras.project(segments.position, 0.9, np.zeros(2, np.float32))
    photograph_px = px_from_crop(np.asarray(crop), np.array([400.0, 100.0, 600.0, 600.0]))  # x, y, width, height
    for name in ("head", "left_wrist", "right_wrist", "left_foot"):
        x, y = photograph_px[SMPL_JOINT_NAMES.index(name)]
        print(f"{name:12} {x:6.1f} {y:6.1f} px")


if __name__ == "__main__":
    main()
