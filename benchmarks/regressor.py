"""How fast the regressor learns and answers: images a second, and their share of the device's matmul rate."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from benchmarks import measure
from benchmarks.linen_resnet import LinenResNet50
from dal_jax.regressor import layers, resnet, theta
from dal_jax.regressor.resnet import ResNet50

TRUNKS = {"dal_jax": ResNet50, "linen": LinenResNet50}
LEARNING_RATE = 1e-4
_OUTPUTS = theta.SIZES["axis_angle"]

Work = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Case:
    """width: channels of the first convolution; image_size: px; batch: images at once; depth: layers of the ResNet."""

    width: int
    image_size: int
    batch: int
    depth: int = 50


def rows(case: Case, seconds: float) -> Iterator[dict[str, object]]:
    """Yield rows of training and of inference, ours and plain Linen's, interleaved."""
    works: dict[str, Work] = {}
    compile_s = {}
    for program in TRUNKS:
        learner = Learner(program, case)
        for passing, work in (("training", learner.train), ("inference", learner.answer)):
            name = f"{program} {passing}"
            with measure.first_call() as first:
                work()
            works[name], compile_s[name] = work, first
    yield from measured_rows(case, works, seconds, compile_s)


def measured_rows(
    case: Case, works: dict[str, Work], seconds: float, compile_s: dict[str, dict[str, object]]
) -> Iterator[dict[str, object]]:
    """Measure works named 'program pass', which are warm, in turns; yield a row for each.

    over_dal_jax: its wall (or CPU) time over ours of the same pass. share_of_matmul: the rate of its floating-point
    operations over that of a float32 matrix product of 2048 x 2048, in the same run.
    """
    calls = {name: measure.calls(work) for name, work in works.items()}
    repeated = {name: measure.repeated(work, calls[name]) for name, work in works.items()}
    devices = jax.devices()[:1]
    measured = measure.rates(repeated, measure.matmul_probe(devices), seconds)
    wall_s = {name: rate.wall_s / calls[name] for name, rate in measured.items()}
    cpu_s = {name: rate.cpu_s / calls[name] for name, rate in measured.items()}
    for name, rate in measured.items():
        program, passing = name.rsplit(" ", 1)
        operations = flops(case, passing == "training")
        gflops = 1e-9 * operations * case.batch / wall_s[name]
        yield {
            "program": program,
            "pass": passing,
            **dataclasses.asdict(case),
            "compile_s": compile_s.get(name, {}).get("first_s"),
            "compile_cached": compile_s.get(name, {}).get("compile_cached"),
            "repeats": rate.repeats,
            "images_per_second": case.batch / wall_s[name],
            "cpu_s_per_image": cpu_s[name] / case.batch,
            "wall_over_dal_jax": wall_s[name] / wall_s[f"dal_jax {passing}"],
            "cpu_over_dal_jax": cpu_s[name] / cpu_s[f"dal_jax {passing}"],
            "gflop_per_image": 1e-9 * operations,
            "gflops": gflops,
            "matmul_gflops": rate.matmul_gflops,
            "share_of_matmul": gflops / rate.matmul_gflops,
            **measure.machine(devices),
        }


class Network(nn.Module):
    """A trunk and one linear layer: pixels of unit deviation to 105 outputs."""

    trunk: nn.Module

    @nn.compact
    def __call__(self, image: Float[Array, "n s s 3"], train: bool) -> Float[Array, "n 105"]:
        """Return the outputs of images."""
        return nn.Dense(_OUTPUTS, name="theta")(self.trunk(image, train))


class Learner:
    """A network in training: each step goes on from the last one, on the same images.

    Attributes:
      variables: {'params', 'batch_stats'}.
      image, wanted: a batch, and what it is to answer.
    """

    def __init__(self, program: str, case: Case):
        self.network = Network(TRUNKS[program](case.width, resnet.DEPTHS[case.depth]))
        random = np.random.default_rng(0)
        self.image = random.normal(size=(case.batch, case.image_size, case.image_size, 3)).astype(np.float32)
        self.wanted = random.normal(size=(case.batch, _OUTPUTS)).astype(np.float32)
        drawn = jax.jit(self.network.init, static_argnames="train")(jax.random.key(0), self.image[:1], train=False)
        self.variables = layers.draw_kernels(drawn, jax.random.key(1))
        self._optimizer = optax.adam(LEARNING_RATE)
        self._moments = self._optimizer.init(self.variables["params"])
        self._shown = jax.device_put((self.image, self.wanted))
        self._step = jax.jit(self._take_step, donate_argnums=(0, 1))
        self._answer = jax.jit(lambda variables, image: self.network.apply(variables, image, train=False))

    def train(self) -> float:
        """Take a step; return the loss before it: the mean of squares."""
        self.variables, self._moments, loss = self._step(self.variables, self._moments, *self._shown)
        return float(loss)

    def answer(self) -> Float[Array, "n 105"]:
        """Answer the batch by the running statistics."""
        return jax.block_until_ready(self._answer(self.variables, self._shown[0]))

    def _take_step(self, variables: Any, moments: optax.OptState, image: Array, wanted: Array):
        def objective(params: Any):
            answered, updated = self.network.apply(
                {"params": params, "batch_stats": variables["batch_stats"]}, image, train=True, mutable=["batch_stats"]
            )
            return jnp.mean((answered - wanted) ** 2), updated["batch_stats"]

        (loss, statistics), gradient = jax.value_and_grad(objective, has_aux=True)(variables["params"])
        updates, moments = self._optimizer.update(gradient, moments)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": statistics}, moments, loss


def flops(case: Case, training: bool) -> int:
    """Return the floating-point operations of one image: two a multiplication of its convolutions and its linear layer.

    A training step has three times as many (the answer, the gradient by what goes in, that by the weights), but for the
    first convolution, whose input has no gradient. Normalisation, ReLU, pooling and Adam are not counted.
    """
    width, side = case.width, -(-case.image_size // 2)
    first = side**2 * 7 * 7 * 3 * width
    side, channels, others = -(-side // 2), width, 0
    for stage, blocks in enumerate(resnet.DEPTHS[case.depth]):
        inner = width << stage
        for block in range(blocks):
            before = side
            side = -(-side // 2) if stage > 0 and block == 0 else side
            others += before**2 * channels * inner + side**2 * (9 * inner**2 + inner * 4 * inner)
            others += side**2 * channels * 4 * inner if block == 0 else 0
            channels = 4 * inner
    others += channels * _OUTPUTS
    return 2 * (2 * first + 3 * others) if training else 2 * (first + others)
