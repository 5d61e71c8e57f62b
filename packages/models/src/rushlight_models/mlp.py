"""MLP: linear layers with ReLU between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rushlight_nn import Dropout, Flatten, Linear, Module, ReLU, Sequential
from rushlight_tensor import Tensor


class MLP(Module):
    """Linear layers of the given sizes, ReLU (and dropout) after all but the last.

    Args:
        in_features: Features of a sample, all its dimensions together.
        hidden: Sizes of the hidden layers.
        out_features: Size of the output.
        dropout: Dropout probability after each hidden layer.
    Shapes:
        input (B, …), output (B, out_features)
    """

    def __init__(
        self, in_features: int = 64, hidden: Sequence[int] = (128,), out_features: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__()
        layers: list[Module] = [Flatten()]
        sizes = [in_features, *hidden]
        for before, after in pairwise(sizes):
            layers += [Linear(before, after), ReLU()]
            if dropout > 0:
                layers.append(Dropout(dropout))
        layers.append(Linear(sizes[-1], out_features))
        self.layers = Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out
