"""Read what a fit is worth: standard deviations, other modes, flags."""

import jax
import jax.numpy as jnp
import numpy as np

import dal_jax as dal
from dal_jax.body import cameras, kinematics, skinning
from dal_jax.observations.observation import px_from_crop


def main() -> None:
    """Fit ten people to key points of which one has lost an arm, and compare what the reports say."""
    body, random = dal.load_body(), np.random.default_rng(0)
    person = kinematics.t_pose()

    def mark(pose):
        segments = kinematics.pose_segments(body, person.replace(pose=pose))
        return cameras.project(skinning.h36m_joints(body, segments), 0.8, jnp.zeros(2))

    crop = jax.jit(jax.vmap(mark))(random.normal(0.0, 0.25, (10, *person.pose.shape)))
    keypoints = px_from_crop(np.asarray(crop), np.array([0.0, 0.0, 500.0, 500.0])) + random.normal(0, 2, crop.shape)
    keypoints[0, 14:17] = np.nan  # the first one's right arm is not annotated

    fits = dal.fit(dal.Observations.from_points(keypoints_px=keypoints), body)
    for row in (0, 1):
        report = fits.quality[row]
        deviation_mm = report.numbers["joint_sd_mm"]  # x, y, z of every Human3.6M joint, from the posterior
        print(f"person {row}: sample weight {report.sample_weight:.2f}")
        print("  right wrist, sd along x, y, z in mm:", np.round(deviation_mm["right_wrist"]))
        print("  other mode:", report.numbers["mode"])
        for flag in report.flags:
            print("  -", flag)


if __name__ == "__main__":
    main()
