import numpy as np
import pytest

from dal_jax.registration import energy, named_weights, poses


def test_names_are_the_papers_rounds_and_ours():
    assert named_weights.by_name("stiff") == energy.stiff_weights()
    assert named_weights.by_name("soft") == energy.EnergyWeights()
    natural = named_weights.by_name("natural")
    np.testing.assert_array_equal(natural.rest.turn, poses.usual().mean)
    assert (natural.dense, natural.scale) == (energy.EnergyWeights().dense, energy.EnergyWeights().scale)
    with pytest.raises(ValueError, match="weights 'firm' are not among stiff, soft, natural"):
        named_weights.by_name("firm")
