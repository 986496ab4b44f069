"""Fits to people of wide and of average builds, from exact points: one scale a segment against one along each axis.

One scale is fitted as in the paper (`one_scale`), and with one girth a person besides (`isotropic`, the default).

    python -m benchmarks.builds --out=builds.json

People: the synthetic data set's subjects, whose shapes no scales of the free body are, in poses drawn from the shipped
prior, at any heading, under weak perspective. Each is fitted to exact visible points and exact key points with their
depths. `--builds=test` scores the two test subjects. Means over people, of vertices at the size of least squares:

    posed_mm, aligned_mm     the fit's distance from the truth about the mean vertex (and its median over people); and
                 after the best rotation
    shape_mm     of the fit's proportions in the pose that brings them nearest to the subject in the T-pose
    least_mm     the same where proportions are free, too: what scales of this kind can tell at best
    height       at the true pixels a metre, cm: root mean square error, and deviation that the posterior predicts
    girths       likewise of chest, waist and hips at the true height, and the mean error
    rate         of anisotropic fits over that of isotropic ones

Minutes on two quiet cores.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Array, Float

import dal_jax as dal
from benchmarks import distances, measure, results
from dal_jax.body import skinning
from dal_jax.body.kinematics import BodyParameters, t_pose
from dal_jax.body.template import Template
from dal_jax.observations.observation import with_depth
from dal_jax.observations.person import square_crop
from dal_jax.registration import energy, register, single_views
from dal_jax.registration.energy import SCALES, Objective
from dal_jax.registration.solvers import descent
from dal_jax.registration.solvers.descent import SolverOptions
from dal_jax.runtime import cli, progress
from dal_jax.synthetic import actors
from dal_jax.synthetic.actors import Subject
from dal_jax.uncertainty import measurements
from dal_jax.viewing.raycast import Scene, pixel_grid_px, spread

# allow_override: tests import several benchmarks into one process
_OUT = flags.DEFINE_string("out", None, "JSON to write.", required=True, allow_override=True)
_PEOPLE = flags.DEFINE_integer("people", 64, "How many of each build.", lower_bound=1, allow_override=True)
_BUILDS = flags.DEFINE_list("builds", ["wide", "average"], "Of whom: wide, average, test.", allow_override=True)

BUILDS = {
    "wide": ("S8", "E2", "E5"),  # Anny's weight 0.85 to 0.95 of 1
    "average": ("S1", "S6", "E3", "E6", "E7", "E8"),  # 0.35 to 0.6
    "test": ("S9", "S11"),  # 0.85 and very muscular; 0.75
}
_PX_A_METRE, _GRID, _POINTS, _SEED = 400.0, 200, 300, 0
_AWAY_M = 3.0
_EVERY = 6  # of the vertices, which the nearest body is sought for
_POSE, _GIRTH = [*range(69), *range(93, 99)], descent.TANGENT_SIZE  # places among the unknowns of `descent.move`
_GIRTHS = ("chest_girth", "waist_girth", "hip_girth")


def main(_: list[str]) -> None:
    """Make people of each build, fit them with both kinds of scales, score."""
    builds = results.names("builds", _BUILDS.value, list(BUILDS))
    body, rows = dal.load_body(), []
    where = measure.machine(jax.devices()[:1])
    for build in builds:
        people = [actors.subject(name) for name in BUILDS[build]]
        subjects = [people[row % len(people)] for row in range(_PEOPLE.value)]
        observed, vertices = observe(body, subjects)
        for scales in ("one_scale", *SCALES):
            options = _OneScale() if scales == "one_scale" else dal.FitOptions(scales=scales)
            fits = dal.fit(observed, body, dataclasses.replace(options, held_out_share=0.0), progress=True)
            row = {"build": build, "scales": scales, "people": len(fits)} | score(body, fits, subjects, vertices)
            rows.append(row | {"least_mm": least_mm(body, BUILDS[build], scales)})
        if build == builds[0]:
            rows.append({"build": build, "scales": "anisotropic over isotropic", "rate": relative_rate(body, observed)})
    results.emit([row | where for row in rows], _OUT.value)


class _OneScale(dal.FitOptions):
    def objective(self) -> Objective:
        named = super().objective()
        assert named.shape is not None
        return dataclasses.replace(named, shape=dataclasses.replace(named.shape, girth=None))


def relative_rate(body: Template, people: dal.Observations) -> float:
    """Return the rate of anisotropic fits over that of isotropic ones, by CPU time in turns."""
    seen, works = single_views.complete(people.stacked, None), {}
    for scales in SCALES:
        options = dal.FitOptions(scales=scales)
        fitting = body, seen, options.registration(len(people)), options.objective()
        works[scales] = functools.partial(register.register, *fitting)
        works[scales]()
    cpu_s = {name: rate.cpu_s for name, rate in measure.rates(works, None, 5.0).items()}
    return cpu_s["isotropic"] / cpu_s["anisotropic"]


def observe(body: Template, subjects: list[Subject]) -> tuple[dal.Observations, Float[np.ndarray, "n v 3"]]:
    """Return exact points, key points and depths of posed people, and their vertices, camera axes, metres."""
    random, drawn, found = np.random.default_rng(_SEED), distances.draw(len(subjects)), []
    for row, actor in enumerate(progress.bar("see people", subjects, unit="person")):
        vertices, _ = actors.pose(actor, np.asarray(drawn.rotation[row]), np.asarray(drawn.pose[row]))
        px = _PX_A_METRE * vertices[:, :2]
        low, high = px.min(axis=0), px.max(axis=0)
        box = square_crop(np.concatenate([low, high - low]))
        grid = pixel_grid_px(box, _GRID)
        origins = np.concatenate([grid / _PX_A_METRE, np.full((*grid.shape[:2], 1), -_AWAY_M)], axis=-1)
        ahead = np.broadcast_to([0.0, 0.0, 1.0], origins.shape).copy()
        hits = Scene(vertices, np.asarray(body.faces)).cast(origins, ahead)
        part = np.where(hits.mask, np.asarray(body.part)[np.maximum(hits.face, 0)], 0)
        at = spread(part, _POINTS, random)
        joints = _PX_A_METRE * np.asarray(body.h36m_regressor) @ vertices
        found.append((vertices, grid[at], hits.face[at], hits.barycentric[at], joints, box))
    vertices, points, faces, shares, joints, boxes = (np.stack(each) for each in zip(*found, strict=True))
    people = dal.Observations.from_points(points, faces, shares, keypoints_px=joints[..., :2], box_px=boxes)
    half = people.stacked.box_px[:, 2:3] / 2.0
    return people.replace(lambda seen: with_depth(seen, joints[..., 2] / half)), vertices


def score(
    body: Template, fits: dal.Fits, subjects: list[Subject], vertices: Float[np.ndarray, "n v 3"]
) -> dict[str, float]:
    """Return the errors of fits to subjects whose vertices are known."""
    trunk = measurements.is_trunk(body)
    true = [
        np.asarray(measurements.lengths_m(_template(body, actor), trunk, np.ones(24, np.float32), jnp.ones(())))
        for actor in subjects
    ]
    height, height_sd = (np.asarray(each) for each in _heights(body, trunk, fits))
    found = [
        fits.measurements(row, 100.0 * float(lengths[0])) for row, lengths in enumerate(true)
    ]  # at the true height
    girths = [[one[name][:2] for name in _GIRTHS] for one in found]
    true_girths = 100.0 * np.stack(true)[:, [measurements.NAMES.index(name) for name in _GIRTHS]]
    girth, girth_sd = np.moveaxis(np.array(girths), 2, 0)
    posed = [
        [apart_mm(fits.vertices(row), vertices[row], rotate=turned) for turned in (False, True)]
        for row in range(len(fits))
    ]
    shape = [
        closest_mm(body, actor, jax.tree.map(lambda leaf, row=row: leaf[row], fits.parameters), _POSE)
        for row, actor in enumerate(subjects)
    ]
    wrong_height = 100.0 * (height - np.stack(true)[:, 0])
    return {
        "posed_mm": float(np.mean(posed, axis=0)[0]),
        "posed_median_mm": float(np.median(posed, axis=0)[0]),
        "aligned_mm": float(np.mean(posed, axis=0)[1]),
        "shape_mm": float(np.mean(shape)),
        "height_rms_cm": _rms(wrong_height),
        "height_sd_cm": _rms(100.0 * height_sd),
        "girths_rms_cm": _rms(girth - true_girths),
        "girths_mean_cm": float(np.mean(girth - true_girths)),
        "girths_sd_cm": _rms(girth_sd),
    }


def apart_mm(found: Float[np.ndarray, "v 3"], true: Float[np.ndarray, "v 3"], rotate: bool = False) -> float:
    """Return the mean distance of vertices about their means, the found ones at the least-squares size (and turned)."""
    found, true = (np.asarray(each, np.float64) - np.mean(each, axis=0) for each in (found, true))
    if rotate:
        left, _, right = np.linalg.svd(found.T @ true)
        found = found @ left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    size = np.sum(found * true) / np.sum(found**2)
    return float(1000.0 * np.linalg.norm(size * found - true, axis=1).mean())


def _template(body: Template, actor: Subject) -> Template:
    """Return the actor as a body."""
    return dataclasses.replace(
        body,
        vertices=actor.vertices.astype(np.float32),
        joints=actor.joints.astype(np.float32),
        skinning_matrix=actor.skinning_matrix,
    )


def least_mm(body: Template, names: tuple[str, ...], scales: str) -> float:
    """Return the least vertex error that bodies with scales of a kind can have, mean over subjects in the T-pose."""
    free, girths = [*_POSE, *range(69, 93)], None
    if scales == "isotropic":
        free.append(_GIRTH)
    elif scales == "anisotropic":
        free, girths = [*free, *range(_GIRTH + 1, _GIRTH + 49)], np.ones((24, 2), np.float32)
    start = dataclasses.replace(t_pose(), girth=np.float32(1.0), segment_girth=girths)
    return float(np.mean([closest_mm(body, actors.subject(name), start, free) for name in names]))


def closest_mm(body: Template, actor: Subject, start: BodyParameters, free: list[int]) -> float:
    """Return the vertex error of the body that is nearest to an actor in the T-pose; `free` unknowns of `move`."""
    start = dataclasses.replace(start, **{field: getattr(t_pose(), field) for field in ("pose", "translation")})
    start = dataclasses.replace(start, rotation=np.eye(3, dtype=np.float32), camera_scale=np.float32(1.0))
    unknowns = jax.tree.map(jnp.asarray, energy.from_parameters(start))
    mask = jnp.zeros(descent.tangent_size(unknowns)).at[np.array(free)].set(1.0)
    found = _closest(body, jnp.asarray(actor.vertices, jnp.float32), unknowns, mask)
    return apart_mm(np.asarray(found), actor.vertices)


@jax.jit
def _closest(body: Template, goal: Float[Array, "v 3"], start: energy.Unknowns, mask: Float[Array, "u"]) -> Array:
    def vertices(unknowns, every):
        segments = energy.segments_at(body, unknowns, unknowns.raw_rotation)
        stacked = skinning.stacked_transforms(body, segments)
        place = jnp.append(unknowns.translation, 0.0)[None]
        return jnp.exp(unknowns.log_camera_scale) * (body.skinning_matrix[::every] @ stacked) + place

    def residuals(unknowns):
        sizes = energy.scale_residual(body, unknowns)
        small = jnp.concatenate([0.1 * unknowns.pose.ravel(), 0.1 * sizes])  # holds what the skin leaves open
        return jnp.concatenate([1000.0 * (vertices(unknowns, _EVERY) - goal[::_EVERY]).ravel(), small])

    found = descent.levenberg_marquardt(
        residuals, lambda at, step: descent.move(at, mask * step), start, len(mask), SolverOptions(12)
    )
    return vertices(found.state, 1)


def _heights(body: Template, trunk, fits: dal.Fits) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Return heights and their deviations, metres, by the true pixels a metre: the common scale is fitted with them."""
    px_a_unit, covariance = fits.box_px[:, 2] / 2.0, np.asarray(fits.shape_covariance)

    @jax.jit
    def height(log_shape, size):
        girths = jnp.exp(log_shape[24:])
        girths = girths[0] if len(girths) == 1 else girths.reshape(24, 2)
        return size * measurements.lengths_m(body, trunk, jnp.exp(log_shape[:24]), girths)[0]

    slope, found = jax.jit(jax.grad(height)), []
    for row in range(len(fits)):
        girths = fits.girth[row] if fits.segment_girth is None else fits.segment_girth[row]
        log_shape = np.log(np.append(fits.segment_scale[row], girths)).astype(np.float32)
        size = np.float32(fits.camera_scale[row] * px_a_unit[row] / _PX_A_METRE)
        along = np.asarray(slope(log_shape, size), np.float64)
        found.append((height(log_shape, size), np.sqrt(along @ covariance[row] @ along)))
    return tuple(np.array(found, np.float64).T)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.asarray(values) ** 2)))


if __name__ == "__main__":
    cli.run(main)
