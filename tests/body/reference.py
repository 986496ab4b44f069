"""An independent body: float64 NumPy, homogeneous matrices as section 3 writes them, loops over joints and vertices."""

import dataclasses

import numpy as np
import scipy.linalg

MODEL = 1e-5  # metres; float32 keeps 1e-7 of the metre or so to the end of a chain of nine joints


@dataclasses.dataclass(frozen=True)
class Problem:
    """One random question to the body model (float64 from float32, so that both sides see the same numbers)."""

    rotation: np.ndarray
    pose: np.ndarray
    segment_scale: np.ndarray

    def single(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what the model under test takes: rotation, pose, segment_scale in float32."""
        return tuple(x.astype(np.float32) for x in (self.rotation, self.pose, self.segment_scale))


def random_problem(seed: int, pose_sd: float = 0.8, log_scale_sd: float = 0.2) -> Problem:
    rng = np.random.default_rng(seed)
    values = rotation(rng.normal(0, 1.5, 3)), rng.normal(0, pose_sd, (23, 3)), np.exp(rng.normal(0, log_scale_sd, 24))
    return Problem(*(value.astype(np.float32).astype(np.float64) for value in values))


def rotation(axis_angle: np.ndarray) -> np.ndarray:
    """Exponentiate the cross-product matrices (..., 3) -> (..., 3, 3) by Pade approximation: no Rodrigues formula."""
    columns = np.cross(np.asarray(axis_angle, np.float64)[..., None, :], np.eye(3))  # a x e_k
    return scipy.linalg.expm(np.swapaxes(columns, -1, -2))


def bones(joints, parents, problem: Problem) -> np.ndarray:
    """Return A_j (24, 4, 4): joint-local rest coordinates of segment j (origin J_j) to the camera's axes."""
    joints, relative = np.asarray(joints, np.float64), rotation(problem.pose)
    world = [_homogeneous(problem.rotation, np.zeros(3))]
    for child in range(1, len(parents)):
        parent = parents[child]
        local = _homogeneous(relative[child - 1], problem.segment_scale[parent] * (joints[child] - joints[parent]))
        world.append(world[parent] @ local)
    return np.stack(world)


def skin(template, problem: Problem) -> np.ndarray:
    """Return x_i = sum_j w_ij T_j [v_i - J_j, 1] with T_j = A_j S_j, S_j = diag(s_j, s_j, s_j, 1)."""
    joints = np.asarray(template.joints, np.float64)
    scalings = [np.diag([s, s, s, 1.0]) for s in problem.segment_scale]
    transforms = bones(joints, template.parents, problem) @ np.stack(scalings)
    posed = []
    for vertex, weights in zip(np.asarray(template.vertices, np.float64), template.skin_weight, strict=True):
        point = np.zeros(4)
        for segment in np.flatnonzero(weights):
            point += float(weights[segment]) * transforms[segment] @ np.append(vertex - joints[segment], 1.0)
        posed.append(point[:3])
    return np.stack(posed)


def project(points, camera_scale, translation) -> np.ndarray:
    """Return eq. 1 with Pi written out as the 2 x 3 matrix that drops z."""
    drop_z = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return np.stack([camera_scale * (drop_z @ point) + translation for point in np.asarray(points, np.float64)])


def _homogeneous(linear, offset) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, offset
    return matrix
