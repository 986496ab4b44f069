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
from dal_jax.fits.options import FitOptions
from dal_jax.observations import cameras_file, following
from dal_jax.observations.observation import Observation, with_depth, with_turns
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import Annotations
from dal_jax.registration import register, single_views, tracks as tracks_lib, uncalibrated, views
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit
from dal_jax.runtime import machine, progress as bars
from dal_jax.uncertainty import modes, noise, quality
from dal_jax.uncertainty.noise import NoiseLevels

WITHOUT_LIFTER = "none"


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
    with machine.for_people(len(observed)):
        if not options.cameras:
            return _fit_views(observed, annotations, body, options, lifting, initial, progress)
        if initial is not None:
            raise ValueError("initial: fits before several cameras have starts of their own")
        return _fit_moments(observed, annotations, body, options, progress)


def _fit_views(
    observed: Observations,
    annotations: Annotations | None,
    body: Template,
    options: FitOptions,
    lifting: str | os.PathLike[str] | None,
    initial: FitRows | None,
    progress: bool,
) -> Fits:
    """Fit every person to the one image that shows them."""
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
    with bars.bar("register", total=None, unit="fit", shown=progress) as bar:
        cameras = cameras_file.read(options.cameras or "")
        together = (views if cameras[0].calibrated else uncalibrated).fit_people(
            body, people, cameras, config, options.objective(),
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

    Those of a lifter that says how sure it is may turn in common; Kudo's are the paper's plain term.

    alone: give them to people without dense points alone, the others keep what they have.
    """
    from dal_jax.lifting import folder as lifter_folder, lift  # as above

    config, parameters = lifter_folder.load(lifter)
    given = lift.with_lifted_depth(config, parameters, observation)
    given = given if parameters.estimator is None else with_turns(given)
    if not alone:
        return given
    rows = _alone(observation)[:, None]
    depth, confidence = (
        np.where(rows, getattr(given, name), getattr(observation, name)) for name in ("depth", "depth_confidence")
    )
    turns = None if given.depth_turns is None else given.depth_turns * rows[..., None]
    return dataclasses.replace(with_depth(observation, depth, confidence), depth_turns=turns)


def _fps(options: FitOptions, annotations: Annotations | None) -> float:
    said = None if options.fps or annotations is None else annotations.fps()
    return options.fps or said or _USUAL_FPS


_USUAL_FPS = 30.0


def _alone(observation: Observation) -> Bool[np.ndarray, "people"]:
    """Return who has no dense points."""
    return ~np.any(np.asarray(observation.point_confidence) > 0, axis=-1)


def chosen_camera(people: Observations | Annotations, options: FitOptions) -> str:
    """Return the camera that `fit` takes: a name of `options.CAMERAS`."""
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
