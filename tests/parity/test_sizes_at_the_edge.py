"""Empty sizes, impossible windows, wrong state: PyTorch's result or kind of error, forward and backward."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

import rushlight

torch = pytest.importorskip("torch")


def outcome(module: Any, text: str) -> tuple[str, Any]:
    """What `text` gives under a module: a value with its gradients, or an error."""
    inputs = []

    def t(*shape: int) -> Any:
        x = (module.arange(math.prod(shape)).reshape(shape).float() * 0.7).sin().requires_grad_()
        inputs.append(x)
        return x

    try:
        y = eval(text, {"torch": module, "F": module.nn.functional, "t": t, "long": module.int64})
        if isinstance(y, tuple):
            y = y[0]
        if y.requires_grad:
            y.sum().backward()
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        kind = next(
            k for k in (IndexError, TypeError, RuntimeError, ValueError, AssertionError) if isinstance(error, k)
        )
        return kind.__name__, str(error).splitlines()[0]
    return "value", [v if v is None else v.numpy() for v in (y.detach(), *(x.grad for x in inputs))]


def agree(text: str) -> None:
    """PyTorch looks at nothing where the result is empty: there an argument may be refused here all the same."""
    (kind, got), (wanted_kind, wanted) = outcome(rushlight, text), outcome(torch, text)
    looked = not (wanted_kind == "value" and wanted[0].size == 0) and not str(wanted).startswith("select(): index 0")
    if kind in ("RuntimeError", "value") and not looked:
        return
    assert kind == wanted_kind, f"{text}: {kind} {got}, PyTorch: {wanted_kind} {wanted}"
    if kind == "value":
        assert [None if v is None else v.shape for v in got] == [None if v is None else v.shape for v in wanted], text
        for ours, theirs in zip(got, wanted, strict=True):
            if theirs is not None:
                np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=text)


WINDOWS = ["kernel_size=0", "kernel_size=-1", "kernel_size=2, stride=0", "kernel_size=2, stride=-1",
    "kernel_size=2, padding=-1", "kernel_size=2, padding=2", "kernel_size=9", "kernel_size=2, stride=5, ceil_mode=True",
    "kernel_size=3, padding=1, stride=2, ceil_mode=True", "kernel_size=(1, 4), padding=(0, 2), stride=(7, 1)",
    "kernel_size=2**32", "kernel_size=4, stride=2**40", "kernel_size=2, stride=2**31 - 1",
    "kernel_size=()"]  # fmt: skip
IMAGES = [(1, 2, 4, 4), (0, 2, 4, 4), (1, 0, 4, 4), (1, 2, 0, 4), (2, 4, 4), (0, 4, 4), (1, 1, 1, 1)]


@pytest.mark.parametrize("window", [*WINDOWS, "kernel_size=2, dilation=0", "kernel_size=2, dilation=-1"])
def test_max_pool(window):
    for shape in IMAGES:
        agree(f"F.max_pool2d(t{shape}, {window})")


@pytest.mark.parametrize("window", [*WINDOWS, "kernel_size=2, divisor_override=0"])
def test_avg_pool(window):
    for shape in IMAGES:
        agree(f"F.avg_pool2d(t{shape}, {window})")


def test_adaptive_pools():
    for shape, size in itertools.product(IMAGES, ("-1", "(2, -1)", "3", "(None, 2)")):
        if 0 not in shape[:-2] or len(shape) == 3:  # PyTorch refuses no channels in its backward pass only
            agree(f"F.adaptive_avg_pool2d(t{shape}, {size})")
        agree(f"F.adaptive_max_pool2d(t{shape}, {size})")


@pytest.mark.parametrize("how", ["", "stride=2", "padding=3", "dilation=2", "groups=2", "stride=5", "padding=-1",
    "stride=0",
    "dilation=0", "groups=0", "groups=-1", "groups=3", "padding=2**62", "stride=2**40", "dilation=2**40"])  # fmt: skip
def test_convolution(how):
    for x, w in itertools.product(
        [(1, 2, 4, 4), (0, 2, 4, 4), (1, 2, 0, 4), (1, 2, 4, 0), (2, 4, 4), (1, 2, 1, 1), (2, 4)],
        [(2, 2, 3, 3), (4, 1, 3, 3), (0, 2, 3, 3), (2, 2, 0, 0), (2, 2, 0, 3), (2, 2, 1, 1), (2, 2, 3)],
    ):
        agree(f"F.conv2d(t{x}, t{w}, {how})")
    for x, w in itertools.product(
        [(1, 2, 4), (0, 2, 4), (1, 2, 0), (2, 4)], [(2, 2, 3), (0, 2, 3), (2, 2, 0), (4, 1, 1)]
    ):
        agree(f"F.conv1d(t{x}, t{w}, {how})")


STEPS = ["", "stride=2", "padding=1", "stride=2, output_padding=1", "dilation=2, output_padding=1",
    "dilation=3, output_padding=2",
    "dilation=3, stride=2, output_padding=2", "output_padding=1", "output_padding=-1", "padding=5", "groups=2",
    "groups=3",
    "groups=0", "stride=0", "dilation=0", "padding=-1",
    "dilation=2, output_padding=1, padding=1, groups=2"]  # fmt: skip


@pytest.mark.parametrize("how", STEPS)
def test_transposed_convolution(how):
    for x, w in itertools.product(
        [(1, 2, 4, 4), (0, 2, 4, 4), (1, 2, 0, 4), (2, 4, 4), (1, 2, 1, 1)],
        [(2, 3, 3, 3), (2, 1, 1, 2), (2, 0, 3, 3), (2, 2, 0, 0), (0, 2, 3, 3)],
    ):
        agree(f"F.conv_transpose2d(t{x}, t{w}, {how})")
    agree(f"F.conv_transpose1d(t(1, 2, 4), t(2, 3, 3), {how})")


def test_second_derivative_of_an_output_padding():
    for how in ("stride=2, output_padding=1", "dilation=3, output_padding=2", "dilation=3, stride=2, output_padding=2"):
        found = []
        for module in (rushlight, torch):
            x, w = (module.arange(18.0).reshape(1, 2, 3, 3).sin().requires_grad_() for _ in range(2))
            y = eval(f"module.nn.functional.conv_transpose2d(x, w.reshape(2, 1, 3, 3), {how})")
            dx, dw = module.autograd.grad((y * y).sum(), (x, w), create_graph=True)
            found.append([g.tolist() for g in module.autograd.grad((dx * dx).sum() + (dw * dw).sum(), (x, w))])
        for ours, theirs in zip(*found, strict=True):
            assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), rtol=1e-3), how


NORMED = [
    (0, 3),
    (1, 3),
    (2, 3),
    (0, 3, 4),
    (1, 3, 1),
    (2, 3, 0),
    (0, 3, 0),
    (0, 3, 4, 4),
    (1, 3, 0, 4),
    (2, 0, 4),
    (1, 3, 2),
]


@pytest.mark.parametrize("shape", NORMED)
def test_norms(shape):
    c = shape[1]
    statistics = f"torch.zeros({c}), torch.ones({c}), t({c}), t({c})"
    agree(f"F.batch_norm(t{shape}, {statistics}, training=True)")
    agree(f"F.batch_norm(t{shape}, {statistics})")
    agree(f"F.batch_norm(t{shape}, None, None, training=True)")
    agree(f"[s := (torch.zeros({c}), torch.ones({c})), F.batch_norm(t{shape}, *s, training=True), torch.cat(s)][2]")
    if len(shape) > 2:
        agree(f"F.instance_norm(t{shape})")
    for groups in ("1", "3", "-1", "2"):
        agree(f"F.group_norm(t{shape}, {groups})")
    agree(f"F.layer_norm(t{shape}, {shape[1:]}, t{shape[1:]}, t{shape[1:]})")
    agree(f"F.rms_norm(t{shape}, {shape[1:]}, t{shape[1:]})")
    agree(f"F.softmax(t{shape}, 1)")
    agree(f"F.log_softmax(t{shape}, -1)")


@pytest.mark.parametrize(
    "text",
    [
        "F.cross_entropy(t(0, 3), torch.zeros(0, dtype=long))", "F.cross_entropy(t(2, 0), torch.zeros(2, dtype=long))",
        "F.cross_entropy(t(2, 0), torch.full((2,), -100))", "F.cross_entropy(t(2, 3), torch.tensor([1, 3]))",
        "F.cross_entropy(t(2, 3), torch.tensor([1, -1]))", "F.nll_loss(t(2, 3), torch.tensor([1, -1]))",
        "F.cross_entropy(t(2, 3), torch.tensor([1, 2]), weight=torch.ones(4))",
        "F.cross_entropy(t(2, 3), torch.tensor([1, 3]), ignore_index=3)",
        "F.embedding(torch.tensor([3]), t(3, 2))", "F.embedding(torch.tensor([-1]), t(3, 2))",
        "F.embedding(torch.zeros(0, dtype=long), t(0, 2))", "F.embedding(torch.tensor([1]), t(3, 2), padding_idx=3)",
        "F.embedding(torch.tensor([1]), t(3, 2), padding_idx=-1)", "F.embedding(torch.tensor([2, 1]), t(3, 0))",
        "F.linear(t(2, 0), t(3, 0), t(3))", "F.linear(t(0, 2), t(3, 2), t(3))", "F.linear(t(2, 2), t(0, 2))",
        "F.linear(t(2, 3), t(4, 2))", "t(2, 0) @ t(0, 3)", "t(0, 2) @ t(2, 3)", "t(3, 2, 0) @ t(3, 0, 2)",
        "F.unfold(t(0, 2, 3, 3), 2)", "F.unfold(t(1, 2, 3, 3), 5)", "F.unfold(t(1, 2, 3, 3), 0)",
        "F.unfold(t(1, 2, 3, 3), 2, dilation=0)", "F.fold(t(1, 8, 4), (3, 3), 2)", "F.fold(t(1, 8, 4), (3, 3), 0)",
        "F.interpolate(t(1, 2, 3, 3), size=(0, 3))", "F.interpolate(t(1, 2, 0, 3), size=(2, 3))",
        "F.interpolate(t(0, 2, 3, 3), size=(2, 3), mode='bilinear')", "F.interpolate(t(1, 2, 3, 3), scale_factor=-1.0)",
        "torch.arange(6.0).as_strided((3,), (3,))", "torch.arange(6.0)[2:].as_strided((2,), (1,), 7)",
        "torch.arange(6.0)[2:].as_strided((6,), (1,), 0)", "torch.arange(6.0).as_strided((0,), (9,), 99)",
        "torch.arange(6.0).as_strided((2,), (2**62,))", "torch.arange(6.0).as_strided((3,), (2**62,))",
        "torch.arange(6.0).as_strided((-1,), (1,))", "torch.arange(6.0).as_strided((1,), (1,), -1)",
        "torch.nn.LSTM(3, 4)(torch.zeros(0, 2, 3))[0]", "torch.nn.GRU(3, 4)(torch.zeros(0, 2, 3))[0]",
        "torch.nn.LSTM(3, 4)(torch.zeros(2, 0, 3))[0].sum()", "torch.nn.GRU(3, 4)(torch.zeros(2, 0, 3))[0].sum()",
        "torch.nn.LSTM(3, 0)", "torch.nn.GRU(0, 3)", "torch.nn.RNN(3, 0)",
        "torch.nn.GRU(3, 4)(torch.zeros(2, 2, 3), torch.zeros(1, 3, 4))",
        "torch.nn.LSTM(3, 4)(torch.zeros(2, 2, 3), (torch.zeros(1, 3, 4), torch.zeros(1, 3, 4)))",
        "torch.bincount(torch.tensor([1, -1]))", "torch.bincount(torch.zeros(0, dtype=long))",
        "torch.bincount(torch.tensor([1, 2]), torch.ones(3))", "torch.bincount(torch.tensor([1]), minlength=-1)",
        "t(3, 2).gather(0, torch.tensor([[3, 0]]))", "t(3, 2).index_select(0, torch.tensor([3]))",
        "t(3, 2).scatter(0, torch.tensor([[3, 0]]), 1.0)", "t(3, 2)[torch.tensor([3])]",
        "t(3, 2).take(torch.tensor([6]))",
        "F.one_hot(torch.tensor([3]), 2)",
    ],
)  # fmt: skip
def test_indices_and_empty_sizes(text):
    agree(text)


@pytest.mark.parametrize("mask", ["None", "torch.zeros(2, 2, 3, 3)", "torch.zeros(4, 3)", "torch.zeros(3, 1)",
    "torch.zeros(1, 1, 1, 3, 3)", "torch.zeros(3, 3, dtype=torch.bool)", "torch.ones(0, 3)"])  # fmt: skip
def test_attention(mask):
    call = "F.scaled_dot_product_attention(t{}, t{}, t{}, attn_mask={})"
    for q, k, v in (
        ((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)), ((1, 2, 0, 4), (1, 2, 3, 4), (1, 2, 3, 4)),
        ((1, 2, 3, 4), (1, 2, 0, 4), (1, 2, 0, 4)), ((1, 2, 3, 0), (1, 2, 3, 0), (1, 2, 3, 4)),
        ((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 0)), ((0, 2, 3, 4), (0, 2, 3, 4), (0, 2, 3, 4)),
        ((1, 2, 3, 4), (1, 3, 3, 4), (1, 3, 3, 4)), ((3, 4), (3, 4), (3, 5)),
    ):  # fmt: skip
        agree(call.format(q, k, v, mask if k[-2] else None))  # no key, no look at the mask in PyTorch


OPTIMIZERS = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam"]
CHANGES = ["v[:1, :2].clone()", "torch.zeros(5, 4)", "v.reshape(-1).clone()", "v[:1].clone()", "v[:0].clone()",
    "v.t().clone()", "v.double()", "torch.zeros(3, 4, 1)"]  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("change", CHANGES)
def test_optimizer_state_of_another_shape(name, change):
    def step(module: Any) -> tuple[str, str]:
        p = module.nn.Parameter(module.ones(3, 4))
        optimizer = getattr(module.optim, name)([p], lr=0.1, **({"momentum": 0.9} if name == "SGD" else {}))
        p.grad = module.ones(3, 4)
        optimizer.step()
        for key, v in optimizer.state[p].items():
            if module.is_tensor(v) and v.ndim:
                optimizer.state[p][key] = eval(change, {"v": v, "torch": module})
        before = p.detach().clone()
        try:
            optimizer.step()
        except (RuntimeError, ValueError) as error:
            assert bool((p.detach() == before).all()) or module is torch
            return type(error).__name__, str(error).splitlines()[0]
        return "stepped", ""

    ours, theirs = step(rushlight), step(torch)
    assert ours[0] == theirs[0] or "double" in change, (ours, theirs)
    if "double" not in change:
        assert ours == theirs


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (0, 0), (2, 0, 3), (2, 3, 0), (0,)])
def test_cross_entropy_of_no_probabilities(shape, smoothing, reduction):
    options = f"reduction={reduction!r}, label_smoothing={smoothing}"
    agree(f"F.cross_entropy(torch.ones({shape}), torch.ones({shape}), {options})")


@pytest.mark.parametrize("text", [
    "F.conv2d(t(0, 1, 1, 1), t(2, 1, 3, 3), t(2), padding=1)", "F.conv1d(t(0, 1, 1), t(1, 1, 1))",
    "F.conv_transpose1d(t(0, 1, 1), t(1, 1, 3))", "F.conv_transpose1d(t(0, 2, 8), t(2, 1, 3), t(1))",
    "F.max_pool2d(t(0, 1, 2, 2), 2)", "F.avg_pool2d(t(0, 2, 2, 2), 2)",
    "F.batch_norm(t(0, 2, 1, 1), None, None, t(2), t(2), True)",
])  # fmt: skip
def test_no_images_of_one_pixel_or_channel(text):
    kind, got = outcome(rushlight, text)
    assert (kind, [v if v is None else v.shape for v in got]) == (
        "value",
        [v if v is None else v.shape for v in outcome(torch, text)[1]],
    )


@pytest.mark.parametrize("text", [
    "torch.zeros(3, 2).index_add_(0, torch.tensor([-1]), torch.ones(1, 2))",
    "torch.zeros(3, 2).index_copy(0, torch.tensor([-1]), torch.ones(1, 2))",
    "torch.zeros(3).index_add(0, torch.tensor([-1]), torch.ones(1))",
    "torch.zeros(3, 2).scatter(5, torch.tensor([[0, 0]]), 1)", "torch.zeros(3).scatter_(-2, torch.tensor([0]), 1)",
])  # fmt: skip
def test_positions_and_dimensions_that_do_not_exist(text):
    assert outcome(rushlight, text)[0] == "IndexError"
    assert outcome(torch, text)[0] in ("IndexError", "RuntimeError")


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
@pytest.mark.parametrize("name", ["any", "all"])
def test_any_and_all_over_no_dimension(name, dtype):
    for dim in ((), []):
        ours, theirs = (getattr(m, name)(m.tensor([[2, 0]]).to(getattr(m, dtype)), dim=dim) for m in (rushlight, torch))
        assert (str(ours.dtype), ours.tolist()) == (str(theirs.dtype), theirs.tolist())


@pytest.mark.parametrize("number", [0.0, -2.0, math.inf, math.nan])
def test_prod_of_one_number(number):
    def gradient(m, **given):
        x = m.tensor(number, requires_grad=True)
        m.prod(x, **given).backward()
        return x.grad.item()

    for given in ({}, {"dim": 0}, {"dim": -1, "keepdim": True}):
        assert gradient(rushlight, **given) == gradient(torch, **given) == 1


OF_ONE_NUMBER = [
    f"torch.{name}(torch.tensor(2.), {{}})"
    for name in ("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "flatten", "softmax", "sum", "median", "sort")
] + ["torch.quantile(torch.tensor(2.), 0.5, dim={})", "torch.tensor(2.).unflatten({}, (1,))"]


@pytest.mark.parametrize("text", OF_ONE_NUMBER)
@pytest.mark.parametrize("dim", [0, -1, 1, -2, 5])
def test_dimensions_of_one_number(text, dim):
    agree(text.format(dim))


@pytest.mark.parametrize(
    "text",
    [
        "torch.trapezoid(t(2, 0))", "torch.trapezoid(t(0, 2), dim=0)", "torch.trapezoid(t(0, 2), t(0), dim=0)",
        "F.pixel_shuffle(t(1, 4, 2, 2), 0)", "F.pixel_unshuffle(t(1, 4, 2, 2), 0)",
        "F.pixel_shuffle(t(1, 4, 2, 2), -2)", "F.channel_shuffle(t(1, 4, 2, 2), 0)",
        "F.channel_shuffle(t(1, 4, 2, 2), 3)",
    ],
)  # fmt: skip
def test_factors_and_lengths_of_nothing(text):
    agree(text)


def test_a_mean_of_complex_numbers_that_are_scattered():
    def run(module: Any) -> Any:
        x = module.tensor([1j, 2.0])
        return x.scatter_reduce(0, module.tensor([0, 0]), module.tensor([1.0, 2j]), "mean").numpy()

    np.testing.assert_allclose(run(rushlight), run(torch), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_attention_with_a_mask_that_learns_and_hides_a_row(dtype, dropout):
    """The row and all gradients were NaN; half types were rounded after each op."""

    def run(module: Any, dtype: str) -> list[Any]:
        kind = getattr(module, dtype)
        q, k = ((module.arange(24.0).reshape(1, 4, 6) * s).sin().to(kind).requires_grad_() for s in (0.7, 0.3))
        mask = (module.arange(16.0).reshape(4, 4) * 0.9).cos()
        mask[1] = -math.inf
        mask = mask.to(kind).requires_grad_()
        out = module.nn.functional.scaled_dot_product_attention(q, k, k, mask, dropout_p=dropout, scale=3.0)
        if dropout:
            return [(out[:, 1] == 0).double().numpy(), module.isnan(out).double().numpy()]
        out.sum().backward()
        return [z.detach().double().numpy() for z in (out, q.grad, k.grad, mask.grad)]

    for exact, theirs, ours in zip(run(torch, "float64"), run(torch, dtype), run(rushlight, dtype), strict=True):
        assert np.abs(ours - exact).max() <= 1.5 * np.abs(theirs - exact).max() + 1e-5
