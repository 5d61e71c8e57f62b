"""Recurrent layers: RNN, LSTM and GRU, stacked, bidirectional, on padded or packed batches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

from rushlight_nn import functional as F
from rushlight_nn import init, recurrent
from rushlight_nn.modules.module import Module
from rushlight_nn.parameter import Parameter
from rushlight_nn.utils.rnn import PackedSequence
from rushlight_tensor import Tensor
from rushlight_tensor.ops.create import empty, zeros
from rushlight_tensor.ops.shape.join import cat, stack

_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
_STEPS: dict[str, Any] = {
    "RNN_TANH": recurrent.tanh_step,
    "RNN_RELU": recurrent.relu_step,
    "LSTM": recurrent.lstm_step,
    "GRU": recurrent.gru_step,
}


class RNNBase(Module):
    """What the recurrent layers share: parameters, checks, and the loop over layers and directions.

    Args:
        mode: "RNN_TANH", "RNN_RELU", "LSTM" or "GRU".
        input_size: Features of the input.
        hidden_size: Features of the state.
        num_layers: Layers on top of each other.
        bias: Whether there are biases.
        batch_first: Input and output are (B, T, F) instead of (T, B, F); states are not affected.
        dropout: Dropout probability between layers.
        bidirectional: A second set of weights runs backward in time; features are concatenated.
        proj_size: Features to which an LSTM's h is projected; 0 for none.
    """

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_options(input_size, hidden_size, num_layers, dropout, proj_size)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        gates = _GATES[mode] * hidden_size
        output_size = proj_size or hidden_size
        for layer, suffix in self._layers():
            features = input_size if layer == 0 else output_size * (2 if bidirectional else 1)
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, features), "weight_hh": (gates, output_size)}
            if bias:
                shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
            if proj_size:
                shapes["weight_hr"] = (proj_size, hidden_size)
            for name, shape in shapes.items():
                setattr(self, name + suffix, Parameter(empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _layers(self) -> Iterator[tuple[int, str]]:
        """Each layer and direction with the suffix of its parameters' names."""
        for layer in range(self.num_layers):
            yield layer, f"_l{layer}"
            if self.bidirectional:
                yield layer, f"_l{layer}_reverse"

    def reset_parameters(self) -> None:
        """Draw all from U(-k, k), k = 1 / √hidden_size."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: PyTorch's cuDNN needs one block of weights, the kernels here do not."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return [
            [self._parameters[n + suffix] for n in names if n + suffix in self._parameters]  # type: ignore[misc]
            for _, suffix in self._layers()
        ]

    def _direction(
        self, suffix: str, inputs: Tensor, sizes: list[int] | None, state: recurrent.State
    ) -> tuple[Tensor, recurrent.State]:
        """One layer in one direction; `inputs` is (T, B, F), or packed (N, F) with the batch `sizes`."""
        reverse = suffix.endswith("_reverse")
        bias_ih, bias_hh = (getattr(self, n + suffix) if self.bias else None for n in ("bias_ih", "bias_hh"))
        in_one_op = sizes is None and not self.proj_size
        if self.mode == "LSTM" and in_one_op:
            bias = None if bias_ih is None or bias_hh is None else bias_ih + bias_hh
            projected = F.linear(inputs, getattr(self, "weight_ih" + suffix), bias)
            return recurrent.lstm_layer(projected, state, getattr(self, "weight_hh" + suffix), reverse)
        projected = F.linear(inputs, getattr(self, "weight_ih" + suffix), bias_ih)
        if self.mode == "GRU" and in_one_op:
            return recurrent.gru_layer(projected, state, getattr(self, "weight_hh" + suffix), bias_hh, reverse)
        steps = projected.unbind(0) if sizes is None else projected.split(sizes, 0)
        extra = (getattr(self, "weight_hr" + suffix),) if self.proj_size else ()
        step = _STEPS[self.mode](getattr(self, "weight_hh" + suffix), bias_hh, *extra)
        run = recurrent.run_backward if reverse else recurrent.run_forward
        outputs, last = run(step, steps, state)
        return (stack(outputs, 0) if sizes is None else cat(outputs, 0)), last

    def _run(self, x: Tensor, sizes: list[int] | None, state: recurrent.State) -> tuple[Tensor, recurrent.State]:
        """All layers and directions; `state` holds (layers × directions, B, H) each."""
        last = []
        directions = 2 if self.bidirectional else 1
        suffixes = [suffix for _, suffix in self._layers()]
        for layer in range(self.num_layers):
            outputs = []
            for i in range(layer * directions, (layer + 1) * directions):
                y, end = self._direction(suffixes[i], x, sizes, tuple(s[i] for s in state))
                outputs.append(y)
                last.append(end)
            x = outputs[0] if directions == 1 else cat(outputs, -1)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(stack(parts, 0) for parts in zip(*last, strict=True))

    def _zero_state(self, batch: int, like: Tensor) -> recurrent.State:
        n = self.num_layers * (2 if self.bidirectional else 1)
        sizes = [self.proj_size or self.hidden_size] + ([self.hidden_size] if self.mode == "LSTM" else [])
        return tuple(zeros(n, batch, size, dtype=like.dtype, device=like.device) for size in sizes)

    def _check_state(self, state: recurrent.State, batch: int) -> None:
        n = self.num_layers * (2 if self.bidirectional else 1)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        for i, s in enumerate(state):
            expected = (n, batch, sizes[i])
            if tuple(s.shape) != expected:
                name = f"hidden[{i}]" if self.mode == "LSTM" else "hidden"
                raise RuntimeError(f"Expected {name} size {expected}, got {list(s.shape)}")

    def _check_input(self, x: Tensor, dims: tuple[int, ...]) -> None:
        if x.ndim not in dims:
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got {x.ndim}D instead")
        weight = next(self.parameters())
        if x.dtype is not weight.dtype:
            raise ValueError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({weight.dtype}). Convert input: "
                f"input.to({weight.dtype}), or convert model: model.to({x.dtype})"
            )
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )

    def _check_state_dims(self, state: recurrent.State, dims: int) -> None:
        if all(s.ndim == dims for s in state):
            return
        kind = "unbatched" if dims == 2 else "batched"
        got = ", ".join(f"{s.ndim}-D" for s in state)
        names = "hx and cx" if len(state) == 2 else "hx"
        found = f"({got}) tensors" if len(state) == 2 else f"{got} tensor"
        raise RuntimeError(f"For {kind} {dims}-D input, {names} should also be {dims}-D but got {found}")

    def _forward_packed(self, packed: PackedSequence, state: recurrent.State | None) -> tuple[Any, recurrent.State]:
        self._check_input(packed.data, (2,))
        sizes = packed.batch_sizes.tolist()
        if state is None:
            state = self._zero_state(sizes[0], packed.data)
        else:
            self._check_state(state, sizes[0])
            if packed.sorted_indices is not None:
                state = tuple(s.index_select(1, packed.sorted_indices) for s in state)
        data, last = self._run(packed.data, sizes, state)
        if packed.unsorted_indices is not None:
            last = tuple(s.index_select(1, packed.unsorted_indices) for s in last)
        return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices), last

    def _forward(self, input: Any, state: Any) -> tuple[Any, recurrent.State]:
        """Any input with its state, a tuple or None, to the output and the last state."""
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, state)
        self._check_input(input, (2, 3))
        state = None if state is None else tuple(state)
        batched = input.ndim == 3
        if state is not None:
            self._check_state_dims(state, input.ndim)
        if not batched:
            input = input.unsqueeze(1)
            state = None if state is None else tuple(s.unsqueeze(1) for s in state)
        elif self.batch_first:
            input = input.transpose(0, 1)
        steps, batch = input.shape[:2]
        if steps == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if state is None:
            state = self._zero_state(batch, input)
        else:
            self._check_state(state, batch)
        output, last = self._run(input, None, state)
        if not batched:
            return output.squeeze(1), tuple(s.squeeze(1) for s in last)
        return (output.transpose(0, 1) if self.batch_first else output), last

    def forward(self, input: Any, hx: Any = None) -> Any:
        """`(output, h_n)`.

        Args:
            input: (T, B, input_size), (B, T, input_size) if `batch_first`, (T, input_size), or a `PackedSequence`.
            hx: The initial state (layers × directions, B, hidden_size); zeros if omitted.
        Returns:
            The h of the last layer at every step, in the form of the input, and the last state of every layer.
        """
        output, (last,) = self._forward(input, None if hx is None else (hx,))
        return output, last

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults: dict[str, Any] = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False,
        }  # fmt: skip
        for name, default in defaults.items():
            value = getattr(self, name)
            if value != default:
                text += f", {name}={value}"
        return text


def _check_options(input_size: Any, hidden_size: Any, num_layers: int, dropout: Any, proj_size: int) -> None:
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
        raise ValueError("dropout should be a number in range [0, 1] representing the probability of an element being "
                         "zeroed")  # fmt: skip
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers "
            f"greater than 1, but got dropout={dropout} and num_layers={num_layers}",
            stacklevel=4,
        )
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(size, int):
            raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
    if input_size <= 0:
        raise ValueError("input_size must be greater than zero")
    if hidden_size <= 0:
        raise ValueError("hidden_size must be greater than zero")
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")


class RNN(RNNBase):
    """h' = tanh(W x + b + U h + c), or relu with `nonlinearity="relu"`; the other arguments are `RNNBase`'s."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(
            f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, 0, device, dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory; arguments are `RNNBase`'s.  Source: Hochreiter and Schmidhuber 1997."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device, dtype,
        )  # fmt: skip

    def forward(self, input: Any, hx: Any = None) -> Any:
        """`(output, (h_n, c_n))`; as `RNNBase.forward`, with a state of two tensors."""
        return self._forward(input, hx)


class GRU(RNNBase):
    """Gated recurrent unit; arguments are `RNNBase`'s.  Source: Cho et al. 2014."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )
