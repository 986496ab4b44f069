"""A body whose pictures are known in closed form: a ball, carried by the pelvis."""

import numpy as np
import pytest
import trimesh

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.body.template import Template

BALL_CENTRE = (0.2, 0.3, -0.1)  # body frame: to its left, up, behind the pelvis
BALL_RADIUS = 0.4


@pytest.fixture(scope="session")
def ball(tmp_path_factory) -> Template:
    """Return a template that is a ball of `BALL_RADIUS` round `BALL_CENTRE`, metres."""
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=BALL_RADIUS)
    vertices = sphere.vertices + BALL_CENTRE
    count = len(vertices)
    skin_weight = np.zeros((count, 4))
    skin_weight[:, 0] = 1.0
    path = tmp_path_factory.mktemp("body") / "ball.npz"
    np.savez(
        path,
        vertices=vertices.astype(np.float32),
        faces=sphere.faces.astype(np.int32),
        joints=np.linspace((0, 0, 0), (0, 1, 0), 24, dtype=np.float32),
        parents=np.array(skeleton.SMPL_PARENTS),
        skin_index=np.zeros((count, 4), np.int32),
        skin_weight=skin_weight.astype(np.float32),
        mirror=np.arange(count),
        part=np.ones(len(sphere.faces), np.uint8),
        uv=np.zeros((len(sphere.faces), 3, 2), np.float32),
        h36m_regressor=np.full((17, count), 1.0 / count, np.float32),
    )
    return load.load_body(path)
