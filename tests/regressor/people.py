"""Made-up people for these tests: random bodies, what an annotator would mark on them, and example pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.spatial

from dal_jax.body import cameras, kinematics, skinning
from dal_jax.body.formats import load
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.skinning import SurfacePoints
from dal_jax.observations.observation import Observation
from dal_jax.regressor import batches
from dal_jax.regressor.batches import Sample
from dal_jax.regressor.theta import plain_codec
from dal_jax.regressor.training import TrainingSet


def random_bodies(count: int, seed: int) -> BodyParameters:
    """Return people who face the camera within a radian, in random poses (host arrays)."""
    rng = np.random.default_rng(seed)
    tilt = scipy.spatial.transform.Rotation.from_rotvec(rng.normal(0, 0.3, (count, 3))).as_matrix()
    return BodyParameters(
        pose=rng.normal(0, 0.3, (count, 23, 3)).astype(np.float32),
        segment_scale=np.exp(rng.normal(0, 0.1, (count, 24))).astype(np.float32),
        rotation=(np.array(kinematics.UPRIGHT_FACING_CAMERA) @ tilt).astype(np.float32),
        camera_scale=rng.uniform(0.7, 1.0, count).astype(np.float32),
        translation=rng.normal(0, 0.1, (count, 2)).astype(np.float32),
    )


def observe(bodies: BodyParameters, seed: int, points: int = 20) -> Observation:
    """Return exact annotation of stacked bodies on the free body; two points and two key points are missing."""
    rng = np.random.default_rng(seed)
    count = len(bodies.camera_scale)
    face = rng.integers(0, len(load.load_body().faces), (count, points)).astype(np.int32)
    barycentric = rng.dirichlet([1, 1, 1], (count, points)).astype(np.float32)
    dense, joints = jax.device_get(_observed(bodies, face, barycentric))
    point_confidence, keypoint_confidence = np.ones((count, points), np.float32), np.ones((count, 17), np.float32)
    point_confidence[:, -2:], keypoint_confidence[:, 3:5] = 0, 0
    return Observation(
        point_position=dense,
        point_face=face,
        point_barycentric=barycentric,
        point_confidence=point_confidence,
        keypoint_position=joints[..., :2],
        keypoint_confidence=keypoint_confidence,
        depth=joints[..., 2],
        depth_confidence=keypoint_confidence,
        box_px=np.tile(np.float32([0, 0, 100, 100]), (count, 1)),
    )


def training_set(count: int, image_size: int = 32) -> TrainingSet:
    """Return people in random poses, exactly annotated, with pictures of noise."""
    fits = random_bodies(count, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (count, image_size, image_size, 3)).astype(np.uint8)
    return TrainingSet(load.load_body(), images, observe(fits, seed=0), fits)


def sample(seed: int, image_size: int = 16) -> Sample:
    """Return one example whose annotation agrees with its body exactly."""
    bodies = random_bodies(1, seed)
    image = np.random.default_rng(seed).integers(0, 256, (1, image_size, image_size, 3)).astype(np.uint8)
    first = jax.tree.map(lambda leaf: leaf[0], (image, observe(bodies, seed), bodies, np.ones(1, np.float32)))
    return _make_sample(*first)


theta = jax.jit(plain_codec("axis_angle").encode)


def project(body: BodyParameters, points: SurfacePoints):
    """Return one body's surface points (points, 2) and joints (17, 3: x, y in the crop, z relative to the pelvis)."""
    template = load.load_body()
    segments = kinematics.pose_skeleton(template, body.rotation, body.pose, body.segment_scale)
    place = functools.partial(cameras.project, camera_scale=body.camera_scale, translation=body.translation)
    joints = skinning.h36m_joints(template, segments)
    dense = place(skinning.skin_points(template, segments, points))
    return dense, jnp.concatenate([place(joints), body.camera_scale * joints[:, 2:]], axis=1)


@jax.jit
def _observed(bodies, face, barycentric):
    points = skinning.surface_points(load.load_body(), face, barycentric)
    return jax.vmap(project)(bodies, points)


@jax.jit
def _make_sample(image, observation, body, weight):
    return batches.make_sample(load.load_body(), image, observation, body, weight)
