"""The ConvNet of section 5: a ResNet50 and a head that gives theta; its configuration; prediction."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from dal_jax.body.parameters import BodyParameters
from dal_jax.regressor import heads, layers
from dal_jax.regressor.augmentation import AugmentationConfig, mild
from dal_jax.regressor.heads import Statistics
from dal_jax.regressor.losses import LossWeights
from dal_jax.regressor.pretrained import load_trunk
from dal_jax.regressor.resnet import ResNet50
from dal_jax.runtime.errors import InputError

_IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of 0..255, the normalisation that pretrained weights expect
_IMAGENET_SD = (58.395, 57.12, 57.375)


@dataclasses.dataclass
class RegressorConfig:
    """How the ConvNet is built and trained; the defaults are the paper's where it says anything."""

    preset: str = "paper"  # which whole configuration this is
    width: int = 64  # channels of the first convolution; 64 is ResNet50 as published
    image_size: int = 224  # px; the paper does not say, 224 is what ImageNet weights were trained on
    pretrained: str = ""  # .safetensors of an ImageNet ResNet50 (torchvision, timm, Hugging Face) to start from
    rotations: str = "axis_angle"  # what stands for a rotation: axis_angle (paper; nine numbers for R), 6d (6 for each)
    iterations: int = 0  # of HMR's regression (it has 3); 0: one linear layer, as in the paper
    batch: int = 30  # images a step
    epochs: int = 30  # in each round
    learning_rate: float = 1e-4  # of Adam; the highest of the schedule
    warmup_share: float = 0.0  # share of a round's steps in which the rate rises from 0
    last_rate_share: float = 1.0  # a cosine takes the rate down to this share of it; 1 = constant
    weight_decay: float = 0.0  # of AdamW, decoupled; 0 = Adam
    held_out_share: float = 0.0  # of the training people, never shown; their 2D losses choose a round's best epoch
    patience: int = 0  # epochs without a better one after which a round's training stops; 0: all are trained
    average_decay: float = 0.0  # of the running mean of the weights that predicts; 0 = the last weights
    compute_dtype: str = "float32"  # of the trunk's activations and products; bfloat16: for GPUs
    standardise: bool = False  # outputs in units of the first round's registrations: theta = mean + sd * output
    regress_in_sd: bool = False  # eq. 6 in those units too; else in radians, log scales and crop units, as they come
    weights: LossWeights = dataclasses.field(default_factory=LossWeights)  # eq. 5
    augmentation: AugmentationConfig = dataclasses.field(default_factory=AugmentationConfig)  # none in the paper


def paper() -> RegressorConfig:
    """The paper's numbers: GPU days on 100,000 images."""
    return RegressorConfig()


def demo() -> RegressorConfig:
    """A quarter of the width on 64 px: about 400 training images a second on two CPU cores.

    Nothing is augmented: in so few epochs the 2D losses of held-out training people end higher with it (1.82 with
    `augmentation.mild`, 1.65 with its flips alone, 1.63 without; three epochs).
    """
    return RegressorConfig(
        preset="demo",
        width=16,
        image_size=64,
        batch=32,
        epochs=3,
        learning_rate=3e-3,
        warmup_share=0.05,
        last_rate_share=0.02,
        weight_decay=1e-4,
        standardise=True,
        weights=LossWeights(regress=1.0, dense=1.0, keypoint=1.0, joint=10.0),
    )


def best() -> RegressorConfig:
    """What we would train on GPUs: the published size with what helped at the demo's, in bfloat16.

    Every epoch is trained (patience 0), as the learning rate's fall is worth more than what it costs; people are held
    out only to choose the best.
    """
    return dataclasses.replace(
        demo(),
        preset="best",
        width=64,
        image_size=224,
        batch=64,
        epochs=30,
        learning_rate=3e-4,
        average_decay=0.999,
        augmentation=mild(),
        held_out_share=0.05,
        compute_dtype="bfloat16",
    )


class Frozen:
    """A configuration as it is now, hashable: one compilation serves all configurations of equal values."""

    def __init__(self, config: RegressorConfig):
        self.config = copy.deepcopy(config)
        self._values = repr(config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._values == other._values

    def __hash__(self) -> int:
        return hash(self._values)


class Regressor(nn.Module):
    """Images (0 to 255) to outputs, which `heads.Statistics` turns into theta: 105 of them in the paper.

    Note: the last layer starts at zero, so an untrained network answers the statistics' mean. It is float32's whatever
    the trunk computes in, as are all variables.
    """

    width: int
    rotations: str = "axis_angle"
    iterations: int = 0
    compute_dtype: str = "float32"

    @nn.compact
    def __call__(self, image: Float[Array, "n s s 3"], train: bool) -> Float[Array, "n theta"]:
        normalised = (image - jnp.array(_IMAGENET_MEAN)[None, None, None]) / jnp.array(_IMAGENET_SD)[None, None, None]
        features = ResNet50(self.width, name="trunk")(normalised.astype(self.compute_dtype), train)
        return heads.layers(self.rotations, self.iterations, self.width, name="theta")(features)


class Learned(Protocol):
    """What prediction needs; `training.TrainState` has it."""

    @property
    def variables(self) -> Any: ...

    @property
    def statistics(self) -> Statistics: ...


def initial_variables(config: RegressorConfig, key: Array) -> Any:
    """Draw the network's weights: {'params', 'batch_stats'}; the trunk's come from `config.pretrained` where it is set.

    Raises:
      errors.InputError: the file of pretrained weights cannot be used for a network of `config.width`.
    """
    drawn = layers.draw_kernels(jax.jit(_initialise(config))(key), key)
    if not config.pretrained:
        return drawn
    trunk = load_trunk(config.pretrained, _trunk(drawn))
    return {collection: leaves | {"trunk": trunk[collection]} for collection, leaves in drawn.items()}


def check(config: RegressorConfig) -> None:
    """Refuse what `validate` does, and pretrained weights that cannot be used, before anything is begun.

    Raises:
      errors.InputError: one line, of the field or the file.
    """
    validate(config)
    if config.pretrained:
        load_trunk(config.pretrained, _trunk(variable_shapes(config)))


def validate(config: RegressorConfig) -> None:
    """Refuse values that no training can start from.

    Raises:
      errors.InputError: names the field and the value.
    """
    heads.check(config.rotations, config.iterations)
    if not 0 <= config.held_out_share < 1:
        raise InputError(f"config.regressor.held_out_share is {config.held_out_share}: from 0 to below 1")
    if config.patience < 0:
        raise InputError(f"config.regressor.patience is {config.patience}: at least 0")
    if config.patience and not config.held_out_share:
        raise InputError(f"config.regressor.patience is {config.patience}: needs a held_out_share above 0")
    if config.compute_dtype not in COMPUTE_DTYPES:
        raise InputError(
            f"config.regressor.compute_dtype is '{config.compute_dtype}': one of {', '.join(COMPUTE_DTYPES)}"
        )


COMPUTE_DTYPES = ("float32", "bfloat16")


def variable_shapes(config: RegressorConfig) -> Any:
    """Return the network's variables as `jax.ShapeDtypeStruct`: what a checkpoint of it holds."""
    return jax.eval_shape(_initialise(config), jax.random.key(0))


def _initialise(config: RegressorConfig) -> Any:
    image = jnp.zeros((1, config.image_size, config.image_size, 3))
    return functools.partial(_network(config).init, train=False, image=image)


def _network(config: RegressorConfig) -> Regressor:
    return Regressor(config.width, config.rotations, config.iterations, config.compute_dtype)


def _trunk(variables: Any) -> Any:
    return {collection: leaves["trunk"] for collection, leaves in variables.items()}


def apply_training(
    config: RegressorConfig, variables: Any, statistics: Statistics, image: Float[Array, "n s s 3"]
) -> tuple[Float[Array, "n theta"], Any]:
    """Return theta, normalised by the batch, and the new running statistics ('batch_stats')."""
    output, updated = _network(config).apply(variables, image, train=True, mutable=["batch_stats"])
    return statistics.mean[None] + statistics.sd[None] * output, updated["batch_stats"]


def apply_evaluation(
    config: RegressorConfig, variables: Any, statistics: Statistics, image: Float[Array, "n s s 3"]
) -> Float[Array, "n theta"]:
    """Return theta, normalised by the running statistics."""
    output = _network(config).apply(variables, image, train=False)
    return statistics.mean[None] + statistics.sd[None] * output


def predict(
    config: RegressorConfig,
    learned: Learned,
    images: UInt8[np.ndarray, "people s s 3"] | Sequence,
    batch: int = 64,
) -> BodyParameters:
    """Return the bodies of square crops, as finished as registrations are (host arrays).

    Args:
      config: the one it was trained with.
      learned: a training state, or anything with its variables and statistics.
      images: an array, or a sequence that decodes what is indexed by an array of numbers.
      batch: images at once; the last, smaller one is filled up, so that one program serves all.

    Raises:
      ValueError: no image, or images of another size than the network was built for.
    """
    _check_size(config, images)
    variables, statistics = jax.device_put((learned.variables, learned.statistics))
    predict_batch = _predict_batch(Frozen(config))
    parts = []
    for start in range(0, len(images), batch):
        rows = np.minimum(np.arange(start, start + batch), len(images) - 1)
        parts.append(predict_batch(variables, statistics, np.asarray(images[rows])))
    bodies = jax.device_get(parts)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(images)], *bodies)


def predictor(config: RegressorConfig) -> Callable[[Learned, Array], BodyParameters]:
    """Return a function that predicts as `predict` does one batch of pictures on the device, and does not wait.

    One compilation a size of the batch.
    """
    predict_batch = _predict_batch(Frozen(config))
    return lambda learned, image: predict_batch(learned.variables, learned.statistics, image)


def _check_size(config: RegressorConfig, images: UInt8[np.ndarray, "people s s 3"] | Sequence) -> None:
    if len(images) == 0:
        raise ValueError("there is no image")
    expected = (config.image_size, config.image_size, 3)
    if np.shape(images[0]) != expected:
        raise ValueError(f"images are {np.shape(images[0])}, the configuration's image_size asks for {expected}")


@functools.cache
def _predict_batch(frozen: Frozen):
    @jax.jit
    def predict_batch(variables, statistics, image):
        theta = apply_evaluation(frozen.config, variables, statistics, image.astype(jnp.float32))
        return statistics.finish(theta)

    return predict_batch
