"""ResNet-18 in its CIFAR form: a 3×3 stem, four stages of two basic blocks.  Source: He et al. 2015."""

from __future__ import annotations

from rushlight_nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Identity, Linear, Module, ReLU, Sequential
from rushlight_tensor import Tensor


class BasicBlock(Module):
    """Two 3×3 convolutions around which the input is added, projected where shapes differ."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(out_channels)
        self.relu = ReLU()
        self.shortcut: Module = Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = Sequential(
                Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + self.shortcut(x))
        return out


class ResNet18(Module):
    """Stages of 64, 128, 256 and 512 channels (times `width` / 64), the last three at half the resolution each.

    Args:
        classes: Size of the output.
        in_channels: Channels of the images.
        width: Channels of the first stage.
    Shapes:
        input (B, in_channels, H, W), output (B, classes)
    """

    def __init__(self, classes: int = 10, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.stem = Sequential(Conv2d(in_channels, width, 3, padding=1, bias=False), BatchNorm2d(width), ReLU())
        stages: list[Module] = []
        before = width
        for i in range(4):
            after = width * 2**i
            stages.append(Sequential(BasicBlock(before, after, 1 if i == 0 else 2), BasicBlock(after, after)))
            before = after
        self.stages = Sequential(*stages)
        self.head = Sequential(AdaptiveAvgPool2d(1), Flatten(), Linear(before, classes))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.stages(self.stem(x)))
        return out
