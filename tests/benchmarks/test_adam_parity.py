"""`adam` at the paper's settings is PyTorch's Adam on the same energy: a golden run, in float64, step by step.

`python -m benchmarks.torch_adam_parity` made the file, with an energy written in PyTorch from its definition.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dal_jax.body import kinematics
from dal_jax.body.formats import load
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import energy
from dal_jax.registration.energy import Objective
from dal_jax.registration.solvers import optax_solver, solve as solve_lib
from dal_jax.registration.solvers.descent import SolverOptions
from dal_jax.registration.solvers.solve import Batch
from dal_jax.registration.solvers.tree import state as state_lib

GOLDEN = pathlib.Path(__file__).with_name("adam_parity.npz")
STEPS = 20
ENERGY = 1e-6  # relative, as promised; measured 1e-13
NUMBERS = 1e-7  # absolute, of the free numbers after 20 steps of 0.1


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def _double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) if np.asarray(leaf).dtype.kind == "f" else leaf, tree)


def _template() -> Template:
    """Return the free body in float64, its constant matrices multiplied in float64."""
    body = _double(load.load_body())
    homogeneous = np.concatenate([body.vertices, np.ones_like(body.vertices[:, :1])], axis=1)
    matrix = (body.skin_weight[:, :, None] * homogeneous[:, None]).reshape(len(body.vertices), -1)
    return body.replace(skinning_matrix=matrix, keypoint_matrix=body.keypoint_regressor @ matrix)


def _problem(golden):
    fields = {name.removeprefix("observed_"): golden[name] for name in golden if name.startswith("observed_")}
    observed = _double(Observation(**fields))
    start = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (3, *np.shape(leaf))), _double(kinematics.t_pose()))
    return _template(), observed, start


def test_every_step_has_the_energy_of_the_golden_run(golden):
    template, observed, start = _problem(golden)

    def run(observed_one, start_one):
        target = residuals.make_target(template, observed_one)

        def cost(unknowns):
            return energy.energy(template, target, unknowns, Objective(energy.stiff_weights()))

        return optax_solver.trajectory(cost, energy.from_parameters(start_one), optax.adam(0.1), STEPS)

    found = np.asarray(jax.jit(jax.vmap(run, out_axes=1))(observed, start))
    assert found.dtype == np.float64 and golden["energies"][-1].max() < 0.2 * golden["energies"][0].min()
    np.testing.assert_allclose(found, golden["energies"], rtol=ENERGY)


def test_the_solver_adam_ends_where_the_golden_run_ends(golden):
    template, observed, start = _problem(golden)
    last = golden["energies"].argmin(axis=0) == STEPS  # a solver keeps the best
    assert last.all()
    tree = state_lib.build_model(template)

    def solve(observed, start):
        target = residuals.make_target(template, observed)
        objective = Objective(energy.stiff_weights())
        batch = Batch(template, tree, target, objective, start)
        return solve_lib.solve("adam", batch, SolverOptions(STEPS, learning_rate=0.1)).state

    found = jax.jit(solve)(observed, start)
    np.testing.assert_allclose(found.pose[last], golden["end_pose"][last], atol=NUMBERS)
    np.testing.assert_allclose(found.translation[last], golden["end_translation"][last], atol=NUMBERS)
    # a finished fit has its gauge fixed: the product of the two scales is what the image sees
    product = np.exp(golden["end_log_segment_scale"] + golden["end_log_camera_scale"][:, None])
    seen = found.segment_scale * jnp.asarray(found.camera_scale)[:, None]
    np.testing.assert_allclose(seen[last], product[last], atol=NUMBERS)
