import numpy as np
import pytest

from dal_jax.registration import energy, priors, schedules
from dal_jax.registration.energy import EnergyWeights


def test_names_are_the_papers_rounds_and_ours():
    assert schedules.weights_by_name("stiff") == energy.stiff_weights()
    assert schedules.weights_by_name("soft") == EnergyWeights()
    natural = schedules.weights_by_name("natural")
    np.testing.assert_array_equal(natural.rest.turn, priors.usual().mean)
    assert (natural.dense, natural.scale) == (EnergyWeights().dense, EnergyWeights().scale)
    with pytest.raises(ValueError, match="weights 'firm' are not among stiff, soft, natural"):
        schedules.weights_by_name("firm")
