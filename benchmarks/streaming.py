"""Memory of registering a crowd, piece by piece: it must not depend on how many there are."""

import time
from collections.abc import Iterator

import jax
import numpy as np

from benchmarks import measure
from benchmarks.problems import Problems
from benchmarks.registration import Case
from dal_jax.body.template import Template
from dal_jax.observations.observation import Observation
from dal_jax.registration import register
from dal_jax.registration.energy import Objective

PIECE = 2048
"""People handed over at a time."""


def run(
    case: Case,
    template: Template,
    problems: Problems,
    objective: Objective,
    people: int,
) -> dict[str, object]:
    """Stream so many people through registration; the row says what the whole process needed at its highest.

    Call it in a process of its own: a peak does not come down again.
    """
    available = problems.take(points=case.points).observations
    devices = jax.devices()[: case.devices]
    begin, cpu = time.perf_counter(), time.process_time()
    done, total = 0, 0.0
    for fit in register.stream(template, _pieces(available, people), case.config(), objective):
        done += len(fit.energy)
        total += float(np.sum(fit.energy))
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    assert done == people, f"{done} fits came back for {people} people"
    return {
        "optimizer": case.optimizer,
        "steps": case.steps,
        "starts": case.starts,
        "batch": case.batch,
        "points": case.points,
        "people": people,
        "energy_mean": total / done,
        "seconds_compile_included": wall,
        "cpu_s_per_fit_compile_included": cpu / people,
        "peak_rss_mb": measure.peak_rss_bytes() / 1e6,
        **measure.machine(devices),
    }


def _pieces(observations: Observation, people: int) -> Iterator[Observation]:
    known = len(observations.point_face)
    for first in range(0, people, PIECE):
        rows = np.arange(first, min(first + PIECE, people)) % known
        yield jax.tree.map(lambda leaf, rows=rows: leaf[rows], observations)
