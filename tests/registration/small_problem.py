"""A made-up body of a few hundred vertices and people who pose it: registration problems that cost milliseconds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dal_jax.body import cameras, kinematics, rotations, skeleton, skinning
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template, across_bones, bone_axes
from dal_jax.observations.observation import Expected, Observation
from dal_jax.registration import priors
from dal_jax.registration.priors import PosePrior, ShapePrior

_JOINTS = np.array([
    [0, 0, 0], [0.06, -0.09, 0], [-0.06, -0.09, 0], [0, 0.11, 0], [0.1, -0.47, 0], [-0.1, -0.47, 0], [0, 0.25, 0],
    [0.09, -0.87, -0.03], [-0.09, -0.87, -0.03], [0, 0.3, 0], [0.11, -0.93, 0.09], [-0.11, -0.93, 0.09],
    [0, 0.51, -0.03], [0.08, 0.42, 0], [-0.08, 0.42, 0], [0, 0.6, 0], [0.17, 0.45, 0], [-0.17, 0.45, 0],
    [0.43, 0.45, 0], [-0.43, 0.45, 0], [0.68, 0.45, 0], [-0.68, 0.45, 0], [0.77, 0.45, 0], [-0.77, 0.45, 0],
])  # fmt: skip


@functools.cache
def small_template() -> Template:
    """Twelve vertices a segment scattered along its bone, a third of them shared with the parent."""
    rng = np.random.default_rng(0)
    segment = np.repeat(np.arange(24), 12)
    count = len(segment)
    vertices = _JOINTS[segment] + rng.normal(0, 0.05, (count, 3))
    weight = np.zeros((count, 24))
    share = np.where(np.arange(count) % 3 == 0, 0.4, 0.0)
    parent = np.maximum(np.array(skeleton.SMPL_PARENTS), 0)[segment]
    np.add.at(weight, (np.arange(count), segment), 1.0 - share)
    np.add.at(weight, (np.arange(count), parent), share)
    regressor = np.zeros((17 + 25, count))
    for row in range(len(regressor)):
        regressor[row, rng.choice(count, 8, replace=False)] = 1 / 8
    homogeneous = np.concatenate([vertices, np.ones((count, 1))], axis=1)
    matrix = (weight[:, :, None] * homogeneous[:, None]).reshape(count, -1)
    faces = np.stack([12 * np.repeat(np.arange(24), 10) + np.tile(np.arange(10), 24) + k for k in range(3)], axis=1)
    return Template(
        vertices=vertices.astype(np.float32),
        faces=faces.astype(np.int32),
        joints=_JOINTS.astype(np.float32),
        skin_weight=weight.astype(np.float32),
        keypoint_regressor=regressor.astype(np.float32),
        mirror=np.arange(count, dtype=np.int32),
        part=np.ones(len(faces), np.int32),
        uv=np.zeros((len(faces), 3, 2), np.float32),
        skinning_matrix=matrix.astype(np.float32),
        keypoint_matrix=(regressor @ matrix).astype(np.float32),
        across_bones=across_bones(_JOINTS).astype(np.float32),
        bone_axes=bone_axes(_JOINTS).astype(np.float32),
    )


def random_people(count: int, seed: int, pose_sd: float = 0.3, turn: float = np.pi) -> BodyParameters:
    """Return people in random poses, turned about the vertical by up to `turn`."""
    rng = np.random.default_rng(seed)
    tilt = np.stack([rng.normal(0, 0.1, count), rng.uniform(-turn, turn, count), rng.normal(0, 0.1, count)], axis=1)
    facing = jnp.broadcast_to(jnp.array(kinematics.UPRIGHT_FACING_CAMERA), (count, 3, 3))
    return BodyParameters(
        pose=rng.normal(0, pose_sd, (count, 23, 3)).astype(np.float32),
        segment_scale=np.exp(rng.normal(0, 0.05, (count, 24))).astype(np.float32),
        rotation=np.asarray(facing @ rotations.axis_angle_to_matrix(jnp.asarray(tilt, jnp.float32))),
        camera_scale=rng.uniform(0.8, 1.0, count).astype(np.float32),
        translation=rng.normal(0, 0.1, (count, 2)).astype(np.float32),
    )


def observe(people: BodyParameters, seed: int, points: int = 60, noise: float = 0.0):
    """Return what an annotator would mark on these people: dense points, key points and depths, with noise."""
    template, rng = small_template(), np.random.default_rng(seed)
    count = len(people.camera_scale)
    face = rng.integers(0, len(template.faces), (count, points)).astype(np.int32)
    barycentric = rng.dirichlet([1, 1, 1], (count, points)).astype(np.float32)
    dense, planar, depth = _project(people, face, barycentric)

    def noisy(values):
        return (np.asarray(values) + rng.normal(0, noise, values.shape)).astype(np.float32)

    return Observation(
        point_position=noisy(dense),
        point_face=face,
        point_barycentric=barycentric,
        point_confidence=np.ones((count, points), np.float32),
        keypoint_position=noisy(planar),
        keypoint_confidence=np.ones((count, 17), np.float32),
        depth=noisy(depth),
        depth_confidence=np.ones((count, 17), np.float32),
        box_px=np.tile(np.float32([0, 0, 100, 100]), (count, 1)),
    )


def observation(**fields) -> Observation:
    """Return an observation of these fields, stacked over people; those left out say nothing."""
    count, points = fields["point_confidence"].shape
    empty = {
        "point_face": np.zeros((count, points), np.int32),
        "point_barycentric": np.zeros((count, points, 3)),
        "depth": np.zeros((count, 17)),
        "depth_confidence": np.zeros((count, 17)),
        "box_px": np.zeros((count, 4)),
    }
    return Observation(**(empty | fields))


@jax.jit
@jax.vmap
def _project(person, face, barycentric):
    template = small_template()
    segments = kinematics.pose_segments(template, person)
    points = skinning.skin_points(template, segments, skinning.surface_points(template, face, barycentric))
    joints = skinning.h36m_joints(template, segments)
    place = functools.partial(cameras.project, camera_scale=person.camera_scale, translation=person.translation)
    return place(points), place(joints), person.camera_scale * joints[:, 2]


def expected(people: BodyParameters, seed: int = 0) -> Expected:
    """Return what tracks might expect near these bodies: half a radian or so away, by weights that differ."""
    random, count = np.random.default_rng(seed), len(people.camera_scale)
    girths = (count,) if people.segment_girth is None else (count, 24, 2)
    world = jax.jit(jax.vmap(lambda one: kinematics.pose_segments(small_template(), one).rotation))(people)
    turned = rotations.axis_angle_to_matrix(jnp.asarray(random.normal(0.0, 0.3, (count, 24, 3)), jnp.float32))
    return Expected(
        rotation=np.asarray(turned @ world),
        rotation_root=random.normal(0.0, 2.0, (count, 24, 3, 3)).astype(np.float32),
        stretch=random.normal(0.0, 0.1, (count, 23)).astype(np.float32),
        stretch_weight=random.uniform(1.0, 50.0, (count, 23)).astype(np.float32),
        log_girth=random.normal(0.0, 0.1, girths).astype(np.float32),
        girth_weight=random.uniform(1.0, 50.0, girths).astype(np.float32),
        place=random.normal(0.0, 0.1, (count, 3)).astype(np.float32),
        place_weight=random.uniform(1.0, 50.0, (count, 3)).astype(np.float32),
    )


def pose_prior(seed: int = 0) -> PosePrior:
    """Return a prior whose mean is 10 degrees or so off the T-pose and whose pulls differ fourfold between axes."""
    random = np.random.default_rng(seed)
    mean = random.normal(0.0, 0.1, (23, 3)).astype(np.float32)
    lower = np.tril(random.normal(0.0, 0.3, (23, 3, 3))) + np.diag([1.0, 2.0, 4.0])
    root = np.swapaxes(lower, 1, 2).astype(np.float32)
    return PosePrior(mean, np.linalg.inv(lower @ np.swapaxes(lower, 1, 2)).astype(np.float32), root)


def shape_prior(seed: int = 0, sizes: int = 23) -> ShapePrior:
    """Return a prior with two factors beside edges (and girths: 71) that vary by 2 to 6 per cent of themselves."""
    random = np.random.default_rng(seed)
    factors, variance = random.normal(0.0, 0.1, (sizes, 2)), random.uniform(0.02, 0.06, sizes) ** 2
    return priors.shape_gaussian(random.normal(0.0, 0.05, sizes), factors, variance)
