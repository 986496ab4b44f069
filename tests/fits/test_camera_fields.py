"""Fits in the camera's frame: they project to where the fits lie in the photograph, the better the further away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import cameras
from dal_jax.body.formats import load
from dal_jax.fits import file
from dal_jax.fits.file import FitRows
from dal_jax.observations.observations import Observations
from tests.fits import entries
from tests.regressor import people

PX = 0.02  # float32 rounding of a photograph of a thousand pixels


@pytest.fixture(scope="module")
def fits():
    """Three bodies in three crops; the row between them is not valid."""
    bodies = people.random_bodies(3, seed=0).replace(translation=np.zeros((3, 2), np.float32))
    box_px = np.array([[-50.0, 0.0, 120.0, 120.0], [200.0, 80.0, 100.0, 100.0], [900.0, 500.0, 90.0, 90.0]], np.float32)
    observed = people.observe(bodies, seed=0).replace(box_px=box_px)
    observations = Observations(observed, box_px, [0] * 3, [1, 2, 4], ["a.jpg"] * 3)
    rows = [entries.annotated(0, 1), entries.annotated(0, 2), entries.rejected(0, 3), entries.annotated(0, 4)]
    return FitRows(**file.spread(file.rows_of(observations, load.load_body(), bodies), rows))


@pytest.mark.parametrize("focal", [900.0, 50_000.0])
def test_joints_in_the_camera_project_to_the_photograph_s(fits, focal):
    intrinsics = np.tile(np.array([focal, focal, 500.0, 300.0], np.float32), (4, 1))
    fields = file.in_camera(fits, intrinsics)
    projected = np.asarray(jax.vmap(cameras.project_perspective)(fields["joints_camera"], intrinsics))
    valid = fits.valid
    assert valid.tolist() == [True, True, False, True] and np.isnan(fields["joints_camera"][2]).all()
    np.testing.assert_allclose(projected[valid, 0], fits.joints_px[valid, 0], atol=PX)
    depth = fields["joints_camera"][valid, 0, 2]
    off = np.abs(projected - fits.joints_px)[valid].max(axis=(1, 2))
    reach = np.linalg.norm(fits.joints[valid], axis=-1).max(axis=1)
    extent = np.abs(fits.joints_px - fits.joints_px[:, :1])[valid].max(axis=(1, 2))
    away = np.linalg.norm(fits.joints_px[valid, 0] - (500, 300), axis=1) / focal  # of the optical axis, as a tangent
    # what weak perspective leaves out is of the order of (depth of the body) / (distance), and of the turn
    assert np.all(off < 2 * extent * (reach / depth + away) + PX)
    lengths = np.linalg.norm(fields["joints_camera"] - fields["joints_camera"][:, :1], axis=-1)
    np.testing.assert_allclose(lengths[valid], np.linalg.norm(fits.joints, axis=-1)[valid], atol=1e-3)


def test_the_rotation_is_turned_as_the_joints_are(fits):
    intrinsics = np.tile(np.array([900.0, 900.0, 500.0, 300.0], np.float32), (4, 1))
    fields = file.in_camera(fits, intrinsics)
    turn = fields["rotation_camera"][fits.valid] @ np.swapaxes(fits.rotation[fits.valid], 1, 2)
    relative = fields["joints_h36m_camera"] - fields["joints_camera"][:, :1]
    turned = np.einsum("nij,nkj->nki", turn, fits.joints_h36m[fits.valid])
    np.testing.assert_allclose(relative[fits.valid], turned, atol=1e-3)
    box = jnp.asarray(fits.box_px[0])
    np.testing.assert_allclose(turn[0], cameras.crop_rotation(box, jnp.asarray(intrinsics[0])), atol=1e-5)
