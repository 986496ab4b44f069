"""Time to equal energy: how many steps an optimiser needs for a target, and what those cost.

The number of steps is an argument of one compiled program (preparation and start included), so that it can be searched
for; the same program, compiled for growing batches, tells the largest that an optimiser manages.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from benchmarks import measure, problems, registration
from dal_jax.body import kinematics
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.observations.residuals import Target
from dal_jax.registration.energy import Objective
from dal_jax.registration.solvers import solve as solve_lib
from dal_jax.registration.solvers.descent import SolverOptions
from dal_jax.registration.solvers.solve import Batch
from dal_jax.registration.solvers.tree import state as state_lib
from dal_jax.registration.starts import closed_form

STARTS = ("tpose", "closed_form")
LARGEST_BATCH = 65_536
_PROBE_BATCH, _PROBE_STEPS = 64, 4


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled fit: run(observations, steps) gives the energies; bytes: the memory that it asks for."""

    run: Callable[[Observation, int], Float[Array, "people"]]
    bytes: int


@dataclasses.dataclass(frozen=True)
class Racer:
    """An optimiser at a start, whose number of steps is still open."""

    template: Template
    objective: Objective
    optimizer: str
    learning_rate: float
    starts: str

    def compile(self, observations: Observation) -> Program:
        """Return the program (observations, steps) -> energies, compiled for people of these shapes."""

        def solve(template, observed, tree, objective, steps) -> Float[Array, "people"]:
            with jax.default_matmul_precision("highest"):
                target = residuals.make_target(template, observed)
                batch = Batch(template, tree, target, objective, self._start(template, target))
                return solve_lib.solve(self.optimizer, batch, SolverOptions(steps, self.learning_rate)).energy

        template = jax.device_put(self.template)
        tree = jax.device_put(state_lib.build_model(self.template))
        objective = jax.tree.map(jnp.float32, self.objective)
        compiled = jax.jit(solve).lower(template, observations, tree, objective, jnp.int32(1)).compile()
        run = lambda observed, steps: compiled(template, observed, tree, objective, jnp.int32(steps))  # noqa: E731
        return Program(run, measure.compiled_bytes(compiled))

    def _start(self, template: Template, target: Target) -> BodyParameters:
        if self.starts == "closed_form":
            return jax.vmap(lambda one: closed_form(template, one))(target)
        people = len(target.observation.point_position)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (people, *leaf.shape)), kinematics.t_pose())


@dataclasses.dataclass(frozen=True)
class Course:
    """A racer compiled for one batch, and the people it runs over (a multiple of the batch)."""

    program: Program
    observations: Observation
    batch: int

    def energies(self, steps: int) -> Float[np.ndarray, "people"]:
        """Return everybody's energy after so many steps, infinity for what is none."""
        found = [self.program.run(chunk, steps) for chunk in self._chunks()]
        return registration.finite(np.concatenate([np.asarray(one) for one in found]))

    def _chunks(self) -> Iterator[Observation]:
        for first in range(0, len(self.observations.point_face), self.batch):
            yield jax.tree.map(lambda leaf, first=first: leaf[first : first + self.batch], self.observations)


def course(racer: Racer, observations: Observation, batch: int) -> Course:
    """Compile a racer for chunks of `batch` people; people over a multiple of it are left out."""
    batch = min(batch, len(observations.point_face))
    whole = len(observations.point_face) // batch * batch
    observations = jax.tree.map(lambda leaf: leaf[:whole], observations)
    return Course(racer.compile(jax.tree.map(lambda leaf: leaf[:batch], observations)), observations, batch)


def steps_to(course: Course, energy_median: float, most: int, patience_s: float = math.inf) -> tuple[int | None, int]:
    """Return the fewest steps whose median energy is at most that (None: not found), and the most that were tried.

    By doubling, until a run takes longer than `patience_s`, then bisection: exact where the median falls with the
    steps, and where it swings (Adam) near enough.
    """

    def there(steps: int) -> bool:
        return float(np.median(course.energies(steps))) <= energy_median

    high = 1
    while True:
        begin = time.perf_counter()
        if there(high):
            break
        if high == most or time.perf_counter() - begin > patience_s:
            return None, high
        high = min(2 * high, most)
    low = high // 2  # 0 steps, or known not to be enough
    while high - low > max(1, low // 10):
        middle = (low + high) // 2
        low, high = (low, middle) if there(middle) else (middle, high)
    return high, high


def cost_row(course: Course, steps: int, seconds: float) -> dict[str, object]:
    """Return what so many steps cost, beside the matmul rate of the same minutes."""
    devices = jax.devices()[:1]
    course.energies(steps)
    rate = measure.rates({"": lambda: course.energies(steps)}, measure.matmul_probe(devices), seconds)[""]
    people = len(course.observations.point_face)
    return {
        "people": people,
        "batch": course.batch,
        "repeats": rate.repeats,
        "fits_per_second": people / rate.wall_s,
        "cpu_s_per_fit": rate.cpu_s / people,
        "matmul_gflops": rate.matmul_gflops,
        "fits_per_second_per_gflops": people / rate.wall_s / rate.matmul_gflops,
        **measure.machine(devices),
    }


def largest_batch(
    racer: Racer, observations: Observation, steps: int, memory_limit: float, time_limit_s: float
) -> dict[str, object]:
    """Return the largest power of two, up to 65,536 people at once, within both limits; it is run for a few steps.

    Memory is what the compiled program asks for, which grows with the batch; time is that of all `steps`, from a few.
    """

    def share(memory: float, a_step: float) -> float:
        return max(memory / memory_limit, steps * a_step / time_limit_s)

    memory, a_step = _try(racer, observations, _PROBE_BATCH)
    batch = _power_of_two(_PROBE_BATCH / share(memory, a_step))
    while True:
        memory, a_step = _try(racer, observations, batch)
        within = share(memory, a_step) <= 1.0
        if within or batch == 1:
            break
        batch = min(batch // 2, _power_of_two(batch / share(memory, a_step)))
    limit = "memory" if memory / memory_limit > steps * a_step / time_limit_s else "time"
    if within and batch == LARGEST_BATCH:
        limit = "the largest tried"
    return {
        "steps": steps,
        "largest_batch": batch if within else 0,
        "limited_by": limit,
        "memory_gb": memory / 1e9,
        "memory_kb_per_person": memory / batch / 1e3,
        "seconds_a_batch": steps * a_step,
        "memory_limit_gb": memory_limit / 1e9,
        "time_limit_s": time_limit_s,
        **measure.machine(jax.devices()[:1]),
    }


def _power_of_two(number: float) -> int:
    return 1 << int(np.log2(max(1.0, min(LARGEST_BATCH, number))))


def _try(racer: Racer, observations: Observation, batch: int) -> tuple[float, float]:
    """Return (bytes, seconds a step, preparation included) of a batch."""
    observed = jax.device_put(problems.tile(observations, batch))
    program = racer.compile(observed)
    jax.block_until_ready(program.run(observed, 1))  # the first touches the memory
    work = {"": lambda: jax.block_until_ready(program.run(observed, _PROBE_STEPS))}
    return float(program.bytes), measure.rates(work, None, 0.0)[""].wall_s / _PROBE_STEPS
