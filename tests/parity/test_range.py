"""Values and gradients at the ends of a dtype's range are PyTorch's: no square on the way that it cannot hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rushlight
import rushlight.nn.functional

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")

ONE = (
    "reciprocal", "rsqrt", "sqrt", "log", "log2", "log10", "log1p", "exp", "tanh", "sigmoid", "atan", "asin", "acos",
    "asinh", "acosh", "atanh", "sinh", "cosh", "erf", "erfinv", "square", "cos", "tan", "lgamma", "expm1", "exp2",
)  # fmt: skip
TWO = ("div", "atan2", "hypot", "pow", "mul", "logaddexp", "xlogy", "copysign")
SCALES = {"float16": (1e-4, 1e-2, 1, 100, 1e4), "float32": (1e-25, 1e-10, 1, 1e10, 1e25), "float64": (1e-200, 1, 1e200)}
CLOSE = {"float16": (0.02, 1e-6), "float32": (1e-4, 1e-37), "float64": (1e-9, 1e-300)}


@pytest.mark.parametrize("dtype", SCALES)
@pytest.mark.parametrize("name", ONE + TWO)
def test_elementwise_ops_and_their_gradients(name: str, dtype: str) -> None:
    arity = 1 if name in ONE else 2
    rng = np.random.default_rng(0)
    numbers = [(np.abs(rng.standard_normal(64)) + 0.1) * scale for scale in SCALES[dtype]]
    first = np.concatenate([x for x in numbers for _ in numbers]).astype(dtype)
    second = np.concatenate([y for _ in numbers for y in numbers]).astype(dtype)
    xs = (first, second)[:arity]

    def run(framework: Any) -> list[Any]:
        ts = [framework.tensor(x).requires_grad_() for x in xs]
        out = getattr(framework, name)(*ts)
        return [out.detach(), *framework.autograd.grad(out, ts, framework.ones_like(out))]

    for theirs, ours in zip(run(torch), run(rushlight), strict=True):
        np.testing.assert_allclose(ours.double().numpy(), theirs.double().numpy(), *CLOSE[dtype])


HALF: dict[str, Callable[[Any, Any, Any], Any]] = {
    "std": lambda t, x, y: x.std(1),
    "std of all": lambda t, x, y: x.std(),
    "std_mean": lambda t, x, y: t.std_mean(x, 1)[0],
    "norm": lambda t, x, y: x.norm(dim=1),
    "normalize": lambda t, x, y: t.nn.functional.normalize(x),
    "cosine_similarity": lambda t, x, y: t.nn.functional.cosine_similarity(x, y),
    "pairwise_distance": lambda t, x, y: t.nn.functional.pairwise_distance(x, y),
    "batch_norm": lambda t, x, y: t.nn.functional.batch_norm(x, None, None, training=True),
    "batch_norm, affine": lambda t, x, y: t.nn.functional.batch_norm(x, None, None, y[0, :, 0, 0], training=True),
    "instance_norm": lambda t, x, y: t.nn.functional.instance_norm(x),
    "group_norm": lambda t, x, y: t.nn.functional.group_norm(x, 2),
    "layer_norm": lambda t, x, y: t.nn.functional.layer_norm(x, (6,)),
    "rms_norm": lambda t, x, y: t.nn.functional.rms_norm(x, (6,)),
    "renorm": lambda t, x, y: t.renorm(x, 2, 0, 5.0),
    "lerp": lambda t, x, y: t.lerp(x * 20, y * 20, 0.5),
    "avg_pool2d": lambda t, x, y: t.nn.functional.avg_pool2d(x * 20, 2),
    "mean": lambda t, x, y: (x * 20).abs().mean(),
    "addmm": lambda t, x, y: t.addmm(y[0, 0], x[0, 0], y[0, 1], alpha=1e-3),
    "addmv": lambda t, x, y: t.addmv(y[0, 0, 0], x[0, 0], y[0, 1, 0], alpha=1e-3),
    "addr": lambda t, x, y: t.addr(y[0, 0], x[0, 0, 0], y[0, 1, 0], alpha=1e-3),
    "baddbmm": lambda t, x, y: t.baddbmm(y[0], x[0], y[1], alpha=1e-3),
    "addcdiv": lambda t, x, y: t.addcdiv(x, y * 50, y.abs() * 1e-4 + 1e-3, value=1e-3),
    "add": lambda t, x, y: t.add(x * 30, x * 30 + y, alpha=-2),
    "sub in place": lambda t, x, y: (x * 20).sub_(x * 20 + y, alpha=2),
    "huber_loss": lambda t, x, y: t.nn.functional.huber_loss(x * 20, -y * 20, delta=0.1),
    "smooth_l1_loss": lambda t, x, y: t.nn.functional.smooth_l1_loss(x * 20, -y * 20, beta=0.1),
}


@pytest.mark.parametrize("name", HALF)
def test_half_types_are_wide_where_they_are_squared(name: str) -> None:
    """Not further from the same in float64 than PyTorch is, but for a rounding or two."""
    rng = np.random.default_rng(0)
    a, b = ((rng.standard_normal((8, 4, 6, 6)) * 400).astype("float16") for _ in range(2))

    def run(framework: Any, dtype: str = "float16") -> list[Any]:
        x, y = framework.tensor(a.astype(dtype)).requires_grad_(), framework.tensor(b.astype(dtype))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = HALF[name](framework, x, y)
        weights = framework.tensor(np.linspace(0.5, 1.5, out.numel()).reshape(tuple(out.shape)))
        found = [out.detach(), *framework.autograd.grad((out.double() * weights).sum(), [x])]
        assert all(str(z.dtype) == f"torch.{dtype}" for z in found)
        return [z.double().numpy() for z in found]

    for exact, theirs, ours in zip(run(torch, "float64"), run(torch), run(rushlight), strict=True):
        rounding = 2 * np.finfo(np.float16).eps * np.abs(exact).max()
        assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + rounding


@pytest.mark.parametrize("half", [False, True])
def test_the_running_variance_of_half_images(half: bool) -> None:
    images = (np.random.default_rng(0).standard_normal((8, 4, 6, 6)) * 200).astype("float16")

    def run(framework: Any) -> list[Any]:
        norm = framework.nn.BatchNorm2d(4)
        norm = norm.half() if half else norm
        x = framework.tensor(images).requires_grad_()
        out = norm(x)
        (again,) = framework.autograd.grad((out.double() ** 3).sum(), [x], create_graph=True)
        (out.double() ** 3).sum().backward()
        return [out, norm.running_var, norm.weight.grad, x.grad, again]

    for theirs, ours in zip(run(torch), run(rushlight), strict=True):
        assert str(theirs.dtype) == str(ours.dtype)
        want = theirs.detach().double().numpy()
        np.testing.assert_allclose(ours.detach().double().numpy(), want, rtol=0.02, atol=0.02 * np.abs(want).max())


def test_logsumexp_of_complex_numbers_has_the_principal_value() -> None:
    x = np.array([2 + 7j, 1 - 9j, -3 + 4j], np.complex64)
    for part in (x[:1], x):
        ours = rushlight.logsumexp(rushlight.tensor(part), 0).numpy()
        np.testing.assert_allclose(ours, torch.logsumexp(torch.tensor(part), 0).numpy(), rtol=1e-5)


@pytest.mark.parametrize("value", [1, 0.5])
@pytest.mark.parametrize(
    "dtypes", [("float16", "int64", "float16"), ("float32", "bool", "int32"), ("int32", "int64", "uint8")]
)
def test_addcmul_of_mixed_dtypes(dtypes: tuple[str, ...], value: float) -> None:
    if dtypes[0] == "int32" and value != 1:
        pytest.skip("a float factor of integers is refused")
    for name in ("addcmul", "addcdiv")[: 1 if dtypes[0] == "int32" or dtypes[1] == "bool" else 2]:
        given = [np.arange(1, 7).reshape(2, 3).astype(d) for d in dtypes]
        theirs = getattr(torch, name)(*map(torch.tensor, given), value=value)
        ours = getattr(rushlight, name)(*map(rushlight.tensor, given), value=value)
        assert str(theirs.dtype) == str(ours.dtype)
        np.testing.assert_allclose(ours.double().numpy(), theirs.double().numpy(), rtol=1e-3)


MIXED: dict[str, Any] = {
    "add": lambda t, x, y: t.add(x, y, alpha=2),
    "sub": lambda t, x, y: t.sub(x, y, alpha=2),
    "add_": lambda t, x, y: x.add_(y, alpha=2),
    "sub_": lambda t, x, y: x.sub_(y, alpha=2),
    "addcmul": lambda t, x, y: t.addcmul(x, x, y) if hasattr(y, "shape") else t.addcmul(x, x, x, value=y),
    "addcdiv": lambda t, x, y: t.addcdiv(x, x, y) if hasattr(y, "shape") else t.addcdiv(x, x, x, value=y),
    "lerp": lambda t, x, y: t.lerp(x, x * 2, y),
    "lerp to": lambda t, x, y: t.lerp(x, y, 0.5),
    "addr": lambda t, x, y: t.addr(t.outer(x, x), x, x, alpha=2 if hasattr(y, "shape") else y),
    "cosine_similarity": lambda t, x, y: t.nn.functional.cosine_similarity(x, y, 0),
    "sinc": lambda t, x, y: t.sinc(x),
}  # fmt: skip
BESIDE: dict[str, Any] = {
    "half": lambda t: t.tensor([0.5, 2.0, -3.0], dtype=t.float16),
    "float32": lambda t: t.tensor([0.5, 2.0, -3.0]),
    "int64": lambda t: t.tensor([5, 2, -3]),
    "bool": lambda t: t.tensor([True, False, True]),
    "complex64": lambda t: t.tensor([1j, 2.0, 3.0 - 1j]),
    "float32 without dimensions": lambda t: t.tensor(0.25),
    "float": lambda t: 0.3,
    "int": lambda t: 3,
    "bool number": lambda t: True,
    "complex": lambda t: 1j,
    "too large": lambda t: 1e39,
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int64"])
@pytest.mark.parametrize("name", MIXED)
def test_what_stands_beside_a_half_type(name: str, dtype: str, beside: str) -> None:
    """What is computed widely takes the dtype that PyTorch's takes, or is refused as there."""

    def run(framework: Any) -> Any:
        x = framework.tensor([1.0, -2.0, 7.0]).to(getattr(framework, dtype))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "ComplexHalf support is experimental")
            return MIXED[name](framework, x, BESIDE[beside](framework))

    try:
        theirs = run(torch)
    except (RuntimeError, TypeError, AttributeError) as error:
        with pytest.raises((RuntimeError, TypeError, AttributeError) if isinstance(error, TypeError) else type(error)):
            run(rushlight)
        return
    ours = run(rushlight)
    want = str(theirs.dtype).replace("complex32", "complex64")  # there is no complex number of half types
    assert str(ours.dtype) == want
    rounding = 1e-2 if dtype == "bfloat16" else 2e-3
    kind = "complex128" if "complex" in want else "float64"
    got, right = (z.to(getattr(t, kind)).numpy() for t, z in ((rushlight, ours), (torch, theirs)))
    np.testing.assert_allclose(got, right, rtol=rounding, atol=rounding)


TOGETHER = {
    "addr": [("float32", "uint8", "uint8"), ("float32", "int32", "int32"), ("float32", "bool", "bool"),
             ("float64", "float32", "float32"), ("float32", "bfloat16", "bfloat16"), ("float32", "int64", "int64")],
    "addcdiv": [("float32", "float16", "float16"), ("float32", "bfloat16", "bfloat16"),
                ("float64", "float32", "float32"), ("complex64", "float32", "float32"),
                ("float32", "int64", "float16")],
    "addcmul": [("float32", "float16", "float16"), ("float32", "uint8", "uint8"), ("float64", "float32", "float32")],
    "lerp": [("uint8", "uint8", "float32"), ("int8", "int8", "float32"), ("int64", "int64", "float64")],
}  # fmt: skip


@pytest.mark.parametrize("alone", [(), (1,), (2,), (1, 2)])
@pytest.mark.parametrize(("name", "dtypes"), [(name, d) for name, all_ in TOGETHER.items() for d in all_])
def test_products_and_quotients_are_of_the_common_dtype(
    name: str, dtypes: tuple[str, ...], alone: tuple[int, ...]
) -> None:
    """They were computed in the dtype of their own two operands: 100 * 100 was 16 in uint8."""
    if name == "addr":
        alone = ()
    elif name == "lerp":
        alone = (2,)

    def run(module: Any) -> Any:
        values = ([200.0, 10.0], [100.0, 250.0], [0.25, 3.0])
        xs = [module.tensor(v).to(getattr(module, d)) for v, d in zip(values, dtypes, strict=True)]
        xs = [x[0] if i in alone else x for i, x in enumerate(xs)]
        out = getattr(module, name)(*xs, **({} if name == "lerp" else {"alpha" if name == "addr" else "value": 3}))
        return str(out.dtype), out.to(getattr(module, "complex128" if out.is_complex() else "float64")).numpy()

    (dtype, ours), (wanted, theirs) = run(rushlight), run(torch)
    assert dtype == wanted
    np.testing.assert_allclose(ours, theirs, rtol=1e-14 if dtype == "torch.float64" else 1e-6)


@pytest.mark.parametrize("sizes", [(500.0, 1000.0), (1500.0, 3000.0), (-6e4, 6e4)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Adam", {}), ("Adam", {"amsgrad": True}), ("AdamW", {}), ("AdamW", {"amsgrad": True}), ("RMSprop", {}),
        ("RMSprop", {"momentum": 0.9}), ("RMSprop", {"centered": True}), ("Adadelta", {"lr": 1.0}), ("Adagrad", {}),
        ("Adamax", {}), ("NAdam", {}), ("RAdam", {"lr": 1e-4}), ("SGD", {"lr": 1e-4, "momentum": 0.9}),
    ],
)  # fmt: skip
def test_optimizers_of_half_parameters(name: str, options: dict[str, Any], sizes: tuple[float, float]) -> None:
    """The square of a gradient that fits may not, nor a difference: the parameter stayed, or became NaN.

    Not further from the same in float64 than PyTorch is, which rounds after every operation.
    """

    def run(framework: Any, dtype: str = "float16") -> Any:
        p = framework.ones(3, dtype=getattr(framework, dtype)).requires_grad_()
        optimizer = getattr(framework.optim, name)([p], **{"lr": 0.01, **options})
        for k in range(8):
            p.grad = framework.full((3,), sizes[k % 2], dtype=getattr(framework, dtype))
            optimizer.step()
        return p.detach().double().numpy()

    exact, theirs, ours = run(torch, "float64"), run(torch), run(rushlight)
    assert np.abs(ours - exact).max() <= np.abs(theirs - exact).max() + 0.002 + 0.02 * np.abs(exact).max()


def test_a_vector_of_one_number_is_normalized_by_its_size() -> None:
    x = np.array([[3e20], [-3e20], [0.0]], "f")
    for eps in (1e-12, 0.5):
        ours, theirs = (m.nn.functional.normalize(m.tensor(x), dim=-1, eps=eps).numpy() for m in (rushlight, torch))
        np.testing.assert_array_equal(ours, theirs)
