"""CNN: a small convolutional network for the 8×8 digits."""

from __future__ import annotations

from rushlight_nn import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential
from rushlight_tensor import Tensor


class CNN(Module):
    """Two stages of convolution, batch norm, ReLU and pooling, then two linear layers.

    Args:
        in_channels: Channels of the images.
        image_size: Their height and width, a multiple of 4.
        channels: Channels of the first stage; the second has twice as many.
        hidden: Features of the hidden linear layer.
        classes: Size of the output.
        dropout: Dropout probability before the last layer.
    Shapes:
        input (B, in_channels, H, W) with H = W = image_size, or (B, H, W) for one channel; output (B, classes)
    """

    def __init__(
        self, in_channels: int = 1, image_size: int = 8, channels: int = 32, hidden: int = 128, classes: int = 10,
        dropout: float = 0.25,
    ) -> None:  # fmt: skip
        super().__init__()
        if image_size % 4:
            raise ValueError(f"CNN: image_size must be a multiple of 4, got {image_size}; pad the images")
        self.features = Sequential(
            Conv2d(in_channels, channels, 3, padding=1, bias=False),
            BatchNorm2d(channels),
            ReLU(),
            MaxPool2d(2),
            Conv2d(channels, 2 * channels, 3, padding=1, bias=False),
            BatchNorm2d(2 * channels),
            ReLU(),
            MaxPool2d(2),
        )
        self.classifier = Sequential(
            Flatten(),
            Linear(2 * channels * (image_size // 4) ** 2, hidden),
            ReLU(),
            Dropout(dropout),
            Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3:
            x = x.unsqueeze(1)  # (B, H, W) -> (B, 1, H, W)
        out: Tensor = self.classifier(self.features(x))
        return out
