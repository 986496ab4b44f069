"""The ConvNet's rates: operations counted by hand, plain Linen's network the same function, PyTorch's where it is."""

import functools

import jax
import numpy as np
import pytest

from benchmarks import regressor
from benchmarks.linen_resnet import LinenResNet50
from benchmarks.regressor import Case, Learner
from dal_jax.regressor import layers
from dal_jax.regressor.resnet import ResNet50

_PUBLISHED_MULTIPLICATIONS = 4_087_136_256  # of ResNet50's convolutions at 224 px: torchvision's 4.09 GFLOPs
_FLOAT32 = 1e-4  # relative to the largest number; measured 1e-6


def test_operations_are_those_of_the_published_network():
    theta = 2048 * 105
    assert regressor.flops(Case(64, 224, 1), training=False) == 2 * (_PUBLISHED_MULTIPLICATIONS + theta)
    first = 112 * 112 * 7 * 7 * 3 * 64
    assert regressor.flops(Case(64, 224, 1), training=True) == 2 * (3 * (_PUBLISHED_MULTIPLICATIONS + theta) - first)


def test_operations_are_those_that_xla_counts():
    """XLA leaves out multiplications by the zeros around an image, and adds what is no product."""
    network = LinenResNet50(16)
    image = jax.ShapeDtypeStruct((1, 128, 128, 3), np.float32)
    initialise = functools.partial(network.init, train=False)
    variables = jax.eval_shape(initialise, jax.random.key(0), image)
    lowered = jax.jit(functools.partial(network.apply, train=False)).lower(variables, image)
    counted = lowered.cost_analysis()["flops"]
    assert 0.9 < counted / regressor.flops(Case(16, 128, 1), training=False) < 1.1


@pytest.mark.parametrize("train", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_plain_linen_answers_as_ours(train):
    image = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype(np.float32)
    blocks = (2, 1, 1, 1)  # one of each kind
    ours, linen = ResNet50(2, blocks), LinenResNet50(2, blocks)
    shapes = jax.eval_shape(functools.partial(ours.init, train=False), jax.random.key(0), image)
    blank = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    variables = layers.draw_kernels(blank, jax.random.key(1))
    answers = []
    for network in (ours, linen):
        apply = jax.jit(functools.partial(network.apply, train=train, mutable=["batch_stats"]))
        answers.append(apply(variables, image)[0])
    np.testing.assert_allclose(*answers, rtol=0, atol=_FLOAT32 * np.abs(answers[0]).max())


def test_each_program_and_pass_has_a_row():
    case = Case(width=2, image_size=32, batch=2, depth=14)
    learner = Learner("dal_jax", case)
    losses = [learner.train() for _ in range(3)]
    assert losses[2] < losses[0], "it learns its batch"
    works = {"dal_jax training": learner.train, "dal_jax inference": learner.answer}
    training, inference = regressor.measured_rows(case, works, 0.0, {})
    assert (training["pass"], inference["pass"]) == ("training", "inference")
    for row in (training, inference):
        assert row["program"] == "dal_jax" and row["batch"] == 2 and row["wall_over_dal_jax"] == 1
        expected = row["gflop_per_image"] * row["images_per_second"] / row["matmul_gflops"]
        assert row["share_of_matmul"] == pytest.approx(expected)


@pytest.mark.slow
def test_pytorch_learns_the_same():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from benchmarks import resnet_comparison as resnet_race

    agreement, *rows = resnet_race.rows(Case(4, 64, 8, depth=26), threads=[1], seconds=0.0)
    assert agreement["answers"] <= agreement["allowed"]
    assert [row["program"] for row in rows] == ["dal_jax", "dal_jax", "linen", "linen"] + 2 * ["torch, threads: 1"]
