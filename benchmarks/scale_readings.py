"""Two readings of the paper's T_j = A_j S_j: segment scales that lengthen bones, ours, and scales that do not.

    python -m benchmarks.scale_readings --out=scale_readings.json

Literally read, S_j scales the surface about its joint and leaves the child joint where it is. The people are those of
benchmarks/people.json, whose bones are of other lengths than the body's, registered with the paper's weights by
`dense_lm`, whose derivatives are JAX's. Rows, by `reading` and `weights`: energies, and errors of Human3.6M's joints
in mm. Minutes on two cores.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from absl import flags

import dal_jax as dal
from benchmarks import measure, problems, registration, results
from dal_jax.body import kinematics
from dal_jax.body.kinematics import Segments
from dal_jax.body.template import Template
from dal_jax.registration import register, schedules
from dal_jax.registration.register import RegistrationConfig
from dal_jax.runtime import cli

# allow_override: tests import several benchmarks into one process
_OUT = flags.DEFINE_string("out", None, "JSON to write.", required=True, allow_override=True)

_CONFIG = pathlib.Path(__file__).with_name("people.json")
_lengthening = kinematics.turn_skeleton


def literal(template: Template, rotation: Any, joint_rotation: Any, segment_scale: Any) -> Segments:
    """Return posed segments as `kinematics.turn_skeleton` does, but child joints stay where they are."""
    rigid = _lengthening(template, rotation, joint_rotation, jnp.ones_like(segment_scale))
    return dataclasses.replace(rigid, scale=segment_scale)


READINGS = {"lengthening": _lengthening, "literal": literal}


def main(_: list[str]) -> None:
    """Register the people once for each reading and set of weights."""
    results.check_out(_OUT.value, overwrite=False)
    results.emit(_all_rows(), _OUT.value)


def _all_rows() -> Iterator[dict[str, Any]]:
    for reading in READINGS:  # each in a process of its own: what is compiled knows one reading
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own:
            yield from own.submit(_rows, reading).result()


def _rows(reading: str) -> list[dict[str, Any]]:
    """Return the rows of a reading, one for each set of weights."""
    with mock.patch.object(kinematics, "turn_skeleton", READINGS[reading]):
        made = problems.load(problems.read_config(_CONFIG), "runs/data")
        template, where = dal.load_body(), measure.machine(jax.devices()[:1])
        config = RegistrationConfig("dense_lm", 20, starts="headings4")
        rows = []
        for weights in ("paper_stiff", "paper_soft"):
            fit = register.register(template, made.observations, config, schedules.objective_by_name(weights))
            found = registration.quality(fit, None, template, made)
            rows.append({"reading": reading, "weights": weights, **found, **where})
        return rows


if __name__ == "__main__":
    cli.run(main)
