"""The two bodies of these tests: a small made-up one for exact laws, the free body for everything that must be real.

`pose_made_up` and `pose_free` are (rotation, pose, segment_scale) -> (Segments, skinned vertices), compiled once.
"""

import jax
import numpy as np
import pytest

from dal_jax.body import kinematics, skinning
from dal_jax.body.formats import load
from tests.body import made_up


@pytest.fixture(scope="session")
def made_up_body(tmp_path_factory):
    path = tmp_path_factory.mktemp("made_up") / "body.npz"
    np.savez(path, **made_up.fields())
    return load.load_body(path)


@pytest.fixture(scope="session")
def free_body():
    return load.load_body()


@pytest.fixture(scope="session")
def pose_made_up(made_up_body):
    return _poser(made_up_body)


@pytest.fixture(scope="session")
def pose_free(free_body):
    return _poser(free_body)


def _poser(body):
    def pose(rotation, pose, segment_scale):
        segments = kinematics.pose_skeleton(body, rotation, pose, segment_scale)
        return segments, skinning.skin_vertices(body, segments)

    return jax.jit(pose)
