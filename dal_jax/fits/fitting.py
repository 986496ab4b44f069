"""Fit the body to people (section 4), from observations to a report on every fit, in one call."""

import dataclasses
import functools
import os

import numpy as np
from jaxtyping import Bool

from dal_jax.body.formats.load import load_body
from dal_jax.body.template import Template
from dal_jax.fits import file
from dal_jax.fits.file import FitRows
from dal_jax.fits.fits import Fits
from dal_jax.observations import cameras_file, following
from dal_jax.observations.observation import Observation, with_depth
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import Annotations
from dal_jax.registration import register, schedules, single_views, tracks as tracks_lib, views
from dal_jax.registration.energy import SCALES, Objective, Term
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.registration.solvers import solve
from dal_jax.registration.starts import STARTS
from dal_jax.runtime import machine, progress as bars
from dal_jax.uncertainty import measurements, modes, noise, quality
from dal_jax.uncertainty.noise import NoiseLevels

WITHOUT_LIFTER, WEIGHTS = "none", (*schedules.WEIGHTS, "estimated")
CAMERAS = ("weak", "perspective", "assumed")
_FEW_STEPS = ("lm", "dense_lm", "gauss_newton")  # second-order methods
_FEW, _MANY, _FEW_OF_TRACKS = 30, 300, 10
_BATCH, _STEEPEST_DEG = 64, 60.0


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """How people are fitted.

    optimizer: `lm`, `dense_lm`, `gauss_newton`, `adam`, `lbfgs`, `optax.NAME(argument=value)` or `module:function`.
    steps: from each start, a stage; None: 30 of `lm`, `dense_lm` and `gauss_newton`, 300 of others, 10 of tracks, whose
      rounds take more.
    learning_rate: of first-order optimisers (paper: 0.1).
    starts: `tpose`, `closed_form`, `headings4`, `headings8` or `headings32`.
    schedule: `constant`, `stiff_to_soft` or `graduated` (a robust loss against wrong correspondences); None: graduated
      where a network made the dense points (IUV pictures) and the weights are not the paper's, else constant.
    weights: of eq. 2: `paper_stiff`, `paper_soft`, `pose_prior`, or `estimated` from the residuals of all people
      together, which needs a hundred people or more.
    scales: of segments: `isotropic`, one each, as in the paper, with one girth for all where the weights have a prior
      on it; or `anisotropic`, one along the bone and two across it.
    joint_limits: weight of joint angles beyond anatomical limits; 0: off.
    tolerance: a person is finished when a step lowers its energy by less than this share; 0: all steps.
    camera: `weak` perspective, as in the paper; full `perspective`, with joints in the camera's axes; or `assumed`,
      which is perspective by a usual focal length where a photograph does not say its own; None: `assumed` for people
      of `detect`, else `weak`. The principal point is the photograph's middle. Arrays have
      `Observations.with_camera` instead.
    focal_px: focal length, px of the photograph, which makes the camera `perspective`; None: what the photographs' EXIF
      says.
    pitch_deg: how far the camera looks down, degrees, one or one a person; None: not known.
    height_cm: true height of everybody, or of each person, for `Fits.measurements`; None: not known.
    cameras: file of calibrated cameras (docs/several_cameras.md): what they see of a moment is fitted together, from a
      `closed_form` start; None: every image by itself.
    tracks: whether people are frames of videos, in which they are followed: one shape a track, and smooth motion.
    fps: frames a second, as photographs are numbered, of tracks; None: what the video says, else 30.
    terms: energy terms of your own.
    quality: whether to report on every fit. held_out_share: of points left out to measure the fit there; 0: none.
    """

    optimizer: str = "lm"
    steps: int | None = None
    learning_rate: float = 0.1
    starts: str = "headings4"
    schedule: str | None = None
    weights: str = "pose_prior"
    scales: str = "isotropic"
    joint_limits: float = 0.0
    tolerance: float = 0.0
    camera: str | None = None
    focal_px: float | None = None
    pitch_deg: float | tuple[float, ...] | None = None
    height_cm: float | tuple[float, ...] | None = None
    cameras: str | None = None
    tracks: bool = False
    fps: float | None = None
    terms: tuple[Term, ...] = ()
    quality: bool = True
    held_out_share: float = 0.2

    def check(self) -> None:
        """Refuse values that cannot be used.

        Raises:
          ValueError: names the field and the value.
        """
        solve.check(self.optimizer)
        schedules.stages(self.schedule or "constant", Objective())
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights '{self.weights}' is not one of {', '.join(WEIGHTS)}")
        schedules.check_choice("scales", self.scales, SCALES)
        for kind, asked in (("tracks", self.tracks), ("weights estimated", self.weights == "estimated")):
            if asked and self.scales != "isotropic":
                raise ValueError(f"{kind} have isotropic scales, not {self.scales}")
        if self.starts not in STARTS or self.starts == "given":
            known = ", ".join(name for name in STARTS if name != "given")
            raise ValueError(f"starts '{self.starts}' is not one of {known}")
        if not 0 <= self.held_out_share <= 0.5:
            raise ValueError(f"held_out_share is {self.held_out_share}: at least 0, at most 0.5")
        if self.camera not in (None, *CAMERAS):
            raise ValueError(f"camera '{self.camera}' is not one of {', '.join(CAMERAS)}")
        if self.focal_px is not None and not 0 < self.focal_px < np.inf:
            raise ValueError(f"focal_px is {self.focal_px}: positive, in pixels")
        if self.pitch_deg is not None and not np.all(np.abs(self.pitch_deg) < _STEEPEST_DEG):
            raise ValueError(f"pitch_deg is {self.pitch_deg}: between -{_STEEPEST_DEG:.0f} and {_STEEPEST_DEG:.0f}")
        if self.height_cm is not None:
            measurements.check_height(self.height_cm)
        if self.pitch_deg is not None and self.weights != "pose_prior":
            raise ValueError(f"pitch_deg belongs to the weights pose_prior, not to {self.weights}")
        one = {"camera": self.camera, "focal_px": self.focal_px, "pitch_deg": self.pitch_deg}
        for name, value in one.items() if self.cameras else ():
            if value is not None:
                raise ValueError(f"{name} is {value}: of one camera; those of a calibration have their own")
        if self.cameras and self.weights == "estimated":
            raise ValueError("weights estimated: are of single images, not of several cameras")
        if self.tracks and self.optimizer != "lm":
            raise ValueError(f"tracks are fitted by the optimizer lm, not by {self.optimizer}")
        if self.fps is not None and not 0 < self.fps < np.inf:
            raise ValueError(f"fps is {self.fps}: positive, frames a second")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}: at least 1")

    def registration(self, people: int) -> RegistrationConfig:
        """Return how a crowd of so many people is registered."""
        steps = self.steps or (_FEW_OF_TRACKS if self.tracks else _FEW if self.optimizer in _FEW_STEPS else _MANY)
        # `lm` is so fast that one compiled shape, kept on disk, beats a smaller batch; the others are padded less
        batch = _BATCH if self.optimizer == "lm" else min(_BATCH, 1 << (people - 1).bit_length())
        return RegistrationConfig(
            optimizer=self.optimizer, steps=steps, learning_rate=self.learning_rate, starts=self.starts, batch=batch,
            tolerance=self.tolerance, schedule=self.schedule or "constant",
        )  # fmt: skip

    def objective(self) -> Objective:
        """Return what is minimised in the end (of `estimated` weights: before their estimation)."""
        weights = "paper_soft" if self.weights == "estimated" else self.weights
        named = schedules.objective_by_name(weights, self.scales)
        named = dataclasses.replace(named.reweighted(limit=self.joint_limits or None), terms=self.terms)
        return schedules.stages(self.schedule or "constant", named)[-1]


def fit(
    people: Observations | Annotations,
    body: Template | None = None,
    options: FitOptions | None = None,
    *,
    optimizer: str | None = None,
    lifting: str | os.PathLike[str] | None = None,
    initial: FitRows | None = None,
    progress: bool = False,
) -> Fits:
    """Fit the body to every person: starts, optimiser, the start of lowest energy; and report on each fit.

    Example:
        fits = dal.fit(dal.read_annotations("people.json", images="photos"), dal.load_body())
        fits.joints_px[0], fits.quality[0].flags

    Args:
      people: from `read_annotations` or `Observations.from_points`.
      body: from `load_body`; None: the free body.
      options: see `FitOptions`.
      optimizer: the same as in `options`, which it overrides.
      lifting: the lifter that gives key points their depth (eq. 4): a folder or a small file of one, `shipped`, or
        `none`, with which eq. 4 has no z term. None: `shipped` for people without dense points, where the weights
        are `pose_prior`; else `none`.
      initial: earlier fits of the same people, one more start.
      progress: show bars on stderr.

    Raises:
      ValueError: an option, or observations that do not fit the body; names the value.
      errors.InputError: a file cannot be used.
    """
    machine.configure()
    options = dataclasses.replace(options or FitOptions(), **({} if optimizer is None else {"optimizer": optimizer}))
    options.check()
    body = load_body() if body is None else body
    annotations = people if isinstance(people, Annotations) else None
    predicted = annotations is not None and annotations.predicted
    if options.schedule is None and predicted and not options.weights.startswith("paper"):
        options = dataclasses.replace(options, schedule="graduated")
    observed = Observations.of_annotations(people, body) if isinstance(people, Annotations) else people
    _check_faces(observed.stacked, body)
    if options.cameras:
        if initial is not None:
            raise ValueError("initial: fits before several cameras have starts of their own")
        return _fit_moments(observed, annotations, body, options, progress)
    frames, exchanged = None, np.zeros(len(observed), bool)
    if options.tracks:
        frames = following.frames_of(observed, _fps(options, annotations))
        observed, exchanged = following.set_right(observed, frames)
    observed = _before_camera(observed, annotations, options)
    if (lifter := chosen_lifter(observed, options, lifting)) is not None:
        observed = observed.replace(functools.partial(lifted, lifter, alone=lifting is None))
    for name, values in (("pitch_deg", options.pitch_deg), ("height_cm", options.height_cm)):
        if isinstance(values, tuple) and len(values) != len(observed):
            raise ValueError(f"{name} has {len(values)} values for {len(observed)} people")
    config, objective = options.registration(len(observed)), options.objective()
    to_fit, levels = observed.stacked, None
    if options.weights == "pose_prior":
        pitch = None if options.pitch_deg is None else np.asarray(options.pitch_deg)
        to_fit = single_views.complete(to_fit, pitch)
    if options.weights == "estimated":
        _, levels = noise.alternate(body, to_fit, config, outlier=objective.weights.outlier)
        estimated = noise.objective(levels).reweighted(outlier=objective.weights.outlier, limit=objective.weights.limit)
        objective = dataclasses.replace(estimated, terms=options.terms)
        to_fit = noise.reweighted(to_fit, levels)
    identity = list(zip(observed.image_id, observed.annotation_id, strict=True))
    given = [] if initial is None else [file.starts_for(initial, identity, np.asarray(observed.stacked.box_px))]
    rounds, alone = 1 if frames is None else 1 + tracks_lib.ROUNDS, to_fit
    with bars.bar("register", total=rounds * len(observed), unit="person", shown=progress) as bar:
        report = lambda done: bar.update(done - bar.n)  # noqa: E731
        if frames is None:
            found = register.register(body, to_fit, config, objective, given, report)
        else:
            found, to_fit = tracks_lib.fit(body, to_fit, frames, config, objective, given, report)
    if frames is None and options.weights == "pose_prior" and options.optimizer == "lm":
        found = modes.settle(body, to_fit, found, objective)
    fits = Fits.of(observed, body, found.parameters, np.asarray(found.energy), np.asarray(found.converged), annotations)
    fits.height_cm = options.height_cm
    if frames is not None:
        fits.follow(frames, exchanged)
    if options.quality:
        assessed = _assess(body, to_fit if levels is None else observed.stacked, found, objective, levels)
        fits.report(assessed)
    if options.held_out_share and not np.all(_alone(observed.stacked)):
        folds = round(1 / options.held_out_share)
        with bars.bar("held-out points", total=len(observed) * folds, unit="fit", shown=progress) as bar:
            fits.held_out_error_px = quality.held_out_error_px(
                body, alone, config, objective, folds, lambda done: bar.update(done - bar.n)
            )
    return fits


def _fit_moments(
    people: Observations, annotations: Annotations | None, body: Template, options: FitOptions, progress: bool
) -> Fits:
    """Fit what several calibrated cameras see of each moment; a row for each of the people, as its camera sees it."""
    config = dataclasses.replace(options.registration(len(people)), starts="closed_form")
    with bars.bar("register", total=None, unit="moment", shown=progress) as bar:
        together = views.fit_people(
            body, people, cameras_file.read(options.cameras or ""), config, options.objective(),
            options.tracks or any(one is not None for one in people.track_id), lambda done: bar.update(done - bar.n),
        )  # fmt: skip
    seen = together.seen
    judged, bodies = (np.asarray(seen.energy), np.asarray(seen.converged)), together.bodies
    fits = Fits.of(together.people, body, seen.parameters, *judged, annotations)
    fits.world, fits.height_cm, rows = bodies, options.height_cm, fits.fitted_rows()
    fits.extra, fits.summary = file.of_moments(fits, rows, together)
    if options.tracks:
        fits.fps = _fps(options, annotations)
        fits.extra["track_id"] = file.tracks_of_moments(fits, rows, together.moments)
    if options.quality:
        images, moments = (together.people.stacked, seen), (together.observed, together.found)
        moment = together.moments.of_rows(len(people))[0]
        fits.report(quality.assess_moments(body, images, moments, moment, options.objective()))
    return fits


def refine(fits: Fits, optimizer: str = "lm") -> Fits:
    """Register predicted people to their annotation, from their predictions alone, with the paper's later weights.

    Raises:
      ValueError: the fits have no observations (they were read from a file), or an unknown optimiser.
    """
    if fits.observations is None or fits.body is None:
        raise ValueError("refining needs fits with observations and a body: those of `predict`")
    observed, start = fits.observations, fits.fitted()
    objective = Objective(scales="isotropic" if start.segment_girth is None else "anisotropic")
    config = dataclasses.replace(FitOptions(optimizer=optimizer).registration(len(observed)), starts="given")
    with bars.bar("refine", total=len(observed), unit="person") as bar:
        found = register.register(
            fits.body, observed.stacked, config, objective, [start], lambda done: bar.update(done - bar.n)
        )
    energy, converged = np.asarray(found.energy), np.asarray(found.converged)
    return Fits.of(observed, fits.body, found.parameters, energy, converged, fits.annotations)


def chosen_lifter(
    people: Observations | Annotations, options: FitOptions, lifting: str | os.PathLike[str] | None
) -> str | os.PathLike[str] | None:
    """Return the lifter that `fit` takes for an argument `lifting`; None: no depths are lifted.

    Note: our choice, by `benchmarks/several_cameras.json`. On synthetic people and on a real one the shipped lifter
    makes fits to key points alone better.
    """
    if options.cameras or lifting is not None:
        return None if options.cameras or str(lifting) == WITHOUT_LIFTER else lifting
    if isinstance(people, Annotations):
        alone = any(len(person.part) == 0 for person in people.people)
    else:
        alone = np.any(_alone(people.stacked))
    if not alone or options.weights != "pose_prior":
        return None
    from dal_jax.lifting import folder as lifter_folder  # networks and checkpoints: half a second of imports

    return lifter_folder.SHIPPED


def lifted(lifter: str | os.PathLike[str], observation: Observation, alone: bool = False) -> Observation:
    """Return stacked observations with the depths that a lifter gives their key points (z of eq. 4).

    alone: give them to people without dense points alone, the others keep what they have.
    """
    from dal_jax.lifting import folder as lifter_folder, lift  # as above

    config, parameters = lifter_folder.load(lifter)
    given = lift.with_lifted_depth(config, parameters, observation)
    if not alone:
        return given
    rows = _alone(observation)[:, None]
    depth, confidence = (
        np.where(rows, getattr(given, name), getattr(observation, name)) for name in ("depth", "depth_confidence")
    )
    return with_depth(observation, depth, confidence)


def _fps(options: FitOptions, annotations: Annotations | None) -> float:
    said = None if options.fps or annotations is None else annotations.fps()
    return options.fps or said or _USUAL_FPS


_USUAL_FPS = 30.0


def _alone(observation: Observation) -> Bool[np.ndarray, "people"]:
    """Return who has no dense points."""
    return ~np.any(np.asarray(observation.point_confidence) > 0, axis=-1)


def chosen_camera(people: Observations | Annotations, options: FitOptions) -> str:
    """Return the camera that `fit` takes: a name of `CAMERAS`."""
    if options.focal_px is not None:
        return "perspective"
    return options.camera or ("assumed" if isinstance(people, Annotations) and people.detected else "weak")


def _before_camera(observed: Observations, annotations: Annotations | None, options: FitOptions) -> Observations:
    camera = chosen_camera(annotations or observed, options)
    if camera == "weak":
        return observed
    if annotations is None:
        raise ValueError("camera and focal_px are of photographs; arrays have Observations.with_camera")
    people, assume = annotations.people, camera == "assumed"
    focal = options.focal_px or np.array([annotations.focal_px(one, assume) for one in people])
    return observed.with_camera(focal, np.array([annotations.middle_px(one) for one in people]))


def _check_faces(observation: Observation, body: Template) -> None:
    faces = len(body.faces)
    if (wrong := observation.point_face >= faces).any():
        person, point = np.argwhere(wrong)[0]
        raise ValueError(f"faces[{person}, {point}] is {observation.point_face[person, point]}: the body has {faces}")


def _assess(
    body: Template, observed: Observation, found: Fit, objective: Objective, levels: NoiseLevels | None
) -> quality.Quality:
    """Return the report on fits to what was `observed`; without `levels` of noise the residuals of all fits tell."""
    body = dataclasses.replace(body, pose_blendshapes=None)  # modes are fitted by lm; a report can do without wrinkles
    return quality.assess(body, observed, found, objective, levels)
