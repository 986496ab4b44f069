"""The lifter's rates: what is counted, which poses; and PyTorch's program against ours, where it is installed."""

import numpy as np
import pytest

from benchmarks import lifting
from benchmarks.lifting import Trainer
from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.lifting.config import LiftingConfig

_TINY = LiftingConfig(width=16, batch=8, members=2, average_decay=0.9)


@pytest.fixture(scope="module")
def poses():
    return lifting.people(load.load_body(), 64)


def test_people_stand_upright_at_any_azimuth(poses):
    assert poses.shape == (64, 17, 2) and poses.dtype == np.float32
    feet, head = poses[:, [3, 6], 1].min(axis=1), poses[:, 10, 1]
    assert np.mean(head < feet) > 0.9, "y is down"
    shoulders = poses[:, 14, 0] - poses[:, 11, 0]
    assert 0.2 < np.mean(shoulders < 0) < 0.8, "some turn their backs"
    bones = np.linalg.norm(poses - poses[:, np.maximum(skeleton.H36M_PARENTS, 0)], axis=-1)
    assert 0.1 < np.median(bones[:, 1:]) < 0.6, "metres"


def test_a_row_of_training_and_one_of_lifting_each_number(poses):
    training, *lifted = lifting.rows(_TINY, poses, [1, 5], steps=3, seconds=0.0)
    assert (training["work"], training["batch"], training["steps"], training["members"]) == ("training", 8, 3, 2)
    assert 0 <= training["generator_learns"] <= 1 and 0 <= training["discriminator_learns"] <= 1
    assert [(row["work"], row["batch"]) for row in lifted] == [("lifting", 1), ("lifting", 5)]
    for row in (training, *lifted):
        assert row["poses_per_second"] > 0 and row["cpu_s_per_pose"] > 0 and row["compile_s"] > 0


def test_training_goes_on_where_it_ended(poses):
    one, other = (Trainer(_TINY, poses) for _ in range(2))
    one.run(5)
    other.run(2)
    other.run(3)
    assert one.state.step == other.state.step == 5
    np.testing.assert_array_equal(one.state.members.camera.elevation, other.state.members.camera.elevation)
    kernels = [trainer.state.members.generator["params"]["mlp"]["last"]["kernel"] for trainer in (one, other)]
    np.testing.assert_array_equal(*kernels)


def test_pytorch_plays_the_same_game(poses):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from benchmarks import kudo_comparison

    found = kudo_comparison.agreement(LiftingConfig(width=64, batch=16), poses)
    assert {"lifted", "generator_gradient", "discriminator_gradient", "mirror_ambiguity"} <= set(found)
    rows = kudo_comparison.rows(LiftingConfig(width=16, batch=8), poses, steps=2, batches=[3], seconds=0.0)
    assert [(row["what"], row["batch"]) for row in rows] == [("training", 8), ("lifting", 3)]
    assert all(row["wall_time_ratio"] > 0 and row["torch_poses_per_second"] > 0 for row in rows)
