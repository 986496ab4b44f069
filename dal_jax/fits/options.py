"""How people are fitted: one set of options for `dal.fit` and for the binaries."""

import dataclasses

import numpy as np

from dal_jax.registration import schedules
from dal_jax.registration.energy import SCALES, Objective, Term
from dal_jax.registration.register import RegistrationConfig
from dal_jax.registration.solvers import solve
from dal_jax.registration.starts import STARTS
from dal_jax.uncertainty import measurements

WEIGHTS = (*schedules.WEIGHTS, "estimated")
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
    cameras: file of calibrated cameras, or names of others that commas part (docs/several_cameras.md): what they see of
      a moment is fitted together, from a start of its own; None: every image by itself.
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
        if self.weights == "estimated" and self.scales != "isotropic":
            raise ValueError(f"weights estimated have isotropic scales, not {self.scales}")
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
