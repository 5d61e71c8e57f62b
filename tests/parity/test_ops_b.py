"""Reductions, products, activations, losses, norms, images and attention against PyTorch: values and two derivatives.

A case is `(function of a module and tensors, shapes or arrays)`; the function is called with `torch` and with us.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import rushlight_autograd as autograd
import rushlight_tensor as rl

torch = pytest.importorskip("torch")

INF = float("inf")


def F(m):
    return torch.nn.functional if m is torch else rl


def rand(*shape, seed=0, low=None):
    values = np.random.default_rng((seed, *shape)).standard_normal(shape)
    return (values if low is None else np.abs(values) + low).astype(np.float32)


def close(ours, theirs, tol, what):
    theirs = theirs.detach().numpy(force=True)
    assert ours.detach()._array.shape == theirs.shape, what
    np.testing.assert_allclose(ours.detach()._array, theirs, rtol=tol, atol=tol, err_msg=what)


def agree(f, *inputs, tol=3e-5, second=True):
    """Results, first and second derivatives are PyTorch's."""
    arrays = [rand(*x, seed=i) if isinstance(x, tuple) else x for i, x in enumerate(inputs)]
    sides = []
    for m, grad in ((torch, torch.autograd.grad), (rl, autograd.grad)):
        xs = [m.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        outs = f(m, *xs)
        outs = outs if isinstance(outs, tuple) else (outs,)
        stages = [outs]
        leaves = [x for x in xs if x.requires_grad]
        for order in (1, 2) if second else (1,):
            weighted = [
                (o * m.tensor(np.cos(np.arange(o.numel())).reshape(o.shape), dtype=o.dtype)).sum()
                for o in stages[-1]
                if o is not None and o.requires_grad
            ]
            if not weighted:
                break
            stages.append(grad(sum(weighted), leaves, create_graph=order == 1 and second, allow_unused=True))
        sides.append(stages)
    for order, (theirs, ours) in enumerate(zip(*sides, strict=False)):
        for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            what = f"{('result', 'gradient', 'second derivative')[order]} {i}"
            if a is None or b is None:
                assert all(g is None or not g.any() for g in (a, b)), what
                continue
            assert str(a.dtype) == str(b.dtype), what
            close(b, a, tol * (1, 5, 20)[order], what)


def classes(m, values):
    return m.tensor(np.asarray(values))


X, Z = rand(3, 4, 5), rand(3, 4, 5)
Z[0, 0, 0] = Z[1, 1, 1] = Z[1, 1, 2] = 0
INTS = np.array([[2, 0, -3], [1, 1, 5]])

REDUCTIONS = (
    {
        f"{name}-{dim}-{keep}": (
            lambda m, x, n=name, d=dim, k=keep: getattr(m, n)(x) if d is None else getattr(m, n)(x, d, keepdim=k),
            X,
        )
        for name in ("sum", "mean", "amax", "amin", "var", "std", "logsumexp", "nansum", "nanmean")
        for dim, keep in ((None, False), (0, False), (-1, True), ((0, 2), False))
        if not (dim is None and name == "logsumexp")
    }
    | {
        "prod": (lambda m, x: m.prod(x), X[0, :2, :2]),
        "prod-zeros": (lambda m, x: m.prod(x, 2, True), Z),
        "max": (lambda m, x: m.max(x), X),
        "max-dim": (lambda m, x: tuple(m.max(x, 1)), X),
        "max-other": (lambda m, x, y: m.max(x, y), X, rand(4, 5)),
        "min-dim": (lambda m, x: tuple(x.min(dim=0, keepdim=True)), X),
        "median": (lambda m, x: m.median(x), X),
        "median-dim": (lambda m, x: tuple(m.median(x, 2)), X),
        "cummax": (lambda m, x: tuple(m.cummax(x, 1)), X),
        "cummin": (lambda m, x: tuple(m.cummin(x, 0)), X),
        "aminmax": (lambda m, x: tuple(m.aminmax(x, dim=1)), X),
        "argmax": (lambda m, x: (x.argmax(), x.argmax(1), x.argmin(2, keepdim=True)), X),
        "cumsum": (lambda m, x: m.cumsum(x, 1), X),
        "cumprod": (lambda m, x: m.cumprod(x, 2), Z),
        "logcumsumexp": (lambda m, x: m.logcumsumexp(x, 1), X),
        "var-mean": (lambda m, x: (*m.var_mean(x, 1), *m.std_mean(x, 0, unbiased=False)), X),
        "var-overloads": (lambda m, x: (x.var(False), x.std(1, True), x.var(1, correction=2, keepdim=True)), X),
        "numpy-names": (lambda m, x: x.sum(axis=1, keepdims=True), X),
        "integers": (lambda m, x: (x.sum(), x.prod(1), x.max(), x.any(), x.all(0), x.cumsum(1), x.argmin()), INTS),
        "bools": (lambda m, x: (x.sum(0), x.any(1), x.all(), x.prod()), INTS > 0),
        "count_nonzero": (lambda m, x: (m.count_nonzero(x), x.count_nonzero(1)), INTS),
        "empty": (lambda m, x: (x.sum(0), x.prod(1), x.any(), x.all(), x.mean(1)), np.zeros((2, 3, 0)[:2], np.float32)),
        "zero-d": (lambda m, x: (x.sum(), x.max(), *x.max(0), x.cumsum(0), x.argmax(), x.std(unbiased=False)), rand()),
    }
    | {
        f"norm-{p}": (lambda m, x, p=p: (m.norm(x, p), x.norm(p, dim=1), m.dist(x, x * 2, p)), X)
        for p in (1, 2, 3.5, INF, -INF)
    }
)

MATMULS = [
    ((4, 3), (3, 5)), ((3,), (3,)), ((4, 3), (3,)), ((3,), (3, 5)), ((2, 4, 3), (3, 5)), ((2, 4, 3), (2, 3, 5)),
    ((3,), (2, 3, 5)), ((2, 1, 4, 3), (3, 3, 5)), ((0, 3), (3, 2)), ((4, 0), (0, 2)), ((4, 3), (2, 3, 5)),
]  # fmt: skip
EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("bij,bjk", (2, 3, 4), (2, 4, 5)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("ij->ji", (3, 4)),
    ("i,j->ij", (3,), (4,)),
    ("...ij,...jk->...ik", (2, 5, 3, 4), (5, 4, 2)),
    ("bthd,bshd->bhts", (2, 3, 4, 5), (2, 6, 4, 5)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("ijk,ilm,njm,nlk->", (2, 3, 4), (2, 5, 6), (7, 3, 6), (7, 5, 4)),
    ("b...,b->...", (2, 3, 4), (2,)),
    ("ij,ij->ij", (3, 4), (1, 4)),
    ("iij,jk", (3, 3, 4), (4, 2)),
]
PRODUCTS = (
    {f"matmul-{a}-{b}": (lambda m, x, y: m.matmul(x, y), a, b) for a, b in MATMULS}
    | {f"einsum-{eq}": (lambda m, *xs, eq=eq: m.einsum(eq, *xs), *shapes) for eq, *shapes in EINSUMS}
    | {f"linear-{s}": (lambda m, x, w, b: F(m).linear(x, w, b), s, (5, 3), (5,)) for s in ((4, 3), (2, 4, 3), (3,))}
    | {
        "transposed": (lambda m, x, y: x.permute(1, 0) @ y.permute(1, 0), (3, 4), (5, 3)),
        "addmm": (lambda m, c, x, y: m.addmm(c, x, y, beta=2, alpha=0.5), (4,), (2, 3), (3, 4)),
        "baddbmm": (lambda m, c, x, y: m.baddbmm(c, x, y), (4,), (2, 2, 3), (2, 3, 4)),
        "tensordot": (lambda m, x, y: m.tensordot(x, y, ([0, 2], [2, 1])), (2, 3, 4), (5, 4, 2)),
        "bilinear": (lambda m, x, y, w, b: F(m).bilinear(x, y, w, b), (2, 3), (2, 4), (5, 3, 4), (5,)),
        "trace": (lambda m, x: m.trace(x), (3, 4)),
        "outer": (lambda m, x, y: (m.outer(x, y), m.dot(x, x), m.mv(x.reshape(1, 3), x)), (3,), (4,)),
        "integers": (lambda m, x: x @ x.permute(1, 0), INTS),
    }
)

GRID = np.concatenate([rand(20) * 3, np.array([-3, 3, 6, 1, -1, 0.5, -0.5, 25, -25, 30, -30, 2.2], np.float32)])
ACTIVATIONS = {
    n: (lambda m, x, n=n: getattr(F(m), n)(x), GRID)
    for n in (
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "sigmoid",
        "logsigmoid",
        "softplus",
        "softsign",
        "hardtanh",
        "hardsigmoid",
        "hardswish",
        "tanhshrink",
        "softshrink",
        "hardshrink",
        "glu",
    )
} | {
    "leaky_relu-0.2": (lambda m, x: F(m).leaky_relu(x, 0.2), GRID),
    "elu-2": (lambda m, x: F(m).elu(x, alpha=2.0), GRID),
    "celu-2": (lambda m, x: F(m).celu(x, alpha=2.0), GRID),
    "gelu-tanh": (lambda m, x: F(m).gelu(x, approximate="tanh"), GRID),
    "softplus-2": (lambda m, x: F(m).softplus(x, beta=2, threshold=5), GRID),
    "hardtanh-2": (lambda m, x: F(m).hardtanh(x, -2.0, 0.5), GRID),
    "threshold": (lambda m, x: F(m).threshold(x, 0.3, 7.0), GRID),
    "prelu": (lambda m, x, w: F(m).prelu(x, w), (2, 3, 4), (3,)),
    "erf": (lambda m, x: (m.erf(x), m.erfc(x), m.sinc(x)), GRID[:20]),
    "logaddexp": (lambda m, x, y: m.logaddexp(x, y), (5,), (5,)),
    "xlogy": (lambda m, x, y: m.xlogy(x, y), np.array([0, 1, 2, 0], np.float32), np.array([1, 2, 0.5, 3], np.float32)),
    "logit": (lambda m, x: m.logit(x.abs() / 10, 1e-3), GRID[:20]),
    "softmax": (lambda m, x: (F(m).softmax(x, dim=1), F(m).softmin(x, dim=0)), (3, 4, 5)),
    "softmax-dtype": (lambda m, x: F(m).softmax(x, dim=-1, dtype=m.float64), (3, 4)),
    "log_softmax": (lambda m, x: F(m).log_softmax(x, dim=0), (3, 4, 5)),
}

LABELS = [2, 0, 4, 2]
PROBABILITIES = (rand(4, 5, low=0.1) / 5).clip(0.01, 0.95)
SIGNS = np.array([1, -1, 1, -1], np.float32)
W5 = rand(5, low=0.1)
LOSSES = {}
for red in ("mean", "sum", "none"):
    for key, kw in {
        "": {}, "-weight": {"weight": True}, "-ignore": {"ignore_index": 2}, "-smooth": {"label_smoothing": 0.1},
        "-all": {"weight": True, "ignore_index": 2, "label_smoothing": 0.2},
    }.items():  # fmt: skip
        for form, labels in (((4, 5), LABELS), ((5,), 3), ((2, 5, 2), [[0, 2], [4, 2]])):

            def ce(m, x, kw=kw, labels=labels, red=red, name="cross_entropy"):
                more = {k: classes(m, W5) if k == "weight" else v for k, v in kw.items()}
                return getattr(F(m), name)(x, classes(m, labels), reduction=red, **more)

            LOSSES[f"ce{key}-{form}-{red}"] = (ce, form)
            if "label_smoothing" not in kw:
                nll = lambda m, x, ce=ce: ce(m, F(m).log_softmax(x, dim=min(x.ndim - 1, 1)), name="nll_loss")  # noqa: E731
                LOSSES[f"nll{key}-{form}-{red}"] = (nll, form)
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss"):
        LOSSES[f"{name}-{red}"] = (
            lambda m, x, y, n=name, r=red: getattr(F(m), n)(x, y, reduction=r),
            (4, 5),
            (4, 5),
        )
    LOSSES |= {
        f"ce-probabilities-{red}": (
            lambda m, x, p, r=red: F(m).cross_entropy(x, p, reduction=r, label_smoothing=0.2),
            (4, 5),
            PROBABILITIES,
        ),
        f"smooth-beta-{red}": (lambda m, x, y, r=red: F(m).smooth_l1_loss(x, y, reduction=r, beta=0.3), (4, 5), (4, 5)),
        f"bce-{red}": (
            lambda m, x, y, r=red: F(m).binary_cross_entropy(x, y, reduction=r),
            PROBABILITIES,
            PROBABILITIES[::-1].copy(),
        ),
        f"bce-logits-{red}": (
            lambda m, x, y, r=red: F(m).binary_cross_entropy_with_logits(
                x * 5, y, classes(m, W5), pos_weight=classes(m, W5), reduction=r
            ),
            (4, 5),
            PROBABILITIES,
        ),
        f"kl-{red}": (
            lambda m, x, y, r=red: F(m).kl_div(x, y, reduction="batchmean" if r == "mean" else r),
            (4, 5),
            PROBABILITIES,
        ),
        f"kl-log-{red}": (lambda m, x, y, r=red: F(m).kl_div(x, y, reduction="sum", log_target=True), (4, 5), (4, 5)),
        f"poisson-{red}": (
            lambda m, x, r=red: F(m).poisson_nll_loss(x, classes(m, LABELS), full=True, reduction=r),
            (4,),
        ),
        f"gaussian-{red}": (
            lambda m, x, y, v, r=red: F(m).gaussian_nll_loss(x, y, v, reduction=r),
            (4, 5),
            (4, 5),
            PROBABILITIES,
        ),
        f"ranking-{red}": (
            lambda m, x, y, r=red: F(m).margin_ranking_loss(x, y, classes(m, SIGNS), margin=0.1, reduction=r),
            (4,),
            (4,),
        ),
        f"hinge-{red}": (lambda m, x, r=red: F(m).hinge_embedding_loss(x, classes(m, SIGNS), reduction=r), (4,)),
        f"soft-margin-{red}": (lambda m, x, r=red: F(m).soft_margin_loss(x, classes(m, SIGNS), reduction=r), (4,)),
    }
LOSSES |= {
    "cosine_similarity": (lambda m, x, y: F(m).cosine_similarity(x, y, dim=0), (4, 5), (4, 5)),
    "pairwise_distance": (lambda m, x, y: F(m).pairwise_distance(x, y, keepdim=True), (4, 5), (4, 5)),
    "normalize": (lambda m, x: (F(m).normalize(x), F(m).normalize(x, p=1.0, dim=0)), (4, 5)),
    "mse-broadcast": (lambda m, x, y: F(m).mse_loss(x, y.double().expand(4, 5)), (4, 5), (5,)),
}

NORMS = (
    {
        "layer_norm": (lambda m, x, w, b: F(m).layer_norm(x, (4, 5), w, b), (2, 3, 4, 5), (4, 5), (4, 5)),
        "layer_norm-plain": (lambda m, x: F(m).layer_norm(x.transpose(0, 1), (4,)), (4, 5)),
        "rms_norm": (lambda m, x, w: F(m).rms_norm(x, (5,), w), (3, 5), (5,)),
        "group_norm": (lambda m, x, w, b: F(m).group_norm(x, 2, w, b), (2, 4, 3, 3), (4,), (4,)),
        "local_response_norm": (lambda m, x: F(m).local_response_norm(x, 4, alpha=0.1, beta=0.5, k=2.0), (2, 5, 3)),
    }
    | {
        f"batch_norm-{shape}-{training}": (
            lambda m, x, w, b, t=training: F(m).batch_norm(
                x, m.tensor([0.1, 0.2, 0.3]), m.tensor([0.5, 1.0, 2.0]), w, b, training=t
            ),
            shape,
            (3,),
            (3,),
        )
        for shape in ((4, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 2, 2))
        for training in (True, False)
    }
    | {
        f"instance_norm-{stats}": (
            lambda m, x, w, b, s=stats: F(m).instance_norm(
                x, m.tensor([0.1, 0.2, 0.3]), m.tensor([0.5, 1.0, 2.0]), w, b, use_input_stats=s
            ),
            (2, 3, 4, 5),
            (3,),
            (3,),
        )
        for stats in (True, False)
    }
)

CONVS = [
    ((2, 3, 8, 9), (4, 3, 3, 3), {}),
    ((2, 3, 8, 9), (4, 3, 3, 2), {"stride": 2, "padding": 1}),
    ((3, 8, 8), (4, 3, 3, 3), {}),
    ((2, 4, 8, 9), (6, 2, 3, 3), {"groups": 2, "padding": (1, 0), "dilation": (1, 2)}),
    ((2, 4, 8, 8), (4, 1, 3, 3), {"groups": 4, "padding": 1}),
    ((2, 3, 7, 7), (4, 3, 2, 4), {"padding": "same", "dilation": 2}),
]
TRANSPOSED = [
    ((2, 3, 4, 5), (3, 4, 3, 3), {}), ((2, 3, 4, 5), (3, 4, 3, 2), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((2, 4, 4, 5), (4, 3, 3, 3), {"groups": 2, "dilation": (1, 2)}),
]  # fmt: skip
WINDOWS = [
    {"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": (2, 3), "stride": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
]  # fmt: skip
RESIZES = [{"size": (5, 7)}, {"scale_factor": 2}, {"scale_factor": 1.7}, {"scale_factor": (2, 0.6)}]
IMAGES = (
    {f"conv2d-{x}-{kw}": (lambda m, x, w, b, kw=kw: F(m).conv2d(x, w, b, **kw), x, w, (w[0],)) for x, w, kw in CONVS}
    | {f"transposed-{kw}": (lambda m, x, w, kw=kw: F(m).conv_transpose2d(x, w, **kw), x, w) for x, w, kw in TRANSPOSED}
    | {
        f"max_pool2d-{kw}": (lambda m, x, kw=kw: F(m).max_pool2d(x, return_indices=True, **kw), (2, 3, 8, 9))
        for kw in WINDOWS
    }
    | {
        f"avg_pool2d-{kw}": (lambda m, x, kw=kw: F(m).avg_pool2d(x, count_include_pad=False, **kw), (2, 3, 8, 9))
        for kw in WINDOWS
    }
    | {
        f"adaptive-{o}": (
            lambda m, x, o=o: (F(m).adaptive_avg_pool2d(x, o), F(m).adaptive_max_pool2d(x, o)),
            (2, 3, 8, 9),
        )
        for o in (1, (2, 3), (3, None), (5, 7))
    }
    | {
        f"pad-{p}-{mode}": (lambda m, x, p=p, mode=mode: F(m).pad(x, p, mode), (2, 3, 4, 5))
        for p, mode in (
            ((1, 2, 0, 1), "constant"),
            ((-1, 1, 2, -1), "constant"),
            ((1, 2, 2, 1), "reflect"),
            ((1, 2, 2, 1), "replicate"),
            ((1, 2, 2, 1), "circular"),
        )
    }
    | {
        f"resize-{mode}-{kw}": (lambda m, x, kw=kw, mode=mode: F(m).interpolate(x, mode=mode, **kw), (2, 3, 4, 6))
        for kw in RESIZES
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
    }
    | {
        "conv1d": (lambda m, x, w, b: F(m).conv1d(x, w, b, stride=2, padding=1), (2, 3, 9), (4, 3, 3), (4,)),
        "conv_transpose1d": (lambda m, x, w: F(m).conv_transpose1d(x, w, stride=2), (2, 3, 5), (3, 4, 3)),
        "pool1d": (
            lambda m, x: (F(m).max_pool1d(x, 3, 2, 1), F(m).avg_pool1d(x, 2), F(m).adaptive_avg_pool1d(x, 4)),
            (2, 3, 9),
        ),
        "resize-corners": (
            lambda m, x: F(m).interpolate(x, size=(5, 7), mode="bilinear", align_corners=True),
            (2, 3, 4, 6),
        ),
        "pixel_shuffle": (lambda m, x: (F(m).pixel_shuffle(x, 2), F(m).channel_shuffle(x, 2)), (2, 8, 3, 4)),
        "unfold": (
            lambda m, x: (torch.nn.functional.unfold if m is torch else rl.im2col)(x, (2, 3), padding=1, stride=2),
            (2, 3, 6, 7),
        ),
        "fold": (
            lambda m, x: (torch.nn.functional.fold if m is torch else rl.col2im)(x, (4, 5), 2, dilation=2),
            (2, 8, 6),
        ),
        "view-after-conv": (lambda m, x, w: F(m).conv2d(x, w).relu().view(2, -1), (2, 3, 5, 5), (4, 3, 3, 3)),
    }
)

SEEN = np.array([[True, False, True, True], [True] * 4, [False] * 4])
QKV = ((2, 3, 3, 4), (2, 3, 4, 4), (2, 3, 4, 5))


def attention(m, *xs, **kw):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return F(m).scaled_dot_product_attention(*xs, **kw)


TABLES = {
    "embedding": (lambda m, w: F(m).embedding(classes(m, [[1, 2], [1, 0]]), w), (4, 3)),
    "embedding-padding": (lambda m, w: F(m).embedding(classes(m, [[1, 2], [1, 0]]), w, padding_idx=1), (4, 3)),
    "attention": (lambda m, *x: attention(m, *x), *QKV),
    "attention-mask": (lambda m, *x: attention(m, *x, attn_mask=classes(m, SEEN), scale=0.3), *QKV),
    "attention-bias": (lambda m, *x: attention(m, *x[:3], attn_mask=x[3]), *QKV, (3, 4)),
    "attention-causal": (lambda m, *x: attention(m, *x, is_causal=True), (2, 5, 4), (2, 5, 4), (2, 5, 4)),
    "attention-gqa": (lambda m, *x: attention(m, *x, enable_gqa=True), (2, 4, 5, 6), (2, 2, 5, 6), (2, 2, 5, 6)),
    "attention-dropout": (lambda m, *x: (m.manual_seed(3), attention(m, *x, dropout_p=0.3))[1], *QKV),
} | {
    f"{name}-{p}": (lambda m, x, n=name, p=p: (m.manual_seed(1), getattr(F(m), n)(x, p, training=True))[1], (3, 4, 6))
    for name in ("dropout", "alpha_dropout", "dropout1d")
    for p in (0.0, 0.3, 1.0)
}

NOT_TWICE = ("hardsigmoid", "elu", "hardswish")  # PyTorch has no second derivative, or another one at a kink


@pytest.mark.parametrize("family", ["REDUCTIONS", "PRODUCTS", "ACTIVATIONS", "LOSSES", "NORMS", "IMAGES", "TABLES"])
def test_results_and_derivatives_agree(family):
    failures = []
    for name, (f, *inputs) in globals()[family].items():
        try:
            agree(f, *inputs, tol=1e-4 if family == "IMAGES" else 3e-5, second=not name.startswith(NOT_TWICE))
        except Exception as e:  # every case is tried, so that one run names all that differ
            failures.append(f"{name}: {type(e).__name__}: {str(e).strip()[:300]}")
    assert not failures, "\n".join(failures)


def test_running_statistics_are_updated_in_place():
    for shape in ((4, 3), (2, 3, 4, 5)):
        kept = []
        for m in (torch, rl):
            mean, var = m.tensor([0.1, 0.2, 0.3]), m.tensor([0.5, 1.0, 2.0])
            F(m).batch_norm(m.tensor(rand(*shape)), mean, var, training=True, momentum=0.3)
            F(m).instance_norm(m.tensor(rand(2, 3, 4)), mean, var, momentum=0.2)
            kept.append((mean.numpy(), var.numpy()))
        np.testing.assert_allclose(kept[1], kept[0], rtol=1e-5)


def test_large_sums_are_as_accurate_as_theirs():
    x = np.random.default_rng(0).uniform(0, 1, (200_000, 3)).astype(np.float32)
    exact = x.astype(np.float64).sum(0)
    ours = np.abs(rl.tensor(x).sum(0).numpy() - exact).max()
    assert ours <= max(2 * np.abs(torch.tensor(x).sum(0).numpy() - exact).max(), 0.05)


def test_pairs_print_as_theirs():
    x = np.array([[1.0, 3.0], [2.0, 0.0]], np.float32)
    assert repr(rl.max(rl.tensor(x), 1)) == repr(torch.max(torch.tensor(x), 1))


SHAPE_ERRORS = [
    lambda t: t.zeros(4, 3) @ t.zeros(5, 2),
    lambda t: t.zeros(4, 3) @ t.zeros(4),
    lambda t: t.zeros(3) @ t.zeros(4),
    lambda t: t.zeros(2, 4, 3) @ t.zeros(2, 5, 2),
    lambda t: t.zeros(()) @ t.zeros(2),
    lambda t: t.zeros(2, 3) @ t.zeros(3, 3, dtype=t.float64),
    lambda t: t.zeros(2, 2, dtype=t.bool) @ t.zeros(2, 2, dtype=t.bool),
    lambda t: t.bmm(t.zeros(3, 3, 3), t.zeros(2, 3, 4)),
    lambda t: t.dot(t.zeros(3), t.zeros(4)),
    lambda t: F(t).linear(t.zeros(4, 3), t.zeros(5, 2)),
    lambda t: F(t).linear(t.zeros(2, 3), t.zeros(5, 3, dtype=t.float64)),
    lambda t: t.einsum("ij,jk->ik", t.zeros(2, 3), t.zeros(2, 3)),
    lambda t: t.einsum("ij,jk->il", t.zeros(2, 3), t.zeros(3, 3)),
    lambda t: t.zeros(2, 2, dtype=t.int64).mean(),
    lambda t: t.zeros(0).max(),
    lambda t: t.zeros(0, 2).max(0),
    lambda t: t.zeros(0).argmax(),
    lambda t: t.zeros(2, 2).sum(5),
    lambda t: F(t).gelu(t.zeros(2), approximate="x"),
    lambda t: F(t).glu(t.zeros(3)),
    lambda t: F(t).softmax(t.zeros(2, 2, dtype=t.int64), 1),
    lambda t: F(t).cross_entropy(t.zeros(4, 3), t.zeros(3, dtype=t.int64)),
    lambda t: F(t).cross_entropy(t.zeros(4, 3), t.zeros(4, dtype=t.int32)),
    lambda t: F(t).cross_entropy(t.zeros(4, 3), t.zeros(4, dtype=t.int64) + 5),
    lambda t: F(t).cross_entropy(t.zeros(4, 3), t.zeros(4, 3, dtype=t.int64)),
    lambda t: F(t).cross_entropy(t.zeros(4, 3, 2), t.zeros(4, 3, dtype=t.int64)),
    lambda t: F(t).cross_entropy(t.zeros(4, 3), t.zeros(4, dtype=t.int64), reduction="x"),
    lambda t: F(t).nll_loss(t.zeros(4, 3), t.zeros(3, dtype=t.int64)),
    lambda t: F(t).binary_cross_entropy(t.zeros(4) + 2, t.zeros(4)),
    lambda t: F(t).binary_cross_entropy_with_logits(t.zeros(4, 3), t.zeros(3)),
    lambda t: F(t).layer_norm(t.zeros(2, 3), (4,)),
    lambda t: F(t).batch_norm(t.zeros(1, 3), t.zeros(3), t.zeros(3), training=True),
    lambda t: F(t).batch_norm(t.zeros(2, 3), t.zeros(4), t.zeros(4)),
    lambda t: F(t).group_norm(t.zeros(2, 3, 4), 2),
    lambda t: F(t).embedding(t.tensor([5]), t.zeros(3, 2)),
    lambda t: F(t).embedding(t.tensor([-1]), t.zeros(3, 2)),
    lambda t: F(t).embedding(t.tensor([1.0]), t.zeros(3, 2)),
    lambda t: F(t).one_hot(t.tensor([5]), 3),
    lambda t: F(t).scaled_dot_product_attention(t.zeros(2, 3, 4), t.zeros(2, 5, 4), t.zeros(2, 6, 4)),
    lambda t: F(t).dropout(t.zeros(2), 1.5),
    lambda t: F(t).conv2d(t.zeros(2, 4, 8, 8), t.zeros(8, 3, 3, 3)),
    lambda t: F(t).conv2d(t.zeros(2, 2), t.zeros(8, 3, 3, 3)),
    lambda t: F(t).conv2d(t.zeros(2, 3, 2, 2), t.zeros(8, 3, 3, 3)),
    lambda t: F(t).conv2d(t.zeros(2, 3, 8, 8), t.zeros(8, 3, 3, 3), t.zeros(7)),
    lambda t: F(t).conv1d(t.zeros(2, 4, 8), t.zeros(8, 3, 3)),
    lambda t: F(t).max_pool2d(t.zeros(1, 1, 4, 4), 2, padding=2),
    lambda t: F(t).max_pool2d(t.zeros(1, 1, 1, 1), 2),
    lambda t: F(t).pad(t.zeros(2, 3), (1,)),
    lambda t: F(t).pad(t.zeros(1, 2, 3), (3, 3), "reflect"),
    lambda t: F(t).interpolate(t.zeros(1, 1, 4, 4)),
    lambda t: F(t).pixel_shuffle(t.zeros(1, 3, 2, 2), 2),
]


@pytest.mark.parametrize("i", range(len(SHAPE_ERRORS)))
def test_mistakes_are_named_in_their_words(i):
    said = []
    for m in (torch, rl):
        with pytest.raises(Exception) as caught:
            SHAPE_ERRORS[i](m)
        said.append((caught.type.__name__, str(caught.value)))
    assert said[1] == said[0]


def test_nan_and_infinity():
    x = np.array([[math.nan, 1, -1], [-INF, 0, INF], [-INF, -INF, -INF]], np.float32)
    many = np.tile(x, (1, 64))  # PyTorch's gradients at NaN differ between its vector loops and what is left over
    for name in ("relu", "sigmoid", "relu6", "hardtanh", "leaky_relu", "softplus", "silu"):
        agree(lambda m, t, n=name: getattr(F(m), n)(t), many, second=False)
    agree(lambda m, t: (F(m).softmax(t, dim=1), F(m).log_softmax(t, dim=1)), x, second=False)
    y = X.copy()
    y[0, 1, 2] = math.nan
    for f in (
        lambda m, t: tuple(t.max(1)),
        lambda m, t: t.argmin(1),
        lambda m, t: tuple(t.median(1)),
        lambda m, t: t.nansum(1),
    ):
        agree(f, y, second=False)
