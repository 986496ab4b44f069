"""The regressor of section 5 (the paper's "ConvNet"): a ResNet50 and a head that gives theta; how it predicts.

The paper's head is one linear layer that gives theta with axis-angles. Both can be changed, apart or together: six
numbers a rotation (`theta`; Zhou et al. 2019) and iterated regression (Kanazawa et al. 2018, "HMR").
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from dal_jax.body.kinematics import BodyParameters
from dal_jax.regressor import batches, layers, theta
from dal_jax.regressor.augmentation import AugmentationConfig, mild
from dal_jax.regressor.batches import Images
from dal_jax.regressor.losses import LossWeights, RegressLoss
from dal_jax.regressor.resnet import BLOCKS, DEPTHS, ResNet50, load_trunk
from dal_jax.regressor.theta import Rotations, ThetaCodec
from dal_jax.runtime import mesh as mesh_lib, struct
from dal_jax.runtime.configs import cached_by_config, check_choices, check_range
from dal_jax.runtime.errors import InputError

_IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of 0..255, the normalisation that pretrained weights expect
_IMAGENET_SD = (58.395, 57.12, 57.375)


@dataclasses.dataclass
class RegressorConfig:
    """How the regressor is built and trained; the defaults are the paper's where it says anything."""

    preset: str = "paper"  # which whole configuration this is
    width: int = 64  # channels of the first convolution; 64 is ResNet50 as published
    depth: int = 50  # layers of the ResNet: 50 as published, 26 or 14
    image_size: int = 224  # px; the paper does not say, 224 is what ImageNet weights were trained on
    pretrained: str = ""  # .safetensors of an ImageNet ResNet50 (torchvision, timm, Hugging Face) to start from
    rotations: Rotations = "axis_angle"  # of theta: axis_angle (paper; nine numbers for R), 6d (six for each)
    scales: Literal["isotropic", "anisotropic"] = "isotropic"  # of segments (paper: one each); of registration, too
    iterations: int = 0  # of HMR's regression (it has 3); 0: one linear layer, as in the paper
    batch: int = 30  # images a step
    epochs: int = 30  # in each round
    learning_rate: float = 1e-4  # of Adam; the highest of the schedule
    warmup_share: float = 0.0  # share of all rounds' steps in which the rate rises from 0
    last_rate_share: float = 1.0  # a cosine takes the rate down to this share of it; 1 = constant
    weight_decay: float = 0.0  # of AdamW, decoupled; 0 = Adam
    held_out_share: float = 0.0  # of the training people, held out; their 2D losses choose a round's best epoch
    patience: int = 0  # epochs without a better one after which a round's training stops; 0: all are trained
    average_decay: float = 0.0  # of the running mean of the weights that predicts; 0 = the last weights
    compute_dtype: Literal["float32", "bfloat16"] = "float32"  # of the trunk's products; bfloat16: for GPUs
    standardise: bool = False  # outputs in units of the first round's registrations: theta = mean + sd * output
    regress_in_sd: bool = False  # eq. 6 in those units too; else in radians, log scales and crop units, as they come
    regress_loss: RegressLoss = "smooth_l1"  # of eq. 6 (paper: smooth_l1; it compares l2)
    weights: LossWeights = dataclasses.field(default_factory=LossWeights)  # eq. 5
    augmentation: AugmentationConfig = dataclasses.field(default_factory=AugmentationConfig)  # none in the paper


def paper() -> RegressorConfig:
    """The paper's numbers: GPU days on 100,000 images."""
    return RegressorConfig()


def demo() -> RegressorConfig:
    """A quarter of the width on 64 px: about 400 training images a second on two CPU cores.

    Pictures are mirrored and not augmented further, which takes more epochs than these (docs/results.md, "What the demo
    is").
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
        average_decay=0.995,
        standardise=True,
        weights=LossWeights(regress=1.0, dense=1.0, keypoint=1.0, joint=10.0),
        augmentation=AugmentationConfig(flip_share=0.5),
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
    name = "config.regressor"
    check_choices(config, name)
    check_range(config, name, ("width", "image_size", "batch", "epochs"), 1)
    check_range(config, name, ("learning_rate", "weight_decay", "iterations", "patience"), 0)
    check_range(config, name, ("warmup_share", "last_rate_share"), 0, most=1)
    check_range(config, name, ("held_out_share", "average_decay"), 0, below=1)
    if config.depth not in DEPTHS:
        raise InputError(f"{name}.depth is {config.depth}: one of {', '.join(map(str, DEPTHS))}")
    if config.pretrained and config.depth != max(DEPTHS):
        raise InputError(f"{name}.depth is {config.depth}: pretrained weights are a ResNet50's")
    if config.patience and not config.held_out_share:
        raise InputError(f"{name}.patience is {config.patience}: needs a held_out_share above 0")


class Regressor(nn.Module):
    """Images (0 to 255) to outputs, of which `ThetaCodec.from_output` makes theta: 105 of them in the paper.

    Note: the last layer starts at zero, so an untrained network answers the codec's mean. It is float32's whatever the
    trunk computes in, as are all variables.
    """

    width: int
    size: int = theta.SIZES["axis_angle"]
    iterations: int = 0
    compute_dtype: str = "float32"
    blocks: tuple[int, ...] = BLOCKS

    @nn.compact
    def __call__(self, image: Float[Array, "n s s 3"], train: bool) -> Float[Array, "n theta"]:
        """Return the outputs of images."""
        normalised = (image - jnp.array(_IMAGENET_MEAN)[None, None, None]) / jnp.array(_IMAGENET_SD)[None, None, None]
        features = ResNet50(self.width, self.blocks, name="trunk")(normalised.astype(self.compute_dtype), train)
        return head(self.size, self.iterations, self.width, name="theta")(features)


def head(size: int, iterations: int, width: int, name: str) -> nn.Module:
    """Return the layers from features to outputs; an output is zero at first, for any features.

    Args:
      size: of theta.
      iterations: 0 is one linear layer (paper).
      width: channels of the network's first convolution.
      name: of the layers' variables.
    """
    if iterations == 0:
        return nn.Dense(size, kernel_init=nn.initializers.zeros, name=name)
    return Iterated(size, iterations, _HIDDEN * width, name=name)


class Iterated(nn.Module):
    """HMR's regression: the output, at first zero, is changed by what the same layers make of features and output.

    Note: HMR drops half of the hidden units in training; here nothing is dropped. As in HMR, only the last iteration's
    output is compared with anything.
    """

    size: int
    iterations: int
    hidden: int

    @nn.compact
    def __call__(self, features: Float[Array, "n features"]) -> Float[Array, "n size"]:
        """Return the outputs of features."""
        first, second = nn.Dense(self.hidden, name="hidden1"), nn.Dense(self.hidden, name="hidden2")
        change = nn.Dense(self.size, kernel_init=nn.initializers.zeros, name="change")
        output = jnp.zeros((len(features), self.size), features.dtype)
        for _ in range(self.iterations):
            hidden = nn.relu(first(jnp.concatenate([features, output], axis=-1)))
            output = output + change(nn.relu(second(hidden)))
        return output


_HIDDEN = 16  # channels of a hidden layer, of the first convolution's: HMR's 1024 at ResNet50's 64


def initial_variables(config: RegressorConfig, key: PRNGKeyArray) -> Any:
    """Draw the network's weights: {'params', 'batch_stats'}; the trunk's come from `config.pretrained` where it is set.

    Raises:
      errors.InputError: the file of pretrained weights cannot be used for a network of `config.width`.
    """
    drawn = layers.draw_kernels(jax.jit(_initialise(config))(key), key)
    if not config.pretrained:
        return drawn
    trunk = load_trunk(config.pretrained, _trunk(drawn))
    return {collection: leaves | {"trunk": trunk[collection]} for collection, leaves in drawn.items()}


def variable_shapes(config: RegressorConfig) -> Any:
    """Return the network's variables as `jax.ShapeDtypeStruct`: what a checkpoint of it holds."""
    return jax.eval_shape(_initialise(config), jax.random.key(0))


def _initialise(config: RegressorConfig) -> Callable[[PRNGKeyArray], Any]:
    image = jnp.zeros((1, config.image_size, config.image_size, 3))
    return functools.partial(_network(config).init, train=False, image=image)


def _network(config: RegressorConfig) -> Regressor:
    size = theta.size(config.rotations, config.scales)
    return Regressor(config.width, size, config.iterations, config.compute_dtype, DEPTHS[config.depth])


def _trunk(variables: Any) -> Any:
    return {collection: leaves["trunk"] for collection, leaves in variables.items()}


def apply_training(
    config: RegressorConfig, variables: Any, image: Float[Array, "n s s 3"]
) -> tuple[Float[Array, "n outputs"], Any]:
    """Return the outputs, normalised by the batch, and the new running statistics ('batch_stats')."""
    output, updated = _network(config).apply(variables, image, train=True, mutable=["batch_stats"])
    return output, updated["batch_stats"]


def apply_evaluation(
    config: RegressorConfig, variables: Any, image: Float[Array, "n s s 3"]
) -> Float[Array, "n outputs"]:
    """Return the outputs, normalised by the running statistics."""
    output: Any = _network(config).apply(variables, image, train=False)
    return output


@struct.dataclass
class Learned:
    """What prediction needs.

    variables: of the network, {'params', 'batch_stats'}. codec: of theta.
    """

    variables: Any
    codec: ThetaCodec


def predict(config: RegressorConfig, learned: Learned, images: Images, batch: int = 64) -> BodyParameters:
    """Return the bodies of square crops as registration returns them (host arrays).

    Args:
      config: the one it was trained with.
      learned: what training has made.
      images: of `config.image_size` px.
      batch: images at once; the last, smaller one is filled up, so that one program serves all.

    Raises:
      ValueError: no image, or images of another size than the network was built for.
    """
    _check_size(config, images)
    mesh = mesh_lib.of_networks()
    learned = mesh_lib.everywhere(learned, mesh)
    predict_batch, count = predictor(config), len(images)
    order = np.minimum(np.arange(-(-count // batch) * batch), count - 1).reshape(-1, batch)

    def parts() -> Iterator[BodyParameters]:
        on_the_way: collections.deque[BodyParameters] = collections.deque()
        for number, ((pictures,), _) in enumerate(batches.feed(order, images, (), mesh)):
            on_the_way.append(predict_batch(learned, pictures))
            if number >= _BATCHES_AHEAD:
                yield mesh_lib.fetch(on_the_way.popleft())
        *others, last = map(mesh_lib.fetch, on_the_way)
        yield from others
        yield jax.tree.map(lambda leaf: leaf[: batch - (order.size - count)], last)

    return mesh_lib.end_to_end(parts(), count)


_BATCHES_AHEAD = 2  # on their way while the host reads the next: bounds memory, hides the host


@cached_by_config
def predictor(
    config: RegressorConfig,
) -> Callable[[Learned, UInt8[Array | np.ndarray, "n s s 3"]], BodyParameters]:
    """Return a jitted function from a batch of pictures to bodies on the device; it does not wait for them."""

    @jax.jit
    def predict_batch(learned: Learned, image: UInt8[Array, "n s s 3"]) -> BodyParameters:
        output = apply_evaluation(config, learned.variables, image.astype(jnp.float32))
        return learned.codec.to_parameters(learned.codec.from_output(output))

    return predict_batch


def _check_size(config: RegressorConfig, images: Images) -> None:
    if len(images) == 0:
        raise ValueError("there is no image")
    expected = (config.image_size, config.image_size, 3)
    if np.shape(images[0]) != expected:
        raise ValueError(f"images are {np.shape(images[0])}, the configuration's image_size asks for {expected}")
