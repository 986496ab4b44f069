"""The two bodies of these tests: a small made-up one for exact laws, the free body for everything that must be real."""

import numpy as np
import pytest

from dal_jax.body import template
from tests.body import made_up


@pytest.fixture(scope="session")
def made_up_body(tmp_path_factory):
    path = tmp_path_factory.mktemp("made_up") / "body.npz"
    np.savez(path, **made_up.fields())
    return template.load_template(path)


@pytest.fixture(scope="session")
def free_body():
    return template.load_template()
