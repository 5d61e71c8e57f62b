"""Optimizer: groups of parameters, their state, and what every algorithm shares around its step.

Note [foreach, fused, capturable, differentiable]
    In PyTorch these choose between implementations.  Here there is one: a step is a single op over all parameters of a
    group, one call into C where there is a compiler, and it can be traced as it is.  `foreach`, `fused` and
    `capturable` are accepted, kept in the groups and change nothing; `differentiable=True` is refused, because a step
    overwrites the parameters.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from rushlight_autograd import enable_grad
from rushlight_tensor import Tensor
from rushlight_tensor.core.type_names import typename
from rushlight_tensor.methods.gradient import RemovableHandle
from rushlight_tensor.ops.create import zeros_like

required: Any = object()
"""Stands for a default that every group has to give."""


def _hooked_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` between the step hooks of its optimizer; without hooks one attribute is read."""

    @functools.wraps(step)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._opt_called = True
        if not self._step_hooked or type(self).step.__wrapped__ is not step:  # hooks belong to the outermost step
            return step(self, *args, **kwargs)
        for hook in list(self._step_pre_hooks.values()):
            changed = hook(self, args, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(f"{type(self).__name__}.step must return None or a tuple of (new_args, "
                                       f"new_kwargs), but got {changed}.")  # fmt: skip
                args, kwargs = changed
        result = step(self, *args, **kwargs)
        for hook in list(self._step_post_hooks.values()):
            hook(self, args, kwargs)
        return result

    return call


class Optimizer:
    """Base class of all optimizers; a subclass gives `_step_group`, or a `step` of its own.

    Args:
        params: Parameters, pairs of name and parameter, or groups: dictionaries with "params" and own options.
        defaults: Options of groups that do not give them.
    Raises:
        TypeError: `params` is a tensor, a set, or holds something else than tensors.
        ValueError: No parameters, a non-leaf, one in two groups, or a required option missing.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._step_hooked = False
        self._opt_called = False
        self._step_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._step_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self._state_dict_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._state_dict_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self._load_state_dict_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._load_state_dict_post_hooks: OrderedDict[int, Any] = OrderedDict()
        if isinstance(params, Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                            f"{typename(params)}")  # fmt: skip
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _hooked_step(cls.__dict__["step"])  # type: ignore[method-assign]

    # --- groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with options of its own, for example when layers are unfrozen."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = dict(param_group)
        params = group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, set):
            raise TypeError("optimizer parameters need to be organized in ordered collections, but the ordering of "
                            "tensors in sets will change between runs. Please use a list instead.")  # fmt: skip
        params = list(params)
        if params and all(isinstance(p, tuple) for p in params):
            group["param_names"] = [name for name, _ in params]
            params = [p for _, p in params]
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {typename(p)}")
            if not p.is_leaf and not self.defaults.get("differentiable"):
                raise ValueError("can't optimize a non-leaf Tensor")
        group["params"] = params
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            group.setdefault(name, default)
        if len(params) != len(set(params)):
            warnings.warn("optimizer contains a parameter group with duplicate parameters; in future, this will cause "
                          "an error; see github.com/pytorch/pytorch/issues/40967 for more information",
                          stacklevel=3)  # fmt: skip
        taken = {p for g in self.param_groups for p in g["params"]}
        if not taken.isdisjoint(params):
            raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(group)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])

    # --- stepping

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif (g := p.grad) is not None:
                    if g.grad_fn is None:
                        g.requires_grad_(False)
                    else:
                        g = p.grad = g.detach()
                    g.zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: Computes the loss and its gradients again; its result is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    step = _hooked_step(step)

    def _step_group(self, group: dict[str, Any]) -> None:
        raise NotImplementedError(f"{type(self).__name__} defines neither step nor _step_group")

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` before each step; it may return new `(args, kwargs)`."""
        self._step_hooked = True
        return _register(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        self._step_hooked = True
        return _register(self._step_post_hooks, hook)

    # --- saving

    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer)` before `state_dict`."""
        return _register(self._state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` after `state_dict`; it may return another."""
        return _register(self._state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` before `load_state_dict`; it may return another."""
        return _register(self._load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer)` after `load_state_dict`."""
        return _register(self._load_state_dict_post_hooks, hook, prepend)

    def state_dict(self) -> dict[str, Any]:
        """`{"state": {position: {name: tensor}}, "param_groups": [options with positions for "params"]}`."""
        for hook in list(self._state_dict_pre_hooks.values()):
            hook(self)
        position: dict[Tensor, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                position.setdefault(p, len(position))
            packed = {k: v for k, v in group.items() if k != "params"}
            groups.append({**packed, "params": [position[p] for p in group["params"]]})
        state: dict[Any, Any] = {position.get(p, p): s for p, s in self.state.items()}
        saved: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in list(self._state_dict_post_hooks.values()):
            changed = hook(self, saved)
            saved = saved if changed is None else changed
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, here or in PyTorch; floating point state gets its parameter's dtype.

        Raises:
            ValueError: Other groups, or groups of other sizes, than this optimizer has.
        """
        state_dict = dict(state_dict)
        for hook in list(self._load_state_dict_pre_hooks.values()):
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        saved_groups = deepcopy(state_dict["param_groups"])
        if len(saved_groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(a["params"]) != len(b["params"]) for a, b in zip(saved_groups, self.param_groups, strict=True)):
            raise ValueError("loaded state dict contains a parameter group that doesn't match the size of "
                             "optimizer's group")  # fmt: skip
        saved_ids = itertools.chain.from_iterable(g["params"] for g in saved_groups)
        own = itertools.chain.from_iterable(g["params"] for g in self.param_groups)
        param_of = dict(zip(saved_ids, own, strict=True))
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in param_of:
                p = param_of[key]
                state[p] = {k: _like(p, k, v) for k, v in value.items()}
            else:
                state[key] = value
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            names = group.get("param_names")
            group.update({k: v for k, v in saved.items() if k != "params"})
            if names is not None:
                group["param_names"] = names
        self.state = state
        for hook in list(self._load_state_dict_post_hooks.values()):
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._step_hooked = self._opt_called = False
        for name in ("step", "state_dict", "load_state_dict"):
            setattr(self, f"_{name}_pre_hooks", OrderedDict())
            setattr(self, f"_{name}_post_hooks", OrderedDict())

    # --- for subclasses

    def _with_grad(self, group: dict[str, Any], names: Iterable[str]) -> tuple[list[Tensor], ...]:
        """The parameters of a group that have a gradient, these gradients, and the named state of each.

        State that does not exist is made by `_init_state`.
        """
        params, grads = with_gradient(group["params"])
        states = [self.state[p] for p in params]
        for p, own in zip(params, states, strict=True):
            if not own:
                self._init_state(group, p, own)
        return params, grads, *[[own[name] for own in states] for name in names]

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        """Fill the state of a parameter that is about to make its first step."""
        raise NotImplementedError(f"{type(self).__name__} keeps state but defines no _init_state")


def with_gradient(params: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters that have a gradient, and these gradients."""
    have, grads = [], []
    for p in params:
        g = p.grad
        if g is not None:
            have.append(p)
            grads.append(g)
    return have, grads


def zeros_of(p: Tensor) -> Tensor:
    """Zeros of the shape, dtype and device of `p`, not recorded."""
    return zeros_like(p.detach())


def check_rates(lr: Any, eps: float | None = None, weight_decay: float = 0.0, betas: Any = ()) -> None:
    """Raises ValueError with PyTorch's words for options outside their range."""
    if not float(lr) >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")
    if eps is not None and not eps >= 0.0:
        raise ValueError(f"Invalid epsilon value: {eps}")
    for i, beta in enumerate(betas):
        if not 0.0 <= float(beta) < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
    if not weight_decay >= 0.0:
        raise ValueError(f"Invalid weight_decay value: {weight_decay}")


def check_modes(foreach: bool | None, fused: bool | None, differentiable: bool) -> None:
    """Raises RuntimeError for what is not possible.  See Note [foreach, fused, capturable, differentiable]."""
    if foreach and fused:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if differentiable:
        raise RuntimeError(
            "differentiable=True is not supported: a step overwrites the parameters; write the update as tensor "
            "operations to differentiate through it"
        )


def _register(table: OrderedDict[int, Any], hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
    handle = RemovableHandle(table)
    table[handle.id] = hook
    if prepend:
        table.move_to_end(handle.id, last=False)
    return handle


def _like(p: Tensor, name: str, value: Any) -> Any:
    """Loaded state as this parameter needs it; "step" keeps its dtype, because it counts."""
    if isinstance(value, Tensor):
        if name != "step" and p.is_floating_point():
            return value.to(device=p.device, dtype=p.dtype, copy=True)
        return value.to(device=p.device, copy=True)
    if isinstance(value, dict):
        return {k: _like(p, k, v) for k, v in value.items()}
    return value
