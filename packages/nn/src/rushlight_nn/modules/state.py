"""state_dict and load_state_dict of a module: which keys, which errors, and the points where a class may step in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from rushlight_autograd import no_grad
from rushlight_nn.modules.hooks import Registered, add_hook
from rushlight_nn.parameter import Parameter
from rushlight_tensor import Tensor
from rushlight_tensor.methods.gradient import RemovableHandle

if TYPE_CHECKING:
    from rushlight_nn.modules.module import Module

_EXTRA_STATE = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` found missing and unexpected."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def _size(t: Tensor) -> str:
    return f"torch.Size({list(t.shape)})"


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{k}"' for k in keys)


class StateDict:
    """The `state_dict` half of `Module`."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _state_dict_pre_hooks: OrderedDict[int, Registered]
    _state_dict_hooks: OrderedDict[int, Registered]
    _load_state_dict_pre_hooks: OrderedDict[int, Registered]
    _load_state_dict_post_hooks: OrderedDict[int, Registered]

    def get_extra_state(self) -> Any:
        """What the module wants to have saved besides tensors; override together with `set_extra_state`."""
        raise RuntimeError("Reached a code path in Module.get_extra_state() that should never be called.")

    def set_extra_state(self, state: Any) -> None:
        """Take back what `get_extra_state` returned."""
        raise RuntimeError("Reached a code path in Module.set_extra_state() that should never be called.")

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, prefix, keep_vars)` before this module's part of a state_dict is collected."""
        return add_hook(self._state_dict_pre_hooks, Registered(hook))

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata)` after it was collected; it may edit `state_dict`."""
        return add_hook(self._state_dict_hooks, Registered(hook))

    _register_state_dict_hook = register_state_dict_post_hook

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, …)` with the arguments of `_load_from_state_dict`, before loading."""
        return add_hook(self._load_state_dict_pre_hooks, Registered(hook))

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after loading; it may edit the two lists."""
        return add_hook(self._load_state_dict_post_hooks, Registered(hook))

    def _persistent_state(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield name, parameter
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                yield name, buffer

    def _has_extra_state(self) -> bool:
        return type(self).get_extra_state is not StateDict.get_extra_state

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Put this module's own tensors, not its children's, into `destination`; a point to override."""
        for name, value in self._persistent_state():
            destination[prefix + name] = value if keep_vars else value.detach()
        if self._has_extra_state():
            destination[prefix + _EXTRA_STATE] = self.get_extra_state()

    def state_dict(
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> OrderedDict[str, Any]:
        """All parameters and persistent buffers by their dotted names, sharing memory with the module.

        Args:
            destination: The dictionary to fill; a new `OrderedDict` if omitted.
            prefix: Put before every key.
            keep_vars: Give the parameters themselves instead of detached tensors.
        """
        if destination is None:
            destination = OrderedDict()
        for entry in self._state_dict_pre_hooks.values():
            entry.function(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for entry in self._state_dict_hooks.values():
            changed = entry.function(self, destination, prefix, {})
            if changed is not None:
                destination = changed
        filled: OrderedDict[str, Any] = destination
        return filled

    def _copy_from(self, name: str, own: Tensor, given: Any, key: str, assign: bool, errors: list[str]) -> None:
        if not isinstance(given, Tensor):
            errors.append(f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object '
                          f"from checkpoint but received {type(given)}")  # fmt: skip
            return
        if own.ndim == 0 and given.ndim == 1 and not assign:  # PyTorch before 0.4 saved scalars with one dimension
            given = given[0]
        if tuple(own.shape) != tuple(given.shape):
            errors.append(f"size mismatch for {key}: copying a param with shape {_size(given)} from checkpoint, "
                          f"the shape in current model is {_size(own)}.")  # fmt: skip
            return
        if assign:
            if isinstance(own, Parameter) and not isinstance(given, Parameter):
                given = Parameter(given, requires_grad=own.requires_grad)
            setattr(self, name, given)
        else:
            try:
                with no_grad():
                    own.copy_(given)
            except Exception as e:
                errors.append(f'While copying the parameter named "{key}", whose dimensions in the model are '
                              f"{own.size()} and whose dimensions in the checkpoint are {given.size()}, an exception "
                              f"occurred : {e.args}.")  # fmt: skip

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Copy this module's own tensors, not its children's, from `state_dict`; a point to override.

        Append to the three lists instead of raising.  `local_metadata` holds `assign_to_params_buffers`.
        """
        for entry in self._load_state_dict_pre_hooks.values():
            entry.function(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        assign = local_metadata.get("assign_to_params_buffers", False)
        local = dict(self._persistent_state())
        for name, own in local.items():
            key = prefix + name
            if key in state_dict:
                self._copy_from(name, own, state_dict[key], key, assign, error_msgs)
            elif strict:
                missing_keys.append(key)
        extra_key = prefix + _EXTRA_STATE
        if self._has_extra_state():
            if extra_key in state_dict:
                self.set_extra_state(state_dict[extra_key])
            elif strict:
                missing_keys.append(extra_key)
        if strict:
            known = set(local) | ({_EXTRA_STATE} if self._has_extra_state() else set())
            unexpected_keys.extend(self._unknown_keys(state_dict, prefix, known))

    def _unknown_keys(self, state_dict: Mapping[str, Any], prefix: str, known: set[str]) -> Iterator[str]:
        for key in state_dict:
            if key.startswith(prefix):
                head, dot, _ = key[len(prefix) :].partition(".")
                if head not in (self._modules if dot else known):
                    yield key

    def _load_tree(
        self, state: Mapping[str, Any], prefix: str, assign: bool, found: IncompatibleKeys, errors: list[str]
    ) -> None:
        metadata = dict((getattr(state, "_metadata", None) or {}).get(prefix[:-1], {}))
        if assign:
            metadata["assign_to_params_buffers"] = True
        self._load_from_state_dict(state, prefix, metadata, True, found.missing_keys, found.unexpected_keys, errors)
        for name, child in self._modules.items():
            if child is not None:
                child._load_tree(state, f"{prefix}{name}.", assign, found, errors)
        for entry in self._load_state_dict_post_hooks.values():
            entry.function(self, found)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy parameters and buffers from `state_dict` into this module and its children.

        Args:
            state_dict: Dotted names to tensors.
            strict: Raise when the keys are not exactly those of `self.state_dict()`.
            assign: Take the given tensors themselves, with their dtype and device, instead of copying their values.
        Returns:
            The named tuple `(missing_keys, unexpected_keys)`.
        Raises:
            TypeError: `state_dict` is no mapping.
            RuntimeError: Missing or unexpected keys (if strict), or shapes that differ; all of them in one message.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        found, errors = IncompatibleKeys([], []), list[str]()
        self._load_tree(state_dict, "", assign, found, errors)
        if strict:
            if found.unexpected_keys:
                errors.insert(0, f"Unexpected key(s) in state_dict: {_quoted(found.unexpected_keys)}. ")
            if found.missing_keys:
                errors.insert(0, f"Missing key(s) in state_dict: {_quoted(found.missing_keys)}. ")
        if errors:
            lines = "\n\t".join(errors)
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{lines}")
        return found
