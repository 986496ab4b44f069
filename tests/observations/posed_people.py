"""A body in a known pose, annotated in its own chart: annotation whose right answer is known."""

import functools

import jax.numpy as jnp
import numpy as np

from dal_jax.body import cameras, kinematics, skinning
from dal_jax.body.formats import load
from dal_jax.body.kinematics import BodyParameters, t_pose
from tests.observations import annotation_files

BBOX = [20.0, 30.0, 60.0, 120.0]
_DENSE_BOX = 255.0


def parameters(seed: int) -> BodyParameters:
    """Return a mild pose, facing the camera, inside the annotation's box (crop units of the box's square crop)."""
    rng = np.random.default_rng(seed)
    return t_pose(camera_scale=0.8).replace(
        pose=jnp.asarray(rng.normal(0, 0.15, (23, 3)).astype(np.float32)).at[15].set(jnp.array([0.0, 0.0, -1.1]))
        .at[16].set(jnp.array([0.0, 0.0, 1.1])),
        translation=jnp.array([0.0, -0.1]),
    )  # fmt: skip


@functools.cache
def visible_points(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (face, barycentric, crop position) of surface points that turn towards the camera."""
    template = load.load_body()
    rng = np.random.default_rng(seed)
    face = rng.integers(0, len(template.faces), 4 * count)
    barycentric = rng.dirichlet(np.ones(3), len(face)).astype(np.float32)
    body = parameters(seed)
    segments = kinematics.pose_skeleton(template, body.rotation, body.pose, body.segment_scale)
    vertices = np.asarray(skinning.skin_vertices(template, segments))
    corners = vertices[np.asarray(template.faces)[face]]
    towards = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] < 0
    face, barycentric = face[towards][:count], barycentric[towards][:count]
    points = skinning.skin_points(template, segments, skinning.surface_points(template, face, barycentric))
    return face, barycentric, np.asarray(cameras.project(points, body.camera_scale, body.translation))


def entry(number: int, count: int = 100) -> dict:
    """Return a DensePose-COCO annotation of the person, in the body's own chart; the box is tight enough to be one."""
    template = load.load_body()
    face, barycentric, crop = visible_points(number, count)
    position_px = BBOX[0] + BBOX[2] / 2 + crop[:, 0] * 72, BBOX[1] + BBOX[3] / 2 + crop[:, 1] * 72
    low = np.array([position_px[0].min() - 1, position_px[1].min() - 1])
    extent = np.array([position_px[0].max() + 1, position_px[1].max() + 1]) - low
    inside = (np.stack(position_px, axis=-1) - low) / extent * _DENSE_BOX
    uv = np.einsum("pc,pcd->pd", barycentric, np.asarray(template.uv)[face])
    value = annotation_files.entry(number)
    del value["keypoints"]
    value.update(
        bbox=[*low.tolist(), *extent.tolist()], dp_I=np.asarray(template.part)[face].astype(float).tolist(),
        dp_U=uv[:, 0].tolist(), dp_V=uv[:, 1].tolist(), dp_x=inside[:, 0].tolist(), dp_y=inside[:, 1].tolist(),
    )  # fmt: skip
    return value
