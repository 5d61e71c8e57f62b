"""`vmap`: a function of one sample as a function of many, without a loop.  Behaviour and errors are PyTorch's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from rushlight_autograd.batching import Batch, Batched
from rushlight_autograd.levels import at
from rushlight_tensor.core.structure import flatten, unflatten
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.shape.join import cat
from rushlight_tensor.ops.shape.shape import expand, movedim
from rushlight_tensor.ops.shape.slicing import narrow

Dims = Any  # an int, None, or a tree of these that is a prefix of the tree of arguments


def vmap(
    func: Callable[..., Any], in_dims: Dims = 0, out_dims: Dims = 0, randomness: str = "error", *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:  # fmt: skip
    """`func` for many samples at once: it is written for one, and gets and gives tensors without their dimension.

    Args:
        func: Takes and returns tensors, in tuples, lists and dicts of any depth.
        in_dims: Which dimension of each input counts samples; None: the input is the same for all of them.
        out_dims: Where that dimension is put in the results; None: a result that is the same for all samples.
        randomness: "error", or whether random numbers are "different" for each sample or the "same".
        chunk_size: At most so many samples at once; default: all.
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if not (chunk_size is None or chunk_size > 0):
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")
    name = getattr(func, "__name__", repr(func))

    @functools.wraps(func)
    def batched(*args: Any, **kwargs: Any) -> Any:
        given: list[Tensor] = []
        structure = flatten((args, kwargs), given)
        dims = _in_dims(name, in_dims, args, kwargs)
        size = _size(given, dims)
        step = size if chunk_size is None else chunk_size
        if size <= step:
            return _run(func, name, structure, given, dims, size, out_dims, randomness)
        parts = []
        for start in range(0, size, step):
            n = min(step, size - start)
            part = _chunk(given, dims, start, n)
            parts.append(_run(func, name, structure, part, dims, n, out_dims, randomness))
        return _joined(parts, out_dims)

    return batched


def _run(
    func: Any, name: str, structure: Any, given: list[Tensor], dims: list[int | None], size: int, out_dims: Dims,
    randomness: str,
) -> Any:  # fmt: skip
    with Batch(size, randomness) as level:
        inner = [_entered(level, t, d) for t, d in zip(given, dims, strict=True)]
        args, kwargs = unflatten(structure, inner)
        out = func(*args, **kwargs)
        made: list[Tensor] = []
        shape = flatten(out, made)
        leaf = next((x for x, _ in _leaves(out, 0, lambda: None) if not isinstance(x, Tensor)), made)
        if leaf is not made:
            raise ValueError(
                f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(leaf)}. Did you mean to set "
                "out_dims= to None for output?"
            )
        places = [d for _, d in _leaves(out, out_dims, lambda: _misfit(name, out_dims))]
        return unflatten(shape, [_left(level, t, d, name) for t, d in zip(made, places, strict=True)])


def _entered(level: Batch, x: Tensor, dim: int | None) -> Tensor:
    """An argument on this level, those that are the same for all samples, too: gradients of them are per sample."""
    with at(level.below):
        return wrap(Batched(level, x, False) if dim is None else Batched(level, movedim(x, dim, 0), True))


def _left(level: Batch, x: Tensor, dim: int | None, name: str) -> Tensor:
    """A result on the level below, the samples as dimension `dim`."""
    a = x._array
    mine = isinstance(a, Batched) and a.level is level
    value: Tensor = a.value if mine else x
    with at(level.below):
        if dim is None:
            if mine and a.batched:
                raise ValueError(f"vmap({name}, ...): `{name}` can not return a BatchedTensor when out_dim is None")
            return value
        if not (mine and a.batched):
            value = expand(value, (level.size, *value._array.shape))
        return movedim(value, 0, dim)


def _leaves(tree: Any, dims: Dims, misfit: Callable[[], Any]) -> Iterator[tuple[Any, Any]]:
    """The leaves of a tree with their dimensions, in the order of `flatten`; one for a branch is that of its leaves."""
    if isinstance(tree, (tuple, list, dict)):
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        if isinstance(dims, (tuple, list, dict)):
            alike = isinstance(dims, dict) == isinstance(tree, dict) and len(dims) == len(tree)
            if not alike or (isinstance(dims, dict) and set(dims) != set(tree)):
                misfit()
        for key in keys:
            own = dims[key] if isinstance(dims, (tuple, list, dict)) else dims
            yield from _leaves(tree[key], own, misfit)
        return
    if isinstance(dims, (tuple, list, dict)):
        if len(dims) != 1 or isinstance(dims, dict):
            misfit()
        dims = dims[0]  # PyTorch takes `(0,)` for one result, too
    yield tree, dims


def _misfit(name: str, out_dims: Dims) -> None:
    raise ValueError(
        f"vmap({name}, ..., out_dims={out_dims})(<inputs>): out_dims is not compatible with the structure of `outputs`."
    )


def _in_dims(name: str, in_dims: Dims, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int | None]:
    """The dimension of each tensor among the arguments; those that are given by name have 0."""
    head = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): "
    if not isinstance(in_dims, (int, tuple, list)) or isinstance(in_dims, bool):
        raise ValueError(
            f"{head}expected `in_dims` to be int or a (potentially nested) tuple matching the structure of inputs, "
            f"got: {type(in_dims)}."
        )
    if not args and not kwargs:
        raise ValueError(
            f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a "
            "function with no inputs. The latter is unsupported."
        )

    def misfit() -> None:
        raise ValueError(f"{head}in_dims is not compatible with the structure of `inputs`.")

    if isinstance(in_dims, (tuple, list)) and len(in_dims) != len(args):
        misfit()
    found: list[int | None] = []
    for x, d in (*_leaves(args, in_dims, misfit), *_leaves(kwargs, 0, misfit)):
        if d is not None and type(d) is not int:
            raise ValueError(
                f"{head}Got in_dim={d} for an input but in_dim must be either an integer dimension or None."
            )
        if isinstance(x, Tensor):
            rank = x._array.ndim
            if d is not None and not -rank <= d < rank:
                raise ValueError(
                    f"{head}Got in_dim={d} for some input, but that input is a Tensor of dimensionality {rank} so "
                    f"expected in_dim to satisfy -{rank} <= in_dim < {rank}."
                )
            found.append(d)
        elif d is not None:
            raise ValueError(
                f"{head}Got in_dim={d} for an input but the input is of type {type(x)}. We cannot vmap over non-Tensor "
                "arguments, please use None as the respective in_dim"
            )
    return found


def _size(given: list[Tensor], dims: list[int | None]) -> int:
    sizes = [t._array.shape[d] for t, d in zip(given, dims, strict=True) if d is not None]
    if not sizes:
        raise ValueError("vmap: at least one in_dim must not be None, or there is nothing to map over")
    if len(set(sizes)) > 1:
        raise ValueError(
            f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sizes} for the "
            "mapped dimension"
        )
    return sizes[0]


def _chunk(given: list[Tensor], dims: list[int | None], start: int, length: int) -> list[Tensor]:
    return [t if d is None else narrow(t, d, start, length) for t, d in zip(given, dims, strict=True)]


def _joined(parts: list[Any], out_dims: Dims) -> Any:
    flat: list[list[Tensor]] = [[] for _ in parts]
    structures = [flatten(p, tensors) for p, tensors in zip(parts, flat, strict=True)]
    dims = [d for _, d in _leaves(parts[0], out_dims, lambda: None)]
    columns = zip(*flat, strict=True)
    made = [next(iter(c)) if d is None else cat(list(c), d) for c, d in zip(columns, dims, strict=True)]
    return unflatten(structures[0], made)
