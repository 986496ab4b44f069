"""Registration of made-up people at several distances, from exact visible points: what the camera's perspective costs.

    python -m benchmarks.distances --out=distances.json

People: the free body in poses and proportions drawn from the shipped priors, at any heading, tilted by 5 degrees or so,
before a level camera whose optical axis passes within 0.3 m of the pelvis. Each is fitted to 180 exact surface points
that the camera sees, under weak perspective, with the true focal length, and with one that is 20% too short or 25% too
long, as an assumed field of view is. Minutes on two cores.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Float

import dal_jax as dal
from benchmarks import results
from dal_jax.body import cameras, kinematics, rotations, skinning
from dal_jax.body.kinematics import UPRIGHT_FACING_CAMERA, BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations.person import square_crop
from dal_jax.registration import priors
from dal_jax.runtime import cli, progress
from dal_jax.viewing.raycast import Scene, pixel_grid_px, spread

_OUT = flags.DEFINE_string("out", None, "JSON to write.", required=True, allow_override=True)  # tests import others

DISTANCES_M = (1.8, 2.5, 4.0, 6.0, 8.0)
CAMERAS = {"weak": None, "known": 1.0, "too_short": 0.8, "too_long": 1.25}
"""What is told of the focal length, over the true one."""
FOCAL_PX, _MIDDLE_PX = 1146.0, np.array([500.0, 500.0])
_PEOPLE, _POINTS, _GRID = 64, 180, 160
_TILT_RAD, _ASIDE_M, _SEED = np.radians(5.0), 0.3, 0


def main(_: list[str]) -> None:
    """Make people, fit them at every distance with every camera, write one row a distance and camera."""
    body = dal.load_body()
    drawn = draw(_PEOPLE)
    vertices, joints = (np.asarray(each) for each in _pose(body, drawn))
    rows = []
    for distance in DISTANCES_M:
        people, ground = observe(body, vertices, joints, distance)
        for name, factor in CAMERAS.items():
            seen = people if factor is None else people.with_camera(factor * FOCAL_PX, _MIDDLE_PX)
            fits = dal.fit(seen, body, dal.FitOptions(quality=False, held_out_share=0.0))
            found = fits.joints_h36m if factor else np.einsum("nij,nkj->nki", towards(people), fits.joints_h36m)
            error = scale_matched_mm(found, ground)
            rows.append({
                "distance_m": distance,
                "camera": name,
                "people": len(error),
                "scale_matched_mm": float(np.mean(error)),
                "median_mm": float(np.median(error)),
                "segment_scale": [float(fits.segment_scale.min()), float(fits.segment_scale.max())],
                "girth": [float(fits.girth.min()), float(fits.girth.max())],
            })  # fmt: skip
    results.emit(rows, _OUT.value)


def draw(people: int) -> BodyParameters:
    """Return bodies in camera axes, drawn from the shipped priors of poses and proportions."""
    random = np.random.default_rng(_SEED)
    poses, shapes = priors.population(), priors.population_shapes()
    deviation = np.einsum("kij,nkj->nki", np.linalg.cholesky(poses.covariance), random.normal(size=(people, 23, 3)))
    mean = rotations.axis_angle_to_matrix(jnp.asarray(poses.mean))
    pose = rotations.matrix_to_axis_angle(mean @ rotations.axis_angle_to_matrix(jnp.asarray(deviation, jnp.float32)))
    edges = random.multivariate_normal(np.asarray(shapes.mean, float), shapes.covariance(), people)
    scale = np.zeros((people, 24))
    for segment, parent in enumerate(dal.load_body().parents[1:], start=1):
        scale[:, segment] = scale[:, parent] + edges[:, segment - 1]
    heading = random.uniform(-np.pi, np.pi, people)
    turn = np.stack([np.zeros(people), heading, np.zeros(people)], axis=1)
    tilt = random.normal(0.0, _TILT_RAD, (people, 3)) * np.array([1.0, 0.0, 1.0])
    each = [np.asarray(rotations.axis_angle_to_matrix(jnp.asarray(one, jnp.float32))) for one in (tilt, turn)]
    return BodyParameters(
        pose=np.asarray(pose),
        segment_scale=np.exp(scale - scale.mean(axis=1, keepdims=True)).astype(np.float32),
        rotation=np.float32(UPRIGHT_FACING_CAMERA) @ each[0] @ each[1],
        camera_scale=np.ones(people, np.float32),
        translation=random.uniform(-_ASIDE_M, _ASIDE_M, (people, 2)).astype(np.float32),
    )


@jax.jit
def _pose(body: Template, people: BodyParameters) -> tuple[jax.Array, jax.Array]:
    """Return vertices and Human3.6M's joints, camera axes, metres, moved aside by the translation."""

    def one(person: BodyParameters) -> tuple[jax.Array, jax.Array]:
        segments = kinematics.pose_segments(body, person)
        aside = jnp.concatenate([person.translation, jnp.zeros(1)])
        return skinning.skin_vertices(body, segments) + aside[None], skinning.h36m_joints(body, segments) + aside[None]

    return jax.lax.map(one, people)


def observe(
    body: Template, vertices: Float[np.ndarray, "n v 3"], joints: Float[np.ndarray, "n 17 3"], distance_m: float
) -> tuple[dal.Observations, Float[np.ndarray, "n 17 3"]]:
    """Return exact visible points of people whose pelvises are this far away, and their joints, metres."""
    random, found = np.random.default_rng(_SEED), []
    away = np.array([0.0, 0.0, distance_m])
    for place in progress.bar(f"see people at {distance_m} m", vertices + away, unit="person"):
        px = FOCAL_PX * place[:, :2] / place[:, 2:] + _MIDDLE_PX
        low, high = px.min(axis=0), px.max(axis=0)
        box = square_crop(np.concatenate([low, high - low]))
        grid, scene = pixel_grid_px(box, _GRID), Scene(place, body.faces)
        rays = np.concatenate([(grid - _MIDDLE_PX) / FOCAL_PX, np.ones((*grid.shape[:2], 1))], axis=-1)
        hits = scene.cast(np.zeros_like(rays), rays)
        part = np.where(hits.mask, np.asarray(body.part)[np.maximum(hits.face, 0)], 0)
        row, column = spread(part, _POINTS, random)
        found.append((grid[row, column], hits.face[row, column], hits.barycentric[row, column], box))
    points, faces, shares, boxes = (np.stack(each) for each in zip(*found, strict=True))
    return dal.Observations.from_points(points, faces, shares, box_px=boxes), joints + away


def towards(people: dal.Observations) -> Float[np.ndarray, "n 3 3"]:
    """Return the rotations from the axes of a crop's own ray to the camera's."""
    intrinsics = np.tile(np.float32([FOCAL_PX, FOCAL_PX, *_MIDDLE_PX]), (len(people), 1))
    return np.asarray(jax.vmap(cameras.crop_rotation)(jnp.asarray(people.stacked.box_px), jnp.asarray(intrinsics)))


def scale_matched_mm(found: Float[np.ndarray, "n 17 3"], true: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "n"]:
    """Return mean joint errors about the hip, the found pose brought to the true one's size by least squares."""
    found, true = (each - each[:, :1] for each in (found, true))
    scale = np.sum(found * true, axis=(1, 2)) / np.sum(found**2, axis=(1, 2))
    return 1000.0 * np.linalg.norm(scale[:, None, None] * found - true, axis=-1).mean(axis=1)


if __name__ == "__main__":
    cli.run(main)
