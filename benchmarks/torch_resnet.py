"""ResNet50 in PyTorch, written from the paper (He et al. 2016, version 1.5) with torchvision's names."""

import torch
from torch import nn


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 to four times the width; plus the input."""

    def __init__(self, channels: int, width: int, stride: int, project: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        projection = (nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
        self.downsample = nn.Sequential(*projection) if project else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps after the block."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """The trunk, up to the mean over the last map."""

    def __init__(self, width: int, stages: tuple[int, ...] = (3, 4, 6, 3)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = width
        for stage, blocks in enumerate(stages):
            inner, stage_blocks = width * 2**stage, []
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                stage_blocks.append(Bottleneck(channels, inner, stride, not block))
                channels = 4 * inner
            setattr(self, f"layer{stage + 1}", nn.Sequential(*stage_blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of images."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x.mean(dim=(2, 3))
