"""ResNet50 in PyTorch, ours and plain Linen's in turns, after a check that they compute the same."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import regressor
from benchmarks.regressor import Case, Learner, Work
from benchmarks.torch_resnet import ResNet50
from dal_jax.regressor import resnet

_AGREEMENT = 1e-3


def rows(case: Case, threads: list[int], seconds: float) -> list[dict[str, object]]:
    """Return how far ours and PyTorch's are apart, then a row for each program and pass.

    Raises:
      AssertionError: they are too far apart.
    """
    ours, linen = (Learner(program, case) for program in ("dal_jax", "linen"))
    rival = Rival(ours)
    found = [{"what": "agreement", **agreement(ours, rival), "allowed": _AGREEMENT}]
    works: dict[str, Work] = {
        "dal_jax training": ours.train,
        "dal_jax inference": ours.answer,
        "linen training": linen.train,
        "linen inference": linen.answer,
    }
    for count in threads:
        works[f"torch, threads: {count} training"] = rival.with_threads(count, rival.train)
        works[f"torch, threads: {count} inference"] = rival.with_threads(count, rival.answer)
    for work in works.values():
        work()
    return found + [{"what": "regressor", **row} for row in regressor.measured_rows(case, works, seconds, {})]


def agreement(ours: Learner, rival: "Rival") -> dict[str, float]:
    """Return how far apart the answers are before and after a step that both take, and the loss of that step."""
    found = {"answers": _apart(rival.answer().numpy(), ours.answer())}
    found["loss"] = _apart(rival.train(), ours.train())
    found["running_mean"] = _apart(
        rival.network.trunk.layer2[0].bn1.running_mean.numpy(),
        ours.variables["batch_stats"]["trunk"]["layer2_0"]["bn1"]["mean"],
    )
    for name, apart in found.items():
        assert apart <= _AGREEMENT, f"{name}: ours and PyTorch's differ by {apart}, {_AGREEMENT} is allowed"
    return found


class Network(nn.Module):
    """The trunk and one linear layer."""

    def __init__(self, width: int, stages: tuple[int, ...], outputs: int):
        super().__init__()
        self.trunk, self.theta = ResNet50(width, stages), nn.Linear(32 * width, outputs)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the outputs of images."""
        return self.theta(self.trunk(image))


class Rival:
    """PyTorch's network in training, with the weights and the images of ours."""

    def __init__(self, ours: Learner):
        trunk = ours.network.trunk
        self.network = Network(trunk.width, trunk.blocks, ours.wanted.shape[1])
        self.network.load_state_dict(_state_dict(ours.variables), strict=False)  # without its counts of batches
        self.network = self.network.to(memory_format=torch.channels_last)
        image = torch.from_numpy(ours.image).permute(0, 3, 1, 2)
        self._image = image.contiguous(memory_format=torch.channels_last)
        self._wanted = torch.from_numpy(ours.wanted)
        self._adam = torch.optim.Adam(self.network.parameters(), lr=regressor.LEARNING_RATE, fused=True)

    def train(self) -> float:
        """Take a step; return the loss before it."""
        self.network.train()
        self._adam.zero_grad(set_to_none=True)
        loss = functional.mse_loss(self.network(self._image), self._wanted)
        loss.backward()
        self._adam.step()
        return loss.item()

    def answer(self) -> torch.Tensor:
        """Answer by the running statistics."""
        self.network.eval()
        with torch.inference_mode():
            return self.network(self._image)

    @staticmethod
    def with_threads(count: int, work: Work) -> Work:
        """Return a work done by so many threads."""

        def run() -> object:
            torch.set_num_threads(count)
            return work()

        return run


def _state_dict(variables: dict) -> dict[str, torch.Tensor]:
    """Return our variables under PyTorch's names, kernels as it has them."""
    trunk = {collection: leaves["trunk"] for collection, leaves in variables.items()}
    found = {}
    for name, place in resnet.names(resnet.torchvision):
        if place[1] not in trunk["params"]:  # a block of a deeper network
            continue
        leaf = trunk
        for part in place:
            leaf = leaf[part]
        values = np.array(leaf)
        found[f"trunk.{name}"] = torch.from_numpy(values.transpose(3, 2, 0, 1).copy() if values.ndim == 4 else values)
    theta = variables["params"]["theta"]
    found["theta.weight"] = torch.from_numpy(np.array(theta["kernel"]).T.copy())
    found["theta.bias"] = torch.from_numpy(np.array(theta["bias"]))
    return found


def _apart(theirs: np.ndarray | float, ours: np.ndarray | float) -> float:
    return float(np.abs(theirs - np.asarray(ours)).max() / np.abs(ours).max())
