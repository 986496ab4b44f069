"""What teaches the regressor: the same registered bodies learned with one thing changed at a time.

A variant changes the configuration, the people's weights, or spoils a share of the registrations. All variants of a
seed start from the same weights, see the people in the same order and take the same number of steps.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from dal_jax.body.kinematics import BodyParameters
from dal_jax.registration.energy import Objective
from dal_jax.regressor import training
from dal_jax.regressor.augmentation import AugmentationConfig, mild
from dal_jax.regressor.model import Learned, RegressorConfig
from dal_jax.regressor.training import TrainingSet, TrainState
from dal_jax.runtime import progress
from dal_jax.runtime.errors import InputError
from dal_jax.uncertainty import posterior

FIGURES = ("mpjpe_mm", "pa_mpjpe_mm", "keypoint_error_px")
"""What a score has and a summary sums up; None where it cannot be known."""

Score = Callable[[RegressorConfig, Learned], dict[str, float | None]]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One small change: of fields of the regressor's configuration, of its augmentation's, or of the lesson.

    sample_weight: of `posterior.SAMPLE_WEIGHTS`; None: the run's own. bad_fits: a share of people have another's body.
    """

    regressor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    augmentation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sample_weight: str | None = None
    bad_fits: bool = False

    def configure(self, base: RegressorConfig) -> RegressorConfig:
        """Return the changed configuration."""
        changed = dataclasses.replace(base.augmentation, **self.augmentation)
        return dataclasses.replace(base, augmentation=changed, **self.regressor)


_MILD = dataclasses.asdict(mild())


def _some(*names: str) -> Variant:
    return Variant(augmentation={name: _MILD[name] for name in names})


VARIANTS = {
    "base": Variant(),
    "augmented": Variant(augmentation=_MILD),
    "unaltered": Variant(augmentation=dataclasses.asdict(AugmentationConfig())),
    "geometry": _some("rotation_deg", "zoom", "shift"),
    "colours": _some("brightness", "contrast", "tint"),
    "occlusion": _some("erase_share"),
    "rotations_6d": Variant(regressor={"rotations": "6d"}),
    "iterated": Variant(regressor={"iterations": 3}),
    "iterated_6d": Variant(regressor={"rotations": "6d", "iterations": 3}),
    "average": Variant(regressor={"average_decay": 0.99}),
    "constant_rate": Variant(regressor={"warmup_share": 0.0, "last_rate_share": 1.0}),
    "weighted_residual": Variant(sample_weight="residual"),
    "weighted_posterior": Variant(sample_weight="posterior"),
    "bad_fits": Variant(sample_weight="none", bad_fits=True),
    "bad_fits_residual": Variant(sample_weight="residual", bad_fits=True),
    "bad_fits_posterior": Variant(sample_weight="posterior", bad_fits=True),
}
"""By name; `base` is the run's own configuration, which the others are compared with."""


def chosen(names: Sequence[str]) -> list[str]:
    """Return names of `VARIANTS` in its order, so that what others are compared with comes first; all for none.

    Raises:
      errors.InputError: there is no such variant.
    """
    for name in names:
        if name not in VARIANTS:
            raise InputError(f"--variants={name}: of {', '.join(VARIANTS)}")
    return [name for name in VARIANTS if name in names or not names]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What there is to learn from, and how the run learned it.

    people: annotated, with their registered bodies. sample_weight: the run's own weighting. objective: that the fits
    were made with.
    """

    config: RegressorConfig
    people: TrainingSet
    sample_weight: str
    objective: Objective


class Comparison:
    """Trains variants on one lesson; weights of people are computed once."""

    def __init__(self, lesson: Lesson, epochs: int, bad_share: float, score: Score):
        """Prepare to train each variant for `epochs`.

        Args:
          bad_share: of people with somebody else's body in the variants with bad fits; 0 without such variants.
          score: of a trained regressor, `FIGURES`.
        """
        self._lesson, self._bad_share, self._score = lesson, bad_share, score
        self._base = dataclasses.replace(lesson.config, epochs=epochs)
        self._spoiled, self._bad = swap_bodies(lesson.people.fits, bad_share)
        self._weights: dict[tuple[str, bool], np.ndarray] = {}

    def made_of(self, name: str, seed: int) -> dict[str, Any]:
        """Return what a variant's row depends on beside the lesson, as JSON."""
        variant, objective = VARIANTS[name], self._lesson.objective
        return {
            "config": dataclasses.asdict(variant.configure(self._base)),
            "sample_weight": self._weighting(variant),
            "objective": {
                name: jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), dataclasses.asdict(part))
                for name, part in (
                    ("weights", objective.weights),
                    ("prior", objective.prior),
                    ("shape", objective.shape),
                )
                if part is not None
            },
            "bad_fits": self._bad_share if variant.bad_fits else 0.0,
            "seed": seed,
        }

    def row(self, name: str, seed: int) -> dict[str, Any]:
        """Train a variant and score it; what is not finite is None."""
        variant = VARIANTS[name]
        config, weight = variant.configure(self._base), self._weight(variant)
        started = time.monotonic()
        people = dataclasses.replace(self._lesson.people, fits=self._fits(variant), sample_weight=weight)
        state, metrics = train(config, people, seed, f"{name}, seed {seed}")
        seconds = time.monotonic() - started
        row = {
            "name": name,
            "seed": seed,
            "sample_weight": self._weighting(variant),
            "weight_mean": float(np.mean(weight)),
        }
        if variant.bad_fits:
            row["bad_fits"] = float(np.mean(self._bad))
            row["bad_weight_share"] = float(np.sum(weight[self._bad]) / np.sum(weight))
        row |= self._score(config, state.learned) | {"train_joint_to_fit_mm": metrics["joint_to_fit_mm"]}
        row |= {"epochs": config.epochs, "steps": int(state.step), "seconds": round(seconds, 1)}
        return {name: _known(value) for name, value in row.items()}

    def _fits(self, variant: Variant) -> BodyParameters:
        return self._spoiled if variant.bad_fits else self._lesson.people.fits

    def _weighting(self, variant: Variant) -> str:
        return self._lesson.sample_weight if variant.sample_weight is None else variant.sample_weight

    def _weight(self, variant: Variant) -> Float[np.ndarray, "people"]:
        name, people = self._weighting(variant), self._lesson.people
        if (name, variant.bad_fits) not in self._weights:
            self._weights[name, variant.bad_fits] = posterior.sample_weights(
                name, people.template, people.observations, self._fits(variant), self._lesson.objective
            )
        return self._weights[name, variant.bad_fits]


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def swap_bodies(fits: BodyParameters, share: float, seed: int = 0) -> tuple[BodyParameters, Bool[np.ndarray, "people"]]:
    """Give this share of the people somebody else's body, camera and all, as if their registration had failed.

    Returns:
      The bodies, and whose are bad.

    Raises:
      errors.InputError: a share above 0 is less than one person, or there is no other person.
    """
    people = len(fits.camera_scale)
    count = round(share * people)
    if share and (count == 0 or people == 1):
        raise InputError(f"--bad_fits={share}: of {people} people nobody can have somebody else's body")
    random = np.random.default_rng(seed)
    bad = np.zeros(people, bool)
    bad[random.permutation(people)[:count]] = True
    whose = np.arange(people)
    whose[bad] = (whose[bad] + random.integers(1, people, count)) % people
    return jax.tree.map(lambda leaf: leaf[whose], fits), bad


def train(config: RegressorConfig, people: TrainingSet, seed: int, title: str) -> tuple[TrainState, dict[str, float]]:
    """Train a fresh regressor for the steps of all people's epochs; return it and its last epoch's metrics.

    Note: epochs with people of weight 0 are shorter, so there are more of them.
    """
    count = len(people.images)
    steps = config.epochs * math.ceil(count / min(config.batch, count))
    initial_key, order_key = jax.random.split(jax.random.key(seed))
    state = training.start_round(config, training.initial_state(config, initial_key), people.fits)
    metrics: dict[str, float] = {}
    epoch = 0
    with progress.bar(title, total=config.epochs * count, unit="image") as bar:
        while int(state.step) < steps:
            left = steps - int(state.step)
            state, metrics = training.train_epoch(
                config, state, people, order_key, span=(epoch, config.epochs), steps=left, progress=bar.update
            )
            epoch += 1
    return state, metrics


def summary(name: str, rows: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    """Return medians over a variant's seeds, and of the differences to `base` at the same seed where that was run."""
    found: dict[str, Any] = {"name": name, "seeds": len(rows), "steps": rows[0]["steps"]}
    for figure in FIGURES:
        values = [row[figure] for row in rows]
        found[f"{figure}_median"] = None if None in values else float(np.median(values))
        if base is not None:
            pairs = [(row[figure], other[figure]) for row, other in zip(rows, base, strict=True)]
            known = all(None not in pair for pair in pairs)
            found[f"{figure}_minus_base"] = float(np.median([one - other for one, other in pairs])) if known else None
    return found
