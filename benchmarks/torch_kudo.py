"""Kudo et al. 2018's lifter in PyTorch, written from the paper: it shares no code with dal_jax.

Two networks of one form, 34 -> width -> width -> width -> outputs, h3 = act(W3 h2 + h1), leaky ReLU 0.2: the generator
answers 17 depths, the discriminator one logit. A step lifts a batch, rotates it about the vertical, and both learn from
the same fakes:

    G: mean softplus(-D(fake)) + mean relu(-sin)      sin: from neck to shoulders, seen from above
    D: mean softplus(-D(real)) + mean softplus(D(fake))

Each learns only inside its gate: G while D's accuracy is at least 0.1, D while it is at most 0.9. Adam 2e-4, beta1 0.5,
with 1e-5 times the weights added to its gradient. Written to be fast: D sees annotated poses and fakes in one product,
nothing is differentiated that no network uses, and Adam is PyTorch's fused one.
"""

import torch
from torch import nn
from torch.nn import functional

JOINTS = 17
LAYERS = ("first", "second", "third", "last")
_THORAX, _NOSE, _LEFT_SHOULDER, _RIGHT_SHOULDER = 8, 9, 11, 14


class Perceptron(nn.Module):
    """Three hidden layers with a skip over two of them."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        sizes = ((2 * JOINTS, width), (width, width), (width, width), (width, outputs))
        for name, (before, after) in zip(LAYERS, sizes, strict=True):
            setattr(self, name, nn.Linear(before, after))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (n, 34) features to (n, outputs)."""
        hidden1 = functional.leaky_relu(self.first(features), 0.2)
        hidden2 = functional.leaky_relu(self.second(hidden1), 0.2)
        hidden3 = functional.leaky_relu(self.third(hidden2) + hidden1, 0.2)
        return self.last(hidden3)


class Game:
    """Both networks and their optimisers."""

    def __init__(self, width: int, weights: dict[str, dict[str, torch.Tensor]]):
        """weights: of `generator` and `discriminator`, by PyTorch's names of the tensors."""
        self.generator, self.discriminator = Perceptron(width, JOINTS), Perceptron(width, 1)
        self.generator.load_state_dict(weights["generator"])
        self.discriminator.load_state_dict(weights["discriminator"])
        settings = {"lr": 2e-4, "betas": (0.5, 0.999), "weight_decay": 1e-5, "fused": True}
        self.adams = [torch.optim.Adam(net.parameters(), **settings) for net in (self.generator, self.discriminator)]

    def step(self, points: torch.Tensor, angle: torch.Tensor) -> dict[str, torch.Tensor | float]:
        """Take a step on normalised poses, (n, 17, 2), rotated by the angles, (n,); return the losses."""
        depth = self._depth(points)
        fakes = rotate(points, depth, angle)
        realism = functional.softplus(-self.discriminator(fakes.flatten(1))).mean()
        mirror = torch.relu(-facing(points, depth)).mean()
        shown = torch.cat([points, fakes.detach()]).flatten(1)
        real, fake = self.discriminator(shown)[:, 0].chunk(2)
        discriminator_realism = functional.softplus(-real).mean() + functional.softplus(fake).mean()
        accuracy = ((real > 0).float().mean() + (fake <= 0).float().mean()).item() / 2
        learns = (accuracy >= 0.1, accuracy <= 0.9)
        losses, networks = (realism + mirror, discriminator_realism), (self.generator, self.discriminator)
        for learning, loss, network, _ in zip(learns, losses, networks, self.adams, strict=True):
            if learning:
                network.zero_grad(set_to_none=True)
                loss.backward(inputs=list(network.parameters()))
        for learning, adam in zip(learns, self.adams, strict=True):
            if learning:
                adam.step()
        names = ("generator_realism", "mirror_ambiguity", "discriminator_realism")
        values = dict(zip(names, (loss.detach() for loss in (realism, mirror, discriminator_realism)), strict=True))
        return values | {"accuracy": accuracy, "generator_learns": learns[0], "discriminator_learns": learns[1]}

    def lift(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Return depths of whole poses, (n, 17, 2), in their unit, relative to the hip."""
        with torch.no_grad():
            points, scale = normalise(keypoints)
            return self._depth(points) * scale[:, None]

    def _depth(self, points: torch.Tensor) -> torch.Tensor:
        depth = self.generator(points.flatten(1))
        return depth - depth[:, :1]


def normalise(keypoints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Move the hip to the origin and divide by the mean distance of the others to it; return that too."""
    points = keypoints - keypoints[:, :1]
    scale = points[:, 1:].norm(dim=-1).mean(dim=1)
    return points / scale[:, None, None], scale


def rotate(points: torch.Tensor, depth: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Return the image of lifted poses rotated about the vertical."""
    across = points[..., 0] * angle.cos()[:, None] + depth * angle.sin()[:, None]
    return torch.stack([across, points[..., 1]], dim=-1)


def facing(points: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Return the sine of the angle between thorax to nose and left to right shoulder, seen from above."""
    ground = torch.stack([points[..., 0], depth], dim=-1)
    nose = ground[:, _NOSE] - ground[:, _THORAX]
    shoulders = ground[:, _RIGHT_SHOULDER] - ground[:, _LEFT_SHOULDER]
    squared = nose.square().sum(-1) * shoulders.square().sum(-1)
    defined = squared > 1e-12
    length = torch.where(defined, squared, 1.0).sqrt()
    return torch.where(defined, (nose[:, 1] * shoulders[:, 0] - shoulders[:, 1] * nose[:, 0]) / length, 0.0)
