"""Fit the body to arrays: image points, and the surface points that they show."""

import jax
import numpy as np

import dal_jax as dal
from dal_jax.body import cameras, kinematics, skinning
from dal_jax.observations.observation import px_from_crop

POINTS = 200
CROP_PX = np.array([400.0, 100.0, 600.0, 600.0])


def annotated(body, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the points of somebody whose pose is drawn at random: pixels, faces, barycentrics; and the true joints."""
    random = np.random.default_rng(seed)
    person = kinematics.t_pose()
    person = person.replace(pose=random.normal(0.0, 0.2, person.pose.shape).astype(np.float32))
    segments = jax.jit(kinematics.pose_segments)(body, person)
    vertices = np.asarray(jax.jit(skinning.skin_vertices)(body, segments))
    faces = random.integers(len(body.faces), size=POINTS)
    barycentrics = random.dirichlet(np.ones(3), POINTS).astype(np.float32)
    points = np.einsum("pc,pcd->pd", barycentrics, vertices[body.faces[faces]])
    crop = np.asarray(cameras.project(points, 0.8, np.zeros(2, np.float32)))
    return px_from_crop(crop, CROP_PX), faces, barycentrics, np.asarray(segments.position)


def main() -> None:
    """Fit four people and compare with the truth that the fit never saw."""
    body = dal.load_body()
    people = [annotated(body, seed) for seed in range(4)]
    points_px, faces, barycentrics, joints = (np.stack(part) for part in zip(*people, strict=True))

    observations = dal.Observations.from_points(points_px, faces, barycentrics)
    fits = dal.fit(observations, body)

    for row in range(len(fits)):
        error_mm = 1000 * np.linalg.norm(fits.joints[row] - joints[row], axis=1).mean()
        print(f"person {row}: dense {fits.dense_error_px[row]:.2f} px, joints {error_mm:.0f} mm")
        print("  " + ("; ".join(fits.quality[row].flags) or "no flags"))


if __name__ == "__main__":
    main()
