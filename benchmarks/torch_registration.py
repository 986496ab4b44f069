"""The usual PyTorch loop beside `lm`: the same people, the same energy, the same median energy reached, one run.

  python -m benchmarks.torch_registration --out=benchmarks/torch.json      about three minutes on two cores

usual: full-mesh skinning, autograd, Adam 0.1, ten people at a time, from the T-pose (the paper's setting).
best:  only the matched vertices, 1024 people at a time, tuned, from the closed-form start (which it gets free).
`lm` is then given the fewest steps that reach the same median energy, on the same people. PyTorch has ONE thread, JAX
all; compared is CPU time, user and system, of the whole process, so that neither the cores nor a busy machine decide. A
person's energy is the lowest seen so far, which favours the loops that go uphill. At the end the programs take turns,
and the costs are medians over those rounds. It stops if the two programs' energies differ by more than 2e-6 at the same
parameters.
"""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import flags

from benchmarks import equal_energy, measure, torch_energy
from benchmarks.equal_energy import Course, Racer
from benchmarks.problems import load, read_config, tile
from benchmarks.torch_energy import Body, Energy, Weights
from dal_jax.body import kinematics
from dal_jax.body.formats.load import load_body
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import energy as energy_lib, register
from dal_jax.registration.energy import Objective, Unknowns
from dal_jax.registration.register import RegistrationConfig
from dal_jax.registration.starts import closed_form
from dal_jax.runtime import cli, files, progress
from dal_jax.runtime.errors import InputError

_CONFIG = flags.DEFINE_string("people", str(pathlib.Path(__file__).parent / "people.json"), "Config of the people.")
_DATA_DIR = flags.DEFINE_string("data_dir", "runs/data", "Folder where the people are kept once made.")
_POINTS = flags.DEFINE_integer("points", 120, "Surface points a person.", 1)
_USUAL_PEOPLE = flags.DEFINE_integer("usual_people", 80, "People that the usual loop fits, ten at a time.", 10)
_USUAL_STEPS = flags.DEFINE_integer("usual_steps", 340, "Steps of the usual loop.", 1)
_BEST_PEOPLE = flags.DEFINE_integer("best_people", 1024, "People at a time of the best variant.", 1)
_BEST_STEPS = flags.DEFINE_integer("best_steps", 800, "The most steps of the best variant.", 1)
_BEST_RATE = flags.DEFINE_float("best_rate", 0.05, "Learning rate of the best variant.", 1e-9)
_BEST_BETA2 = flags.DEFINE_float("best_beta2", 0.95, "Adam's second decay of the best variant.", 0.0, 0.999999)
_COMPILE = flags.DEFINE_bool("compile", False, "torch.compile the best variant: needs a C++ compiler and a minute.")
_LM_STEPS = flags.DEFINE_integer("lm_steps", 10, "What `lm` reaches in so many steps from the closed form is 'low'.", 1)
_LM_PEOPLE = flags.DEFINE_integer("lm_people", 8192, "People a timed pass of `lm`.", 1)
_LM_BATCH = flags.DEFINE_integer("lm_batch", 128, "People at once of `lm`, a device.", 1)
_ROUNDS_S = flags.DEFINE_float("seconds", 20.0, "How long the programs take turns at the end.", 0.0)
_OUT = flags.DEFINE_string("out", None, "Write the rows here too, as one JSON list.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")

_USUAL_BATCH, _USUAL_RATE = 10, 0.1
_AGREEMENT = 2e-6
_BURST = {"usual": 10, "best": 2}  # steps of a turn
_MOST_LM_STEPS = 200


def main(_: list[str]) -> None:
    """Check that both compute the same; let the loops run; find `lm`'s steps; take turns; print."""
    if _OUT.value and pathlib.Path(_OUT.value).exists() and not _OVERWRITE.value:
        raise InputError(f"--out={_OUT.value} exists; --overwrite replaces it")
    config = read_config(_CONFIG.value)
    if _POINTS.value > config.points:
        raise InputError(f"--points={_POINTS.value}: {_CONFIG.value} has {config.points}")
    torch.set_num_threads(1)
    jax.config.update("jax_num_cpu_devices", os.cpu_count())  # a thread each: none waits for another
    problems = load(config, _DATA_DIR.value).take(points=_POINTS.value)
    contest = Contest(load_body(), problems.observations)
    rows = [{"what": "agreement", "relative_difference": contest.disagreement(), "allowed": _AGREEMENT}]
    rows += contest.rows()
    environment = {"data": problems.digest, "torch": torch.__version__, **measure.machine(jax.devices())}
    plain = [{name: _plain(value) for name, value in {**row, **environment}.items()} for row in rows]
    for row in plain:
        print(json.dumps(row, allow_nan=False), flush=True)
    if _OUT.value:
        files.write_json(_OUT.value, plain)


def _plain(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float | np.floating) else value


@dataclasses.dataclass(frozen=True)
class Run:
    """A loop that has run: the median of the lowest energies after each number of steps, and its next burst."""

    medians: np.ndarray
    burst: Callable[[], object]
    people: int


@dataclasses.dataclass(frozen=True)
class Contest:
    """The same people and weights for both programs."""

    template: Template
    observations: Observation

    def disagreement(self) -> float:
        """Return the largest relative difference of the energies at the same parameters.

        Raises:
          AssertionError: it is more than 2e-6.
        """
        people = jax.tree.map(lambda leaf: leaf[:64], self.observations)
        random = np.random.default_rng(0)
        numbers = self.start("tpose", len(people.depth))
        numbers = {name: values + random.normal(0, 0.1, values.shape) for name, values in numbers.items()}
        numbers = {name: values.astype(np.float32) for name, values in numbers.items()}
        ours = np.asarray(_jax_energies(self.template, people, Unknowns(**numbers)))
        theirs = [
            self.energy(people, mesh)(torch_energy.unknowns_at(numbers)).detach().numpy() for mesh in ("full", "points")
        ]
        worst = float(np.max(np.abs(np.stack(theirs) / ours - 1.0)))
        assert worst <= _AGREEMENT, f"the energies of the two programs differ by {worst}"
        return worst

    def rows(self) -> list[dict[str, object]]:
        """Run everything; return a row for each pair of rivals."""
        low = self.course("closed_form", _BEST_PEOPLE.value)
        usual, best = self.usual(), self.best()
        goals = {
            "tpose": float(usual.medians[-1]),
            "closed_form": max(float(np.median(low.energies(_LM_STEPS.value))), float(best.medians[-1])),
        }
        first = {name: int(np.argmax(run.medians <= goals[s])) for name, run, s in _pairs(usual, best)}
        steps = {
            "tpose": equal_energy.steps_to(self.course("tpose", usual.people), goals["tpose"], _MOST_LM_STEPS)[0],
            "closed_form": equal_energy.steps_to(low, goals["closed_form"], _MOST_LM_STEPS)[0],
        }
        if None in steps.values():
            raise InputError(f"lm did not reach {goals} within {_MOST_LM_STEPS} steps: {steps}")
        passes = {starts: self.lm_pass(starts, count) for starts, count in steps.items()}
        works = {"usual": usual.burst, "best": best.burst, **passes}
        print("taking turns", file=sys.stderr)
        for work in works.values():
            work()
        turns = measure.rates(works, measure.matmul_probe(jax.devices()), _ROUNDS_S.value)
        batches = {"usual": _USUAL_BATCH, "best": best.people}
        return [
            self._row(name, starts, goals[starts], first[name], steps[starts], turns, batches[name])
            for name, _, starts in _pairs(usual, best)
        ]

    def _row(self, name, starts, goal, torch_steps, lm_steps, turns, batch) -> dict[str, object]:
        theirs, ours = turns[name], turns[starts]
        a_step = torch_steps / _BURST[name] / batch
        cpu, wall = theirs.cpu_s * a_step, theirs.wall_s * a_step
        return {
            "what": f"lm against the {name} PyTorch loop",
            "starts": starts,
            "points": _POINTS.value,
            "energy_median": goal,
            "torch_steps": torch_steps,
            "torch_learning_rate": _USUAL_RATE if name == "usual" else _BEST_RATE.value,
            "torch_adam_beta2": 0.999 if name == "usual" else _BEST_BETA2.value,
            "torch_batch": batch,
            "torch_compiled": name == "best" and _COMPILE.value,
            "torch_threads": torch.get_num_threads(),
            "torch_cpu_s_per_fit": cpu,
            "torch_fits_per_second": 1.0 / wall,
            "lm_steps": lm_steps,
            "lm_batch": _LM_BATCH.value,
            "lm_cpu_s_per_fit": ours.cpu_s / _LM_PEOPLE.value,
            "lm_fits_per_second": _LM_PEOPLE.value / ours.wall_s,
            "cpu_time_ratio": cpu / (ours.cpu_s / _LM_PEOPLE.value),
            "wall_time_ratio": wall / (ours.wall_s / _LM_PEOPLE.value),
            "matmul_gflops": ours.matmul_gflops,
            "lm_fits_per_second_per_gflops": _LM_PEOPLE.value / ours.wall_s / ours.matmul_gflops,
            "rounds": ours.repeats,
        }

    def usual(self) -> Run:
        """Run the usual loop over its people, ten by ten."""
        people = _USUAL_PEOPLE.value // _USUAL_BATCH * _USUAL_BATCH
        everybody = tile(self.observations, people)
        lowest, loop = [], None
        for first in progress.bar("usual loop", range(0, people, _USUAL_BATCH), unit="batch"):
            ten = jax.tree.map(lambda leaf, first=first: leaf[first : first + _USUAL_BATCH], everybody)
            loop = Loop(self.energy(ten, "full"), self.start("tpose", _USUAL_BATCH), _USUAL_RATE, 0.999)
            lowest.append(loop.lowest(_USUAL_STEPS.value))
        medians = np.median(np.concatenate(lowest, axis=1), axis=1)
        return Run(medians, lambda: loop.steps(_BURST["usual"]), people)

    def best(self) -> Run:
        """Run the best variant over its people, all at once."""
        people = _BEST_PEOPLE.value
        everybody = tile(self.observations, people)
        start = self.start("closed_form", people)
        energies = self.energy(everybody, "points")
        loop = Loop(energies, start, _BEST_RATE.value, _BEST_BETA2.value, _COMPILE.value)
        medians = np.median(loop.lowest(_BEST_STEPS.value, "best variant"), axis=1)
        return Run(medians, lambda: loop.steps(_BURST["best"]), people)

    def energy(self, observed: Observation, mesh: str) -> Energy:
        """Return PyTorch's energy of these people."""
        vertex = torch_energy.matched_vertices(self.template.faces, observed)
        return Energy(Body(self.template), observed, vertex, Weights(), mesh)

    def start(self, starts: str, people: int) -> dict[str, np.ndarray]:
        """Return the free numbers at a start; both programs have the same."""
        found = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (people, *leaf.shape)), kinematics.t_pose()
        )  # fmt: skip
        if starts == "closed_form":
            found = _closed_form(self.template, tile(self.observations, people))
        unknowns = energy_lib.from_parameters(found)
        return {name: np.asarray(getattr(unknowns, name)) for name in torch_energy.UNKNOWNS}

    def course(self, starts: str, people: int) -> Course:
        """Return `lm` over the first people, its number of steps open."""
        racer = Racer(self.template, Objective(energy_lib.stiff_weights()), "lm", _USUAL_RATE, starts)
        everybody = tile(self.observations, people)
        batch = next(size for size in (64, 40, 20, 10, 1) if people % size == 0)
        return equal_energy.course(racer, everybody, batch)

    def lm_pass(self, starts: str, steps: int) -> Callable[[], object]:
        """Return the work of registering many people: lookup of the points, start, moments and fit, all of it."""
        config = RegistrationConfig("lm", steps=steps, starts=starts, batch=_LM_BATCH.value)
        everybody = tile(self.observations, _LM_PEOPLE.value)
        return lambda: register.register(self.template, everybody, config, Objective(energy_lib.stiff_weights()))


class Loop:
    """Adam on a batch of people, as everybody writes it."""

    def __init__(
        self,
        energies: Energy,
        start: dict[str, np.ndarray],
        rate: float,
        beta2: float,
        compiled: bool = False,
    ):
        self._energies = torch.compile(energies) if compiled else energies
        self._unknowns = torch_energy.unknowns_at(start)
        self._adam = torch.optim.Adam(list(self._unknowns.values()), lr=rate, betas=(0.9, beta2))

    def step(self) -> torch.Tensor:
        """Take a step; return the energies before it."""
        self._adam.zero_grad(set_to_none=True)
        energies = self._energies(self._unknowns)
        energies.sum().backward()
        self._adam.step()
        return energies.detach()

    def steps(self, count: int) -> None:
        """Take so many steps."""
        for _ in range(count):
            self.step()

    def lowest(self, count: int, title: str = "") -> np.ndarray:
        """Return each person's lowest energy after 0 to `count` steps, (count + 1, people)."""
        seen = []
        for _ in progress.bar(title, range(count + 1), unit="step") if title else range(count + 1):
            seen.append(np.nan_to_num(self.step().numpy(), nan=np.inf))
        return np.minimum.accumulate(np.stack(seen), axis=0)


def _pairs(usual: Run, best: Run) -> tuple[tuple[str, Run, str], ...]:
    return ("usual", usual, "tpose"), ("best", best, "closed_form")


@jax.jit
def _jax_energies(template, observed, unknowns):
    def one(observed_one, unknowns_one):
        target = residuals.make_target(template, observed_one)
        return energy_lib.energy(template, target, unknowns_one, Objective(energy_lib.stiff_weights()))

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(observed, unknowns)


@jax.jit
def _closed_form(template, observed):
    return jax.vmap(lambda one: closed_form(template, residuals.make_target(template, one)))(observed)


if __name__ == "__main__":
    cli.run(main)
