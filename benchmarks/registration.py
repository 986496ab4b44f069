"""Registration measured: optimisers x starts x batches x devices, with the energies and joints that they reach."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from benchmarks import measure
from benchmarks.problems import Problems, spoil, tile
from dal_jax.body import kinematics, skinning
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.evaluation import metrics
from dal_jax.observations.observation import Observation
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig

MOST_PEOPLE = 16_384
REFERENCE_HEADINGS, REFERENCE_STEPS = 32, 50
FIRST_ORDER_STEPS, DAMPED_STEPS = 300, 20
_SHORTEST_PASS_S = 0.5


@dataclasses.dataclass(frozen=True)
class Case:
    """One cell of the table."""

    optimizer: str
    steps: int
    learning_rate: float
    starts: str
    batch: int
    devices: int
    points: int
    schedule: str = "constant"
    wrong_share: float = 0.0

    def config(self) -> RegistrationConfig:
        """Return it as registration takes it."""
        settings = dataclasses.asdict(self)
        known = {field.name for field in dataclasses.fields(RegistrationConfig)}
        return RegistrationConfig(**{name: value for name, value in settings.items() if name in known})


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to measure: seconds of repeats of a case, and the most that one pass over the people may take."""

    repeats_s: float
    pass_s: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """A case's row so far, and the fits of the first people (as many as the pass had), for the comparison later."""

    row: dict[str, object]
    fit: Fit


def default_steps(optimizer: str) -> int:
    """Return how many steps an optimiser is given where nobody says: enough to settle."""
    damped = optimizer.partition("(")[0] in ("lm", "dense_lm", "gauss_newton")
    return DAMPED_STEPS if damped else FIRST_ORDER_STEPS


def run(
    case: Case,
    template: Template,
    problems: Problems,
    objective: Objective,
    patience: Patience,
) -> Measured:
    """Compile on one batch, then time passes over the people: all of them, tiled if quick, fewer if slow."""
    available = spoil(problems.take(points=case.points).observations, case.wrong_share)
    known = len(available.point_face)

    def fit(people: int) -> Fit:
        return register.register(template, tile(available, people), case.config(), objective)

    with measure.first_call() as first:
        fit(case.batch)
    devices = jax.devices()[: case.devices]
    probe = measure.matmul_probe(devices)
    fits: list[Fit] = []
    observed = tile(available, case.batch)

    def work() -> None:
        fits[:] = [register.register(template, observed, case.config(), objective)]

    rate = measure.rates({"": work}, probe, 0.0)[""]
    one_batch_s = rate.wall_s
    people = case.batch
    if one_batch_s < patience.pass_s:  # else that one batch was the measurement
        for repeats_s in (0.0, patience.repeats_s):  # a pass has a fixed cost: from one batch, a person seems dearer
            people = _people_a_pass(case.batch, rate.wall_s / people, known, patience)
            observed = tile(available, people)
            rate = measure.rates({"": work}, probe, repeats_s)[""]
    fits_per_second = people / rate.wall_s
    row = {
        **dataclasses.asdict(case),
        "people": people,
        "data": problems.digest,
        "compile_s": max(0.0, first["first_s"] - one_batch_s),
        "compile_cached": first["compile_cached"],
        "repeats": rate.repeats,
        "fits_per_second": fits_per_second,
        "cpu_s_per_fit": rate.cpu_s / people,
        "matmul_gflops": rate.matmul_gflops,
        "fits_per_second_per_gflops": fits_per_second / rate.matmul_gflops,
        "peak_rss_mb": measure.peak_rss_bytes() / 1e6,
        **measure.machine(devices),
    }
    return Measured(row, jax.tree.map(lambda leaf: leaf[: min(people, known)], fits[0]))


def best_known(template: Template, observations: Observation, objective: Objective) -> Float[np.ndarray, "people"]:
    """Return each person's lowest energy over 32 headings of the closed-form start, 50 steps of `lm` each."""
    config = RegistrationConfig("lm", steps=REFERENCE_STEPS, starts=f"headings{REFERENCE_HEADINGS}", batch=16)
    return finite(register.register(template, observations, config, objective).energy)


def finite(energies: Float[np.ndarray, "people"]) -> Float[np.ndarray, "people"]:
    """Return the energies with infinity for what is none: it loses every comparison."""
    return np.where(np.isfinite(energies), energies, np.inf)


def quality(
    fit: Fit,
    best: Float[np.ndarray, "people"] | None,
    template: Template,
    problems: Problems,
) -> dict[str, object]:
    """Return the columns that say how good the fits are; medians and means over the people who were fitted.

    failures: energies that are not finite; within_best_share: of people within 1.5 x best + 1 of the best known energy.
    """
    count = len(fit.energy)
    energies = finite(fit.energy)
    alive = np.isfinite(energies)
    joints = np.asarray(_joints(template, jax.tree.map(jnp.asarray, fit.parameters)))
    errors_mm = metrics.human36m_protocol_1(
        np.where(alive[:, None, None], joints, 0.0), problems.joints_true_mm[:count], problems.canonical_bone_sum_mm
    )
    return {
        "scored_people": count,
        "energy_median": float(np.median(energies)),
        "energy_p95": float(np.quantile(energies, 0.95, method="higher")),
        "energy_mean": float(np.mean(energies[alive])) if alive.any() else None,
        "within_best_share": None if best is None else float(np.mean(energies <= 1.5 * best[:count] + 1.0)),
        "converged_share": float(np.mean(fit.converged & alive)),
        "mpjpe_mm": float(np.mean(errors_mm["mpjpe_mm"])),
        "mpjpe_median_mm": float(np.median(errors_mm["mpjpe_mm"])),
        "mpjpe_scale_matched_mm": float(np.mean(errors_mm["mpjpe_scale_matched_mm"])),
        "pa_mpjpe_mm": float(np.mean(errors_mm["pa_mpjpe_mm"])),
        "failures": int(np.sum(~alive)),
    }


@jax.jit
def _joints(template: Template, bodies: BodyParameters) -> Float[jax.Array, "people 17 3"]:
    def one(body: BodyParameters) -> Float[jax.Array, "17 3"]:
        segments = kinematics.pose_segments(template, body)
        return skinning.h36m_joints(template, segments)

    return jax.vmap(one)(bodies)


def _people_a_pass(batch: int, a_person_s: float, known: int, patience: Patience) -> int:
    """Return a multiple of the batch: the known people, more if they take no time, fewer if they take too long."""
    wanted = min(max(known, _SHORTEST_PASS_S / a_person_s), MOST_PEOPLE, patience.pass_s / a_person_s)
    return max(1, round(wanted / batch)) * batch
