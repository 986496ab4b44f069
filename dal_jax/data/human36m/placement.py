"""A recorded motion put before a camera: which of its frames a video frame shows, and where the body stands there."""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dal_jax.data.human36m import release
from dal_jax.runtime.errors import InputError

_RATES = (10.0, 50.0, 100.0, 120.0, 200.0, 240.0)
"""Frames a second of motions that do not tell theirs; MoSh's of Human3.6M have 200, those per camera 10."""

_SLACK = 0.03  # share by which a motion may be longer or shorter than the positions

_AGREEING = 1.5  # times the median error of a sequence's frames; those beyond have no say in where the body stands


class Similarity(NamedTuple):
    """target = scale * rotation @ source + shift."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, "3"]

    def __call__(self, points: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
        """Carry points over."""
        return self.scale * points @ self.rotation.T + self.shift


def align(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"], scaled: bool) -> Similarity:
    """Return the similarity, without reflection, that brings points nearest to others (Umeyama 1991).

    scaled: choose the scale, too, which is 1 otherwise.
    """
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    centred = source - middle
    u, stretch, vt = np.linalg.svd((target - goal).T @ centred)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float(np.sum(stretch * sign) / max(np.sum(centred**2), 1e-12)) if scaled else 1.0
    return Similarity(scale, rotation, goal - scale * rotation @ middle)


def place(
    body: Float[np.ndarray, "frames 17 3"],
    truth: Float[np.ndarray, "frames 17 3"],
    trans: Float[np.ndarray, "frames 3"] | None,
    scaled: bool,
) -> list[Similarity]:
    """Return for each frame what brings the body, posed with its pelvis at the origin, before the camera.

    With `trans` one similarity holds for the whole sequence, whatever world the motion was recorded in; without it
    each frame has its own, for the file does not say where the person is. `scaled`: one scale for the sequence makes
    the body as large as the person, whose shape it has not.
    """
    if trans is not None:
        whole = _align_most(body + trans[:, None], truth, scaled)
        return [whole._replace(shift=whole(own)) for own in trans]
    each = [align(one, goal, scaled) for one, goal in zip(body, truth, strict=True)]
    scale = float(np.median([one.scale for one in each]))
    return [
        Similarity(scale, one.rotation, goal.mean(axis=0) - scale * one.rotation @ points.mean(axis=0))
        for one, points, goal in zip(each, body, truth, strict=True)
    ]


def _align_most(
    body: Float[np.ndarray, "frames 17 3"], truth: Float[np.ndarray, "frames 17 3"], scaled: bool
) -> Similarity:
    """Return the similarity of the frames that agree: those whose error is near the median's, once all are aligned."""
    first = align(body.reshape(-1, 3), truth.reshape(-1, 3), scaled)
    error = np.sqrt(np.mean((first(body) - truth) ** 2, axis=(1, 2)))
    kept = error <= _AGREEING * np.median(error)
    return align(body[kept].reshape(-1, 3), truth[kept].reshape(-1, 3), scaled)


def motion_frames(
    path: pathlib.Path, recorded: int, rate: float | None, count: int, wanted: Int[np.ndarray, "k"]
) -> Int[np.ndarray, "k"]:
    """Return which of a motion's `recorded` frames shows each wanted one of `count` positions; -1 where there is none.

    Raises:
      errors.InputError: the motion is longer or shorter than the sequence at any rate known.
    """
    seconds = count / release.FRAMES_PER_SECOND
    rates = (rate,) if rate else _RATES
    fitting = [one for one in rates if abs(recorded - seconds * one) <= _SLACK * seconds * one + one / 10]
    if not fitting:
        at = f"at {rate:g} a second" if rate else "at any rate known"
        raise InputError(f"{path}: {recorded} frames {at} are not the sequence's {seconds:.1f} s")
    best = min(fitting, key=lambda one: abs(recorded - seconds * one))
    exact = wanted * best / release.FRAMES_PER_SECOND
    nearest = np.round(exact).astype(np.int64)
    there = (np.abs(exact - nearest) < 0.5 * min(1.0, best / release.FRAMES_PER_SECOND) + 1e-6) & (nearest < recorded)
    return np.where(there, nearest, -1)
