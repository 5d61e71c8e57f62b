"""Whether a result shares memory with its input, or is its input, goes as in PyTorch: for every function of both.

A write to the result then reaches the input, or does not.  What decides are sizes of 1 and arguments that leave all as
it is, so those are what is tried; each function gets every list of arguments here that PyTorch takes from it.
"""

import math

import numpy as np
import pytest

import rushlight as rl
import rushlight.nn.functional as rF

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")

SHAPES = [(), (1,), (3,), (1, 1), (2, 3), (1, 1, 3), (2, 1, 1), (1, 1, 1, 1), (2, 4, 1, 1), (1, 4, 2, 2)]
ARGUMENTS = [
    lambda t, x: (x,),
    *[lambda t, x, a=a: (x, *a) for a in [
        (0,), (1,), (-1,), (2,), (4,), (0, 0), (1, 0), (0, 1), (1, 1), (1, 2), (0, -1), (1, 1, 0), ([0], [0]),
        (0.0,), (None, 1.0), (0.5, False), ((),), ((0,),), ((1,),), ((0, 0),), ((0, 0, 0, 0),),
        *[((0, 0) * n, mode) for n in (1, 2) for mode in ("reflect", "replicate", "circular")],
    ]],
    lambda t, x: (x, x),
    lambda t, x: (x, x, x),
    lambda t, x: (x, tuple(x.shape)),
    lambda t, x: (x, tuple(x.shape)[2:]),
    lambda t, x: (x, tuple(range(x.ndim))),
    lambda t, x: (x, 0, 0, x.shape[0]),
    lambda t, x: (x, t.float32),
    lambda t, x: (x, x > 0),
    lambda t, x: (x, t.zeros(1, dtype=t.int64)),
    lambda t, x: (x, 0, t.zeros(1, dtype=t.int64)),
    lambda t, x: ([x],),
    lambda t, x: ([x], 0),
    *[lambda t, x, e=e: (e, x) for e in ("...->...", "i->i", "ij->ij", "ij->ji", "ij->j", "...i->...")],
]  # fmt: skip
UNTRIED = {
    "apply_", "compile", "from_dlpack", "load", "manual_seed", "map_", "numpy", "requires_grad_", "save", "seed",
    "set_default_device", "set_default_dtype", "set_num_threads", "set_printoptions", "set_rng_state", "tolist",
}  # fmt: skip


def _functions(t, F):
    found = {(of, name): getattr(owner, name)
             for of, owner in (("", t), ("F", F), ("Tensor", t.Tensor)) for name in dir(owner)
             if not name.startswith("_") and not name.endswith("_") and name not in UNTRIED}  # fmt: skip
    found = {key: f for key, f in found.items() if callable(f) and not isinstance(f, type)}
    for name in ("T", "mT", "H", "mH", "real", "data"):
        found["attribute", name] = lambda x, name=name: getattr(x, name)
    found["Tensor", "[]"] = t.Tensor.__getitem__
    return found


def _tensors(y, t):
    if isinstance(y, t.Tensor):
        return [y] if y.numel() else []
    return [o for z in y for o in _tensors(z, t)] if isinstance(y, (tuple, list)) else []


def _shares(x, y):
    if isinstance(x, torch.Tensor):
        return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()
    return np.may_share_memory(np.asarray(x._array), np.asarray(y._array))


def _found(t, f, arguments, shape):
    """For each result, whether it shares memory with `x` and whether it is `x`; None where there is an error."""
    x = t.arange(1.0, 1.0 + math.prod(shape)).reshape(shape).clone()
    try:
        return [(_shares(x, o), o is x) for o in _tensors(f(*arguments(t, x)), t)]
    except Exception:
        return None


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_share_memory_where_pytorchs_do(shape):
    theirs, ours = _functions(torch, torch.nn.functional), _functions(rl, rF)
    wrong, compared = [], 0
    for key in sorted(theirs.keys() & ours.keys()):
        for i, arguments in enumerate(ARGUMENTS):
            want = _found(torch, theirs[key], arguments, shape)
            if not want:
                continue
            got = _found(rl, ours[key], arguments, shape)
            if got is None:  # an argument that is not supported here: not what is tested
                continue
            compared += 1
            if got != want and len(got) == len(want):
                wrong.append(f"{'.'.join(key)}, arguments {i}: (shares, is) {got}, in PyTorch {want}")
    assert not wrong, "\n".join(wrong)
    assert compared > 1000


def test_a_write_to_what_was_shuffled_padded_or_unfolded_leaves_the_input_alone():
    x = rl.ones(2, 4, 1, 1)
    for y in (
        rF.pixel_shuffle(x, 2), rF.pixel_shuffle(x, 1), rF.pixel_unshuffle(x, 1), rF.channel_shuffle(x, 1),
        rF.channel_shuffle(x, 4), rF.unfold(x, 1), rl.diff(x, n=0), rl.chain_matmul(x[:, :, 0, 0]),
        rF.pad(x, (0, 0, 0, 0), mode="reflect"), rF.pad(x, (0, 0, 0, 0), mode="circular"),
        rl.tensor(1.0).sum_to_size(()),
    ):  # fmt: skip
        y.fill_(7)
    assert x.tolist() == rl.ones(2, 4, 1, 1).tolist()
