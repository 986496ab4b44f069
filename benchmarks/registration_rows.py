"""Rows of `experiments.benchmark --target=registration`, by kind: optimizers, equal_energy, largest_batch, stream."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from benchmarks import equal_energy, registration, streaming
from benchmarks.equal_energy import Racer
from benchmarks.problems import Problems
from benchmarks.registration import Case, Patience
from benchmarks.results import Row
from dal_jax.body.template import Template
from dal_jax.registration import schedules
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.registration.solvers import solve
from dal_jax.runtime import progress
from dal_jax.uncertainty import noise as noise_lib

WEIGHTS = (*schedules.WEIGHTS, "estimated")
_TPOSE_BASELINE = ("adam", 0.1, 340)  # the paper's optimiser and rate, for as long as it still gains
_CLOSED_FORM_STEPS = 10
_MAX_STEPS = 2000
_EQUAL_ENERGY_PEOPLE = 64


@dataclasses.dataclass(frozen=True)
class Options:
    """What all kinds of rows have in common.

    cases: cells of the table; the first also says points and batch where a row has no case of its own.
    steps: None: the optimiser's default. reference: look for the best energy known. memory_limit_gb, time_limit_s: of
    largest_batch. stream_people: numbers of people to stream.
    """

    cases: list[Case]
    optimizers: list[str]
    learning_rate: float
    steps: int | None
    reference: bool
    patience: Patience
    memory_limit_gb: float
    time_limit_s: float
    stream_people: list[int]


def split_optimizers(text: str) -> list[str]:
    """Split names at the commas outside brackets, since arguments have commas of their own.

    Raises:
      ValueError: a name is not an optimiser.
    """
    names, depth = [""], 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            names.append("")
        else:
            names[-1] += letter
    for name in names:
        solve.check(name)
    return names


def weighted(name: str, points: int, template: Template, people: Problems) -> tuple[Problems, Objective]:
    """Return the objective of a name, and the people, reweighted by the noise levels where these are estimated."""
    if name in schedules.WEIGHTS:
        return people, schedules.objective_by_name(name)
    config = RegistrationConfig("lm", registration.DAMPED_STEPS, starts="headings4")
    seen = people.take(points=points).observations
    _, noise = noise_lib.alternate(template, seen, config)
    reweighted = dataclasses.replace(people, observations=noise_lib.reweighted(people.observations, noise))
    return reweighted, noise_lib.objective(noise)


def rows(kind: str, options: Options, template: Template, problems: Problems, objective: Objective) -> Iterator[Row]:
    """Yield the rows of one kind."""
    if kind == "optimizers":
        return _optimizer_rows(options, template, problems, objective)
    if kind == "equal_energy":
        return _equal_energy_rows(options, template, problems, objective)
    if kind == "largest_batch":
        return _largest_batch_rows(options, template, problems, objective)
    case = options.cases[0]
    return (streaming.run(case, template, problems, objective, count) for count in options.stream_people)


def _optimizer_rows(options: Options, template: Template, problems: Problems, objective: Objective) -> Iterator[Row]:
    """Yield when all are measured: the best energy known is the best of them all."""
    best: dict[int, np.ndarray] = {}
    if options.reference:
        for points in progress.bar("best energies", sorted({case.points for case in options.cases}), unit="reference"):
            best[points] = registration.best_known(template, problems.take(points=points).observations, objective)
    measured = []
    for case in progress.bar("optimizers", options.cases, unit="row"):
        found = registration.run(case, template, problems, objective, options.patience)
        if case.points in best:
            count = len(found.fit.energy)
            best[case.points][:count] = np.minimum(
                best[case.points][:count], registration.finite(np.asarray(found.fit.energy))
            )
        measured.append((case, found))
    for case, found in measured:
        yield {**found.row, **registration.quality(found.fit, best.get(case.points), template, problems)}


def _equal_energy_rows(options: Options, template: Template, problems: Problems, objective: Objective) -> Iterator[Row]:
    observations = problems.take(_EQUAL_ENERGY_PEOPLE, options.cases[0].points).observations
    batch = options.cases[0].batch
    baseline, rate, baseline_steps = _TPOSE_BASELINE
    targets = {"tpose": (baseline, rate, baseline_steps), "closed_form": ("lm", rate, _CLOSED_FORM_STEPS)}
    for starts, (name, learning_rate, steps) in targets.items():
        leader = Racer(template, objective, name, learning_rate, starts)
        goal = float(np.median(equal_energy.course(leader, observations, batch).energies(steps)))
        for optimizer in progress.bar(f"equal energy from {starts}", options.optimizers, unit="optimiser"):
            racer = Racer(template, objective, optimizer, options.learning_rate, starts)
            course = equal_energy.course(racer, observations, batch)
            needed, tried = equal_energy.steps_to(course, goal, _MAX_STEPS, options.patience.pass_s / 4)
            row = {
                "optimizer": optimizer,
                "learning_rate": options.learning_rate,
                "starts": starts,
                "points": options.cases[0].points,
                "energy_target": goal,
                "target_set_by": f"{name} after {steps} steps",
                "steps": needed,
                "most_steps_tried": tried,
            }
            cost = {} if needed is None else equal_energy.cost_row(course, needed, options.patience.repeats_s)
            yield {**row, "energy_median": float(np.median(course.energies(tried))), **cost}


def _largest_batch_rows(
    options: Options, template: Template, problems: Problems, objective: Objective
) -> Iterator[Row]:
    observations = problems.take(points=options.cases[0].points).observations
    for optimizer in progress.bar("largest batches", options.optimizers, unit="optimiser"):
        racer = Racer(template, objective, optimizer, options.learning_rate, "closed_form")
        steps = options.steps or registration.default_steps(optimizer)
        limits = (1e9 * options.memory_limit_gb, options.time_limit_s)
        found = equal_energy.largest_batch(racer, observations, steps, *limits)
        yield {"optimizer": optimizer, "starts": "closed_form", "points": options.cases[0].points, **found}
