"""The hook is at work: a wrong shape is an error where the function is called."""

import jaxtyping
import numpy as np
import pytest

from dal_jax.body import triangles
from tests import shapes


def test_a_wrong_shape_is_an_error():
    corner = np.zeros((4, 3, 3))
    triangles.closest(np.zeros((4, 3)), corner)
    with pytest.raises(jaxtyping.TypeCheckError, match="corner"):
        triangles.closest(np.zeros((4, 3)), corner[:, :2])


def test_many_modules_are_checked():
    assert "dal_jax.body.rotations" in shapes.modules() and len(shapes.modules()) > 40
