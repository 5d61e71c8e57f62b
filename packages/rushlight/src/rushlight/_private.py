"""Names that are private to PyTorch and yet stand in public programs: what they are here.

Only what is the same thing: a base class that stood for another set of layers would answer `isinstance` wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

from rushlight_nn import init
from rushlight_nn.modules import dropout, norm, pooling
from rushlight_optim.lr_scheduler import LRScheduler


def _ntuple(n: int, name: str = "parse") -> Callable[[Any], tuple[Any, ...]]:
    """What makes a size of each of `n` dimensions out of one size; what is iterable stays as it is."""

    def parse(x: Any) -> tuple[Any, ...]:
        return tuple(x) if isinstance(x, Iterable) else tuple(repeat(x, n))

    parse.__name__ = name
    return parse


_UTILS = "torch.nn.modules.utils"

PRIVATE: dict[str, Any] = {
    "torch.nn.init._calculate_fan_in_and_fan_out": init._calculate_fan_in_and_fan_out,
    "torch.nn.modules.batchnorm._BatchNorm": norm._BatchNorm,
    "torch.nn.modules.batchnorm._NormBase": norm._ChannelNorm,
    "torch.nn.modules.dropout._DropoutNd": dropout._Dropout,
    "torch.nn.modules.instancenorm._InstanceNorm": norm._InstanceNorm,
    "torch.nn.modules.pooling._MaxPoolNd": pooling._MaxPool,
    "torch.optim.lr_scheduler._LRScheduler": LRScheduler,
    f"{_UTILS}._ntuple": _ntuple,
    f"{_UTILS}._single": _ntuple(1, "_single"),
    f"{_UTILS}._pair": _ntuple(2, "_pair"),
    f"{_UTILS}._triple": _ntuple(3, "_triple"),
    f"{_UTILS}._quadruple": _ntuple(4, "_quadruple"),
    **{f"torch.nn.common_types._size_{n}_t": int | tuple[(int,) * n] for n in range(1, 7)},  # type: ignore[misc]
    "torch.nn.common_types._size_any_t": int | tuple[int, ...],
}
