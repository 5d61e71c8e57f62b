"""Results lie in memory as PyTorch's do, whatever order their inputs have: strides of every function we can reach.

`reshape`, `flatten`, `view` and random draws go by that order, so a wrong one is a wrong number elsewhere.
"""

import numpy as np
import pytest

import rushlight as rl
import rushlight.nn.functional as rF
from rushlight_tensor.core import placement

torch = pytest.importorskip("torch")
tF = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom")

SHAPE = (2, 3, 4, 5)
LINES = (2, 3, 6)


def _base(t, shape):
    size = int(np.prod(shape))
    return t.from_numpy(np.random.default_rng(size).uniform(0.1, 0.9, shape).astype(np.float32))


def _permuted(*dims):
    def make(t, shape):
        dims_ = [d for d in dims if d < len(shape)]
        return _base(t, [shape[d] for d in dims_]).permute(*np.argsort(dims_).tolist())

    return make


LAYOUTS = {
    "contiguous": _base,
    "transposed": lambda t, s: _base(t, (*s[:-2], s[-1], s[-2])).transpose(-1, -2),
    "permuted": _permuted(2, 0, 3, 1),
    "reversed": _permuted(3, 2, 1, 0),
    "channels last": lambda t, s: _base(t, (s[0], *s[2:], s[1])).movedim(-1, 1),
    "expanded": lambda t, s: _base(t, (s[0], 1, *s[2:])).expand(*s),
    "expanded at the end": lambda t, s: _base(t, (*s[:-1], 1)).expand(*s),
    "reversed and expanded": lambda t, s: (
        _base(t, (s[-1], 1, *s[-3::-1])).permute(*range(len(s) - 1, -1, -1)).expand(*s)
    ),
    "with gaps": lambda t, s: _base(t, (*s[:-1], 2 * s[-1]))[..., ::2],
    "transposed with gaps": lambda t, s: _base(t, (*s[:-2], s[-1], 2 * s[-2]))[..., ::2].transpose(-1, -2),
    "a size of one": lambda t, s: _base(t, (s[0], *s[2:], 1)).movedim(-1, 1),
    "empty": lambda t, s: t.zeros(s[0], 0, *s[2:]),
}


def _long(t, x):
    return t.zeros(x.shape, dtype=t.int64)


def _mask(x):
    return x > 0.5


ELEMENTWISE = {
    "exp": lambda t, F, x: x.exp(),
    "neg": lambda t, F, x: -x,
    "relu": lambda t, F, x: F.relu(x),
    "gelu": lambda t, F, x: F.gelu(x),
    "silu": lambda t, F, x: F.silu(x),
    "sigmoid": lambda t, F, x: x.sigmoid(),
    "erf": lambda t, F, x: x.erf(),
    "lgamma": lambda t, F, x: x.lgamma(),
    "softplus": lambda t, F, x: F.softplus(x),
    "hardtanh": lambda t, F, x: F.hardtanh(x),
    "leaky_relu": lambda t, F, x: F.leaky_relu(x),
    "elu": lambda t, F, x: F.elu(x),
    "clamp": lambda t, F, x: x.clamp(0, 0.5),
    "clamp by tensors": lambda t, F, x: t.clamp(x, t.zeros(x.shape), t.ones(x.shape)),
    "round": lambda t, F, x: x.round(),
    "nan_to_num": lambda t, F, x: x.nan_to_num(),
    "isnan": lambda t, F, x: x.isnan(),
    "isfinite": lambda t, F, x: x.isfinite(),
    "logical_not": lambda t, F, x: x.logical_not(),
    "number": lambda t, F, x: x + 1,
    "number in front": lambda t, F, x: 2 / x,
    "power": lambda t, F, x: x**2,
    "itself": lambda t, F, x: x * x,
    "and contiguous": lambda t, F, x: x + t.ones(x.shape),
    "contiguous and": lambda t, F, x: t.ones(x.shape) + x,
    "and a row": lambda t, F, x: x + t.ones(x.shape[-1]),
    "and a column": lambda t, F, x: x * t.ones(*x.shape[-2:-1], 1),
    "and channels": lambda t, F, x: x + t.ones(x.shape[1], *[1] * (x.ndim - 2)),
    "and a dimension more": lambda t, F, x: x + t.ones(2, *x.shape),
    "and its transpose": lambda t, F, x: x[..., :3, :3] + x[..., :3, :3].mT,
    "and 0-d": lambda t, F, x: x + t.tensor(2.0),
    "0-d and": lambda t, F, x: t.tensor(2.0) * x,
    "and double": lambda t, F, x: x + t.ones(x.shape, dtype=t.float64),
    "maximum": lambda t, F, x: t.maximum(x, t.zeros(x.shape)),
    "comparison": lambda t, F, x: x > 0.5,
    "comparison with contiguous": lambda t, F, x: x > t.ones(x.shape),
    "logical_and": lambda t, F, x: t.logical_and(_mask(x), t.ones(x.shape)),
    "atan2": lambda t, F, x: t.atan2(x, t.ones(x.shape)),
    "where": lambda t, F, x: t.where(x > 0.5, x, 0.0),
    "where of a contiguous mask": lambda t, F, x: t.where(t.ones(x.shape) > 0, x, t.zeros(x.shape)),
    "where of a scalar": lambda t, F, x: t.where(x > 0.5, 1.0, 0.0),
    "masked_fill": lambda t, F, x: x.masked_fill(x > 0.5, 0.0),
    "masked_fill by a row": lambda t, F, x: x.masked_fill(t.ones(x.shape[-1]) > 0.5, 0.0),
    "lerp": lambda t, F, x: x.lerp(t.zeros(x.shape), 0.5),
    "lerp by tensors": lambda t, F, x: t.zeros(x.shape).lerp(x, x),
    "addcmul": lambda t, F, x: t.addcmul(t.zeros(x.shape), x, x),
    "addcdiv": lambda t, F, x: t.addcdiv(x, t.ones(x.shape), x),
    "double": lambda t, F, x: x.double(),
    "to int": lambda t, F, x: x.long(),
    "to bfloat16": lambda t, F, x: x.bfloat16(),
    "half exp": lambda t, F, x: x.half().exp(),
    "bool not": lambda t, F, x: ~(x > 0.5),
    "clone": lambda t, F, x: x.clone(),
    "clone contiguous": lambda t, F, x: x.clone(memory_format=t.contiguous_format),
    "contiguous": lambda t, F, x: x.contiguous(),
    "zeros_like": lambda t, F, x: t.zeros_like(x),
    "ones_like": lambda t, F, x: t.ones_like(x),
    "full_like": lambda t, F, x: t.full_like(x, 2.0),
    "empty_like": lambda t, F, x: t.empty_like(x),
    "empty_like of ints": lambda t, F, x: t.empty_like(x, dtype=t.int64),
    "rand_like": lambda t, F, x: t.rand_like(x),
    "randn_like": lambda t, F, x: t.randn_like(x),
    "randint_like": lambda t, F, x: t.randint_like(x, 5),
    "bernoulli": lambda t, F, x: x.bernoulli(),
    "bernoulli with p": lambda t, F, x: x.bernoulli(0.5),
    "dropout": lambda t, F, x: F.dropout(x, 0.5),
    "mse_loss": lambda t, F, x: F.mse_loss(x, t.ones(x.shape), reduction="none"),
    "l1_loss": lambda t, F, x: F.l1_loss(x, t.ones(x.shape), reduction="none"),
    "smooth_l1_loss": lambda t, F, x: F.smooth_l1_loss(x, t.ones(x.shape), reduction="none"),
    "huber_loss": lambda t, F, x: F.huber_loss(x, t.ones(x.shape), reduction="none"),
    "binary_cross_entropy": lambda t, F, x: F.binary_cross_entropy(x, t.ones(x.shape), reduction="none"),
    "with logits": lambda t, F, x: F.binary_cross_entropy_with_logits(x, t.ones(x.shape), reduction="none"),
    "kl_div": lambda t, F, x: F.kl_div(x, t.ones(x.shape), reduction="none"),
    "prelu": lambda t, F, x: F.prelu(x, t.ones(1)),
    "complex": lambda t, F, x: t.complex(x, t.ones(x.shape)),
    "abs of complex": lambda t, F, x: t.complex(x, x).abs(),
    "conj": lambda t, F, x: t.complex(x, x).conj().resolve_conj(),
    "polar": lambda t, F, x: t.polar(x, t.ones(x.shape)),
}
ALONG = {
    f"{name} {dim}": (lambda t, F, x, f=f, dim=dim: f(t, F, x, dim))
    for name, f in {
        "softmax": lambda t, F, x, d: x.softmax(d),
        "log_softmax": lambda t, F, x, d: F.log_softmax(x, d),
        "softmin": lambda t, F, x, d: F.softmin(x, d),
        "cumsum": lambda t, F, x, d: x.cumsum(d),
        "cumprod": lambda t, F, x, d: x.cumprod(d),
        "logcumsumexp": lambda t, F, x, d: x.logcumsumexp(d),
        "cummax": lambda t, F, x, d: x.cummax(d),
        "cummin": lambda t, F, x, d: x.cummin(d),
        "sort": lambda t, F, x, d: x.sort(d),
        "stable sort": lambda t, F, x, d: x.sort(dim=d, stable=True),
        "argsort": lambda t, F, x, d: x.argsort(d),
        "topk": lambda t, F, x, d: x.topk(1, d),
        "kthvalue": lambda t, F, x, d: x.kthvalue(1, d),
        "median": lambda t, F, x, d: x.median(d),
        "mode": lambda t, F, x, d: x.mode(d) if hasattr(rl.Tensor, "mode") else x,
        "max": lambda t, F, x, d: x.max(d),
        "amax": lambda t, F, x, d: x.amax(d),
        "argmax": lambda t, F, x, d: x.argmax(d),
        "sum": lambda t, F, x, d: x.sum(d),
        "sum, kept": lambda t, F, x, d: x.sum(d, keepdim=True),
        "mean": lambda t, F, x, d: x.mean(d),
        "prod": lambda t, F, x, d: x.prod(d),
        "var": lambda t, F, x, d: x.var(d),
        "std": lambda t, F, x, d: x.std(d),
        "norm": lambda t, F, x, d: x.norm(dim=d),
        "3-norm": lambda t, F, x, d: x.norm(3, dim=d),
        "logsumexp": lambda t, F, x, d: x.logsumexp(d),
        "all": lambda t, F, x, d: (x > 0.5).all(d),
        "any": lambda t, F, x, d: (x > 0.5).any(d),
        "nansum": lambda t, F, x, d: x.nansum(d),
        "aminmax": lambda t, F, x, d: x.aminmax(dim=d),
        "normalize": lambda t, F, x, d: F.normalize(x, dim=d),
        "cosine_similarity": lambda t, F, x, d: F.cosine_similarity(x, t.ones(x.shape), dim=d),
        "cat": lambda t, F, x, d: t.cat([x, x], d),
        "cat with contiguous": lambda t, F, x, d: t.cat([x, t.ones(x.shape)], d),
        "stack": lambda t, F, x, d: t.stack([x, x], d),
        "roll": lambda t, F, x, d: x.roll(1, d),
        "flip": lambda t, F, x, d: x.flip(d),
        "repeat_interleave": lambda t, F, x, d: x.repeat_interleave(2, d),
        "index_select": lambda t, F, x, d: x.index_select(d, t.tensor([1, 0])),
        "gather": lambda t, F, x, d: x.gather(d, _long(t, x)),
        "gather by a copy": lambda t, F, x, d: x.gather(d, t.zeros_like(x).long()),
        "take_along_dim": lambda t, F, x, d: x.take_along_dim(_long(t, x), d),
        "scatter": lambda t, F, x, d: x.scatter(d, _long(t, x), 1.0),
        "scatter_add": lambda t, F, x, d: x.scatter_add(d, _long(t, x), x),
        "index_add": lambda t, F, x, d: x.index_add(d, t.tensor([0]), x.narrow(d, 0, 1)),
        "index_fill": lambda t, F, x, d: x.index_fill(d, t.tensor([0]), 1.0),
        "index_copy": lambda t, F, x, d: x.index_copy(d, t.tensor([0]), x.narrow(d, 0, 1)),
        "diff": lambda t, F, x, d: x.diff(dim=d),
        "renorm": lambda t, F, x, d: x.renorm(2, d % x.ndim, 1.0),
        "select": lambda t, F, x, d: x.select(d, 0) * 2,
    }.items()
    for dim in (0, 1, -1)
}
WHOLE = {
    "rot90": lambda t, F, x: x.rot90(1, (-2, -1)),
    "flip two": lambda t, F, x: x.flip(0, -1),
    "fliplr": lambda t, F, x: x.fliplr(),
    "roll two": lambda t, F, x: x.roll((1, 1), (0, 1)),
    "roll flat": lambda t, F, x: x.roll(1),
    "repeat": lambda t, F, x: x.repeat(*[1] * (x.ndim - 1), 2),
    "tile": lambda t, F, x: x.tile(2),
    "tril": lambda t, F, x: x.tril(),
    "triu": lambda t, F, x: x.triu(),
    "diag_embed": lambda t, F, x: t.diag_embed(x),
    "sum of two": lambda t, F, x: x.sum((0, -1)),
    "mean of two, kept": lambda t, F, x: x.mean((0, 1), keepdim=True),
    "masked": lambda t, F, x: x[x > 0.5].shape == x[x > 0.5].stride() or x.new_zeros(1),
    "rows by a list": lambda t, F, x: x[:, t.tensor([0, 1])],
    "last by a list": lambda t, F, x: x[..., t.tensor([0, 1])],
    "first by a list": lambda t, F, x: x[t.tensor([0, 1])],
    "two lists": lambda t, F, x: x[t.tensor([0, 1]), t.tensor([0, 1])],
    "two lists apart": lambda t, F, x: x[t.tensor([0, 1]), :, t.tensor([0, 1])],
    "index_put": lambda t, F, x: x.index_put((t.tensor([0]),), t.tensor(2.0)),
    "masked_scatter": lambda t, F, x: x.masked_scatter(x > 0.5, t.ones(500)),
    "take": lambda t, F, x: x.take(t.tensor([[0, 1], [1, 1]])),
    "nested gather": lambda t, F, x: F.embedding(x.long(), t.ones(4, 3)),
    "linear": lambda t, F, x: F.linear(x, t.ones(4, x.shape[-1])),
    "matmul": lambda t, F, x: x @ t.ones(x.shape[-1], 3),
    "matmul by its transpose": lambda t, F, x: x @ x.mT,
    "matmul from the left": lambda t, F, x: t.ones(2, x.shape[-2]) @ x,
    "vector": lambda t, F, x: x @ t.ones(x.shape[-1]),
    "einsum": lambda t, F, x: t.einsum("...ij,...kj->...ik", x, x),
    "tensordot": lambda t, F, x: t.tensordot(x, x, dims=([1], [1])),
    "layer_norm": lambda t, F, x: F.layer_norm(x, (x.shape[-1],)),
    "layer_norm of two": lambda t, F, x: F.layer_norm(x, x.shape[-2:]),
    "rms_norm": lambda t, F, x: F.rms_norm(x, (x.shape[-1],)),
    "batch_norm": lambda t, F, x: F.batch_norm(x, None, None, training=True),
    "batch_norm, eval": lambda t, F, x: F.batch_norm(x, t.zeros(x.shape[1]), t.ones(x.shape[1])),
    "instance_norm": lambda t, F, x: F.instance_norm(x),
    "group_norm": lambda t, F, x: F.group_norm(x, 1),
    "local_response_norm": lambda t, F, x: F.local_response_norm(x, 2),
    "glu": lambda t, F, x: F.glu(x[..., :2, :], -2),
    "prelu of channels": lambda t, F, x: F.prelu(x, t.ones(x.shape[1])),
    "cdist": lambda t, F, x: t.cdist(x, x),
    "pairwise_distance": lambda t, F, x: F.pairwise_distance(x, t.ones(x.shape)),
    "gumbel_softmax": lambda t, F, x: F.gumbel_softmax(x, dim=1),
    "cross": lambda t, F, x: t.cross(x, x, dim=1),
    "kron": lambda t, F, x: t.kron(x, t.ones(2)),
    "pad": lambda t, F, x: F.pad(x, (1, 1)),
    "pad all": lambda t, F, x: F.pad(x, (1, 1) * x.ndim, value=2.0),
    "unfold": lambda t, F, x: x.unfold(1, 2, 1) * 2,
    "dropout1d": lambda t, F, x: F.dropout1d(x, 0.5) if x.ndim == 3 else F.dropout2d(x, 0.5),
    "quantile": lambda t, F, x: x.quantile(0.5),
    "cross_entropy": lambda t, F, x: F.cross_entropy(x, _long(t, x[:, 0]), reduction="none"),
    "nll_loss": lambda t, F, x: F.nll_loss(x, _long(t, x[:, 0]), reduction="none"),
    "meshgrid": lambda t, F, x: t.meshgrid(x[0, 0, :], x[0, 0, :], indexing="ij")[1] * 1 if x.ndim == 3 else x,
    "unbind": lambda t, F, x: [y * 1 for y in x.unbind(1)],
    "split": lambda t, F, x: [y.exp() for y in x.split(2, 1)],
    "reshape": lambda t, F, x: x.reshape(-1, x.shape[-1]) * 1,
    "squeeze": lambda t, F, x: x[:, :1].squeeze(1) * 1,
    "unsqueeze": lambda t, F, x: x.unsqueeze(1) * 1,
    "swapped": lambda t, F, x: x.transpose(0, 1) * 1,
}
IMAGES = {
    "conv2d": lambda t, F, x: F.conv2d(x, t.ones(4, x.shape[1], 2, 2)),
    "conv2d by channels last": lambda t, F, x: F.conv2d(
        x, t.ones(4, x.shape[1], 2, 2).contiguous(memory_format=t.channels_last)
    ),
    "conv_transpose2d": lambda t, F, x: F.conv_transpose2d(x, t.ones(x.shape[1], 4, 2, 2)),
    "max_pool2d": lambda t, F, x: F.max_pool2d(x, 2),
    "max_pool2d with indices": lambda t, F, x: F.max_pool2d(x, 2, return_indices=True),
    "avg_pool2d": lambda t, F, x: F.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda t, F, x: F.adaptive_avg_pool2d(x, 3),
    "adaptive_avg_pool2d to one": lambda t, F, x: F.adaptive_avg_pool2d(x, 1),
    "adaptive_max_pool2d": lambda t, F, x: F.adaptive_max_pool2d(x, 3),
    "nearest": lambda t, F, x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda t, F, x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "bicubic": lambda t, F, x: F.interpolate(x, size=(7, 7), mode="bicubic"),
    "nearest down": lambda t, F, x: F.interpolate(x, size=(2, 2)),
    "reflect": lambda t, F, x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "replicate": lambda t, F, x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "circular": lambda t, F, x: F.pad(x, (1, 1, 1, 1), mode="circular"),
    "pixel_shuffle": lambda t, F, x: F.pixel_shuffle(t.cat([x, x, x, x], 1), 2),
    "pixel_unshuffle": lambda t, F, x: F.pixel_unshuffle(x[:, :, :4, :4], 2),
    "channel_shuffle": lambda t, F, x: F.channel_shuffle(t.cat([x, x], 1), 2),
    "im2col": lambda t, F, x: F.unfold(x, 2),
    "dropout2d": lambda t, F, x: F.dropout2d(x, 0.5),
    "scaled_dot_product_attention": lambda t, F, x: F.scaled_dot_product_attention(x, x, x),
    "attention of split heads": lambda t, F, x: F.scaled_dot_product_attention(*[x.transpose(1, 2)] * 3),
    "chain": lambda t, F, x: F.relu(F.conv2d(x, t.ones(4, x.shape[1], 1, 1))) + t.ones(1, 4, 1, 1),
    "chain and contiguous": lambda t, F, x: F.conv2d(x, t.ones(x.shape[1], x.shape[1], 1, 1)) + t.ones(x.shape),
}
CHAINS = {
    "conv1d": lambda t, F, x: F.conv1d(x, t.ones(4, x.shape[1], 2)),
    "conv_transpose1d": lambda t, F, x: F.conv_transpose1d(x, t.ones(x.shape[1], 4, 2)),
    "max_pool1d": lambda t, F, x: F.max_pool1d(x, 2),
    "avg_pool1d": lambda t, F, x: F.avg_pool1d(x, 2),
    "adaptive_avg_pool1d": lambda t, F, x: F.adaptive_avg_pool1d(x, 3),
    "adaptive_max_pool1d": lambda t, F, x: F.adaptive_max_pool1d(x, 3),
    "linear interpolation": lambda t, F, x: F.interpolate(x, scale_factor=2.0, mode="linear"),
    "nearest": lambda t, F, x: F.interpolate(x, scale_factor=2),
    "bmm": lambda t, F, x: t.bmm(x, x.mT),
    "baddbmm": lambda t, F, x: t.baddbmm(t.ones(1), x, x.mT),
    "scaled_dot_product_attention": lambda t, F, x: F.scaled_dot_product_attention(x, x, x),
    "reflect": lambda t, F, x: F.pad(x, (1, 1), mode="reflect"),
}


def seen(t, F, fn, layout, shape, grad=False):
    """The strides of the results; None where there is an error."""
    x = LAYOUTS[layout](t, shape)
    if grad:
        x = x.detach().requires_grad_()
    t.manual_seed(0)
    try:
        out = fn(t, F, x)
    except (RuntimeError, IndexError, ValueError, NotImplementedError):
        return None
    outs = out if isinstance(out, (tuple, list)) else (out,)
    return [_steps(o) for o in outs if isinstance(o, t.Tensor)]


def _steps(x):
    """The strides of what has more than one element in its direction: the others say nothing of where anything lies."""
    return [s for n, s in zip(x.shape, x.stride(), strict=True) if n != 1], tuple(x.shape)


KNOWN = {
    # PyTorch indexes without merging dimensions; where they do not merge, ours are a copy by then
    ("two lists", "reversed"), ("two lists apart", "permuted"), ("two lists apart", "reversed"),
    ("two lists apart", "reversed and expanded"),
    # a chain of ops in both, in which every operand repeats the dimension that decides
    ("local_response_norm", "expanded"), ("local_response_norm", "expanded at the end"),
    ("local_response_norm", "reversed and expanded"),
    # a chain of ops here, one that follows its first input alone there
    ("huber_loss", "reversed and expanded"),
    # elements that overlap: NumPy breaks ties between equal steps otherwise
    ("unfold", "expanded at the end"),
    # views of nothing: NumPy knows no steps there
    ("rot90", "empty"), ("swapped", "empty"),
    # not a question of order: what these do without channels
    ("conv2d", "empty"), ("conv2d by channels last", "empty"), ("conv1d", "empty"), ("pixel_unshuffle", "empty"),
    ("instance_norm", "empty"), ("gumbel_softmax", "empty"), ("adaptive_avg_pool2d to one", "empty"),
    ("adaptive_avg_pool1d", "empty"),
}  # fmt: skip

TABLES = {
    SHAPE: ELEMENTWISE | ALONG | WHOLE | IMAGES,
    LINES: ELEMENTWISE | ALONG | WHOLE | CHAINS,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", TABLES, ids=["images", "lines"])
def test_results_lie_as_in_pytorch(shape, layout):
    compared, wrong = 0, []
    for name, fn in TABLES[shape].items():
        want = seen(torch, tF, fn, layout, shape)
        if want is None or (name, layout) in KNOWN:
            continue
        got = seen(rl, rF, fn, layout, shape)
        compared += 1
        if got != want:
            wrong.append(f"{name}: {got}, in PyTorch {want}")
    assert not wrong, "\n".join(wrong)
    assert compared > 200


def test_rules_are_pytorchs_for_any_strides():
    rng = np.random.default_rng(0)
    seen_formats = set()
    for _ in range(3000):
        shape = tuple(rng.integers(1, 4, 4).tolist())
        steps = [tuple(rng.integers(0, 7, 4).tolist()) for _ in range(2)]
        if rng.integers(2):  # those of images, with sizes of one and gaps
            steps[0] = placement.permuted(shape, (0, 2, 3, 1))
        x, y = (torch.as_strided(torch.zeros(100), shape, s) for s in steps)
        made = x + y
        assert placement.alike(shape, placement.combined(shape, [(shape, s) for s in steps]), made.stride()), steps
        assert placement.alike(shape, placement.like(shape, steps[0]), torch.empty_like(x).stride()), steps
        padded = tF.pad(x, (1, 1, 1, 1, 1, 1, 1, 1))  # an image, or not: which, nothing but its result tells
        last = padded.is_contiguous(memory_format=torch.channels_last)
        assert placement.suggests_channels_last((shape, steps[0])) == last, (shape, steps[0])
        seen_formats.add((last, 1 in shape))
    assert len(seen_formats) == 4


DRAWS = {
    "rand_like": lambda t, F, x: t.rand_like(x),
    "randn_like": lambda t, F, x: t.randn_like(x),
    "randint_like": lambda t, F, x: t.randint_like(x, 9),
    "dropout": lambda t, F, x: F.dropout(x, 0.5),
    "dropout2d": lambda t, F, x: F.dropout2d(x, 0.5),
    "bernoulli": lambda t, F, x: x.bernoulli(),
    "bernoulli of one p": lambda t, F, x: x.bernoulli(0.3),
    "bernoulli_": lambda t, F, x: x.clone().bernoulli_(0.3),
    "bernoulli_ of tensors": lambda t, F, x: x.clone().bernoulli_(x.clone()),
    "uniform_": lambda t, F, x: x.clone().uniform_(),
    "normal_": lambda t, F, x: x.clone().normal_(),
    "exponential_": lambda t, F, x: x.clone().exponential_(),
    "random_": lambda t, F, x: x.clone().random_(5),
    "gumbel_softmax": lambda t, F, x: F.gumbel_softmax(x, dim=1),
    "multinomial": lambda t, F, x: x[0, 0].multinomial(2),
    "of a softmax": lambda t, F, x: F.dropout(x.softmax(1), 0.5),
    "of a sum": lambda t, F, x: t.rand_like(x.sum(0)),
    "of two": lambda t, F, x: t.randn_like(x + t.ones(x.shape)),
    "of a convolution": lambda t, F, x: F.dropout(F.conv2d(x, t.ones(4, x.shape[1], 1, 1)), 0.5),
    "like a convolution": lambda t, F, x: t.rand_like(F.conv2d(x, t.ones(4, x.shape[1], 1, 1))),
    "into a convolution": lambda t, F, x: F.conv2d(x, t.ones(4, x.shape[1], 1, 1)).uniform_(),
    "of a norm": lambda t, F, x: F.dropout(F.batch_norm(x, None, None, training=True), 0.5),
}


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "empty"])
def test_draws_go_by_the_order_in_memory(layout):
    for name, fn in DRAWS.items():
        made = []
        for t, F in ((torch, tF), (rl, rF)):
            t.manual_seed(3)
            made.append(fn(t, F, LAYOUTS[layout](t, SHAPE)).numpy())
        np.testing.assert_allclose(made[1], made[0], rtol=1e-4, atol=1e-5, err_msg=name)


def _gradients(t, F, make, layout, fn):
    leaf = t.ones(SHAPE).requires_grad_() if make is None else make(t, SHAPE).detach().requires_grad_()
    x = leaf * 1
    x.retain_grad()
    fn(t, F, x).sum().backward()
    return _steps(leaf.grad), _steps(x.grad)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "empty"])
def test_gradients_are_stored_as_the_leaf_lies(layout):
    for name in ("exp", "softmax 1", "cumsum 1", "and contiguous", "sum of two", "layer_norm", "relu", "flip two"):
        fn = (ELEMENTWISE | ALONG | WHOLE)[name]
        want, got = (_gradients(t, F, LAYOUTS[layout], layout, fn) for t, F in ((torch, tF), (rl, rF)))
        assert got == want, name


def test_the_gradient_of_a_channels_last_weight_is_channels_last():
    for t, F in ((torch, tF), (rl, rF)):
        w = t.ones(4, 3, 2, 2).contiguous(memory_format=t.channels_last).requires_grad_()
        F.conv2d(t.ones(2, 3, 5, 5), w).sum().backward()
        assert w.grad.stride() == (12, 1, 6, 3)


def test_attention_and_its_gradients_lie_as_in_pytorch():
    n, heads, length, d = 2, 3, 7, 8
    orders = {
        "length first": lambda t: t.ones(length, n, heads, d).permute(1, 2, 0, 3),
        "split": lambda t: t.ones(n, length, heads, d).transpose(1, 2),
        "contiguous": lambda t: t.ones(n, heads, length, d),
        "one of three": lambda t: t.ones(n, length, 3, heads, d)[:, :, 1].transpose(1, 2),
        "columns": lambda t: t.ones(n, heads, d, length).mT,
    }
    for query in orders.values():
        for key in orders.values():
            found = []
            for t, F in ((torch, tF), (rl, rF)):
                q, k = query(t).detach().requires_grad_(), key(t).detach().requires_grad_()
                out = F.scaled_dot_product_attention(q, k, k)
                found.append([_steps(x) for x in (out, *t.autograd.grad(out.sum(), (q, k)))])
            assert found[1] == found[0]


def test_writes_to_a_flat_view_of_a_result_are_not_lost():
    x = rl.ones(2, 3, 4)
    for y in (x.transpose(1, 2).softmax(-1), x.softmax(0), x.transpose(1, 2).cumsum(1), rl.cat([x.mT, x.mT], 1),
              x.mT.sum(0), rF.batch_norm(x, None, None, training=True), rl.stack([x.mT, x.mT])):  # fmt: skip
        y.view(-1).zero_()
        y.flatten()[0] = 5
        y.reshape(-1)[-1] = 7
        assert y.sum().item() == 12


def test_samples_that_lie_otherwise_make_a_contiguous_batch():
    for t in (torch, rl):
        batch = t.utils.data.default_collate([t.ones(4, 5, 3).permute(2, 0, 1) for _ in range(2)])
        assert batch.stride() == (60, 20, 5, 1)


def test_the_steps_of_nothing():
    for shape in ((0, 3), (2, 0, 3), (2, 3, 0), (0,)):
        assert rl.zeros(shape).stride() == torch.zeros(shape).stride()


def test_one_pixel_lies_as_its_strides_say():
    for t, F in ((torch, tF), (rl, rF)):
        for x, last in ((t.ones(2, 1, 1, 4).movedim(-1, 1), True), (t.ones(2, 4, 1, 1), False)):
            big = F.pad(x, (1, 1, 1, 1)), t.cat([x, x], -1), F.interpolate(x, scale_factor=2), F.pad(x, (1, 1))
            assert [y.is_contiguous(memory_format=t.channels_last) for y in big] == [last] * 4
            assert [y.is_contiguous() for y in big] == [not last] * 4


def test_sizes_of_one_have_the_steps_of_the_order_they_lie_in():
    for t, F in ((torch, tF), (rl, rF)):
        x = t.ones(2, 1, 1, 4).movedim(-1, 1)
        assert F.pad(x, (1, 1)).stride() == (12, 1, 12, 4)
        assert F.max_pool2d(x, 1).stride() == (4, 1, 4, 4)
        assert F.avg_pool2d(x, 1).stride() == (4, 1, 4, 4)
