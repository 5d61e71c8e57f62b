"""Every in-place method that both have: value, gradients and errors are PyTorch's."""

from __future__ import annotations

import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")

ARGUMENTS = {
    "addcmul_": lambda t, o: (o, o),
    "addcdiv_": lambda t, o: (o, o + 3),
    "addmm_": lambda t, o: (o[:, :2], o[:2]),
    "clamp_": lambda t, o: (-0.5, 0.5),
    "clip_": lambda t, o: (-0.5, 0.5),
    "clamp_min_": lambda t, o: (0.1,),
    "clamp_max_": lambda t, o: (0.1,),
    "lerp_": lambda t, o: (o, 0.3),
    "cumsum_": lambda t, o: (0,),
    "cumprod_": lambda t, o: (1,),
    "renorm_": lambda t, o: (2.0, 0, 0.5),
    "scatter_": lambda t, o: (0, t.tensor([[0, 1, 2, 0]]), o[:1]),
    "scatter_add_": lambda t, o: (0, t.tensor([[0, 1, 2, 0]]), o[:1]),
    "index_fill_": lambda t, o: (0, t.tensor([0, 2]), 0.5),
    "index_copy_": lambda t, o: (0, t.tensor([0, 2]), o[:2]),
    "index_add_": lambda t, o: (0, t.tensor([0, 0]), o[:2]),
    "index_put_": lambda t, o: ((t.tensor([0, 2]),), o[0]),
    "masked_fill_": lambda t, o: (o > 0, 0.5),
    "masked_scatter_": lambda t, o: (o > 0, o * 2),
    "put_": lambda t, o: (t.tensor([0, 3]), o[0, :2]),
    "fill_diagonal_": lambda t, o: (0.5,),
    "tril_": lambda t, o: (),
    "triu_": lambda t, o: (),
    "logit_": lambda t, o: (0.1,),
    "pow_": lambda t, o: (2,),
    "float_power_": lambda t, o: (2.0,),
    "fill_": lambda t, o: (0.3,),
    "copy_": lambda t, o: (o,),
    **{
        f"scatter_reduce_ {how}": lambda t, o, how=how: (0, t.tensor([[0, 1, 2, 0]]), o[:1], how)
        for how in ("sum", "prod", "mean", "amax", "amin")
    },
    **{
        name: lambda t, o: (o,)
        for name in (
            "add_", "sub_", "mul_", "div_", "subtract_", "multiply_", "divide_", "true_divide_", "remainder_", "fmod_",
            "atan2_", "arctan2_", "hypot_", "copysign_", "xlogy_", "logaddexp_",
        )
    },
}  # fmt: skip
PLAIN = (
    "abs_", "absolute_", "acos_", "arccos_", "asin_", "arcsin_", "atan_", "arctan_", "ceil_", "cos_", "cosh_",
    "deg2rad_", "digamma_", "erf_", "erfc_", "erfinv_", "exp_", "exp2_", "expm1_", "fix_", "floor_", "frac_",
    "lgamma_", "log_",
    "log10_", "log1p_", "log2_", "nan_to_num_", "neg_", "negative_", "rad2deg_", "reciprocal_", "relu_", "round_",
    "rsqrt_", "sigmoid_", "sign_", "sin_", "sinc_", "sinh_", "sqrt_", "square_", "tan_", "tanh_", "trunc_", "zero_",
)  # fmt: skip
NAMES = [n for n in (*PLAIN, *ARGUMENTS) if hasattr(torch.Tensor, n.split()[0]) and hasattr(rl.Tensor, n.split()[0])]


def run(t, name, needs, target, dtype="float64"):
    """The value and the gradients of one in-place call; `needs`: whether target and other operand require grad."""
    d = getattr(t, dtype)
    g = t.arange(12.0, dtype=t.float64).reshape(3, 4) * 0.07 + 0.08
    x = (g * t.tensor([1.0, -1.0, 1.0, 1.0], dtype=t.float64) if name.split()[0] not in POSITIVE else g).to(d)
    o = (g.flip(0) * 0.9 + 0.05).to(d)
    x.requires_grad_(needs[0])
    o.requires_grad_(needs[1])
    base = x if target == "leaf" else x * 1
    y = {"view": lambda: base[:, :], "column": lambda: base.t().t(), "several": lambda: base.split(3)[0]}.get(
        target, lambda: base
    )()
    args = ARGUMENTS[name](t, o * 1) if name in ARGUMENTS else ()
    out = getattr(y, name.split()[0])(*args)
    weights = t.arange(12.0, dtype=t.float64).reshape(3, 4) + 0.3
    if y.requires_grad:
        ((y * weights).sum() + base.sum()).backward()
    return out is y, y, base, x.grad, o.grad


POSITIVE = ("log_", "log2_", "log10_", "log1p_", "sqrt_", "rsqrt_", "logit_", "pow_", "float_power_", "digamma_",
            "lgamma_", "xlogy_", "hypot_")  # fmt: skip


@pytest.mark.parametrize("target", ["result", "view", "column", "leaf", "several"])
@pytest.mark.parametrize("needs", [(True, False), (True, True), (False, True)], ids=["target", "both", "other"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients(name, needs, target):
    if target in ("several", "leaf") and not needs[0]:
        pytest.skip("nothing to refuse: the target does not require grad")
    want, got = (outcome(lambda t: run(t, name, needs, target), t) for t in (torch, rl))
    if name in ("put_", "masked_scatter_", "fill_diagonal_") and target in ("leaf", "several"):
        assert want[0] == got[0] == "RuntimeError"  # these write through a view, and name it
        return
    assert got == want, f"PyTorch {want!r}, here {got!r}"


FITTING = [n for n in NAMES if n in PLAIN or n in ("copysign_", "hypot_", "xlogy_", "square_")]


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("dtype", ["int64", "bool", "float32", "float16"])
def test_results_that_do_not_fit(name, dtype):
    def program(t):
        return str(run(t, name, (False, False), "result", dtype)[1].dtype)

    want, got = outcome(program, torch), outcome(program, rl)
    if want[0] in ("RuntimeError", "NotImplementedError"):
        assert got[0] == want[0], f"PyTorch {want!r}, here {got!r}"
    else:
        assert got == want, f"PyTorch {want!r}, here {got!r}"


IN_PLACE = {
    "relu": (), "relu6": (), "hardtanh": (-0.5, 0.4), "leaky_relu": (0.3,), "threshold": (0.2, 0.1), "elu": (0.3,),
    "celu": (0.3,), "selu": (), "silu": (), "mish": (), "hardswish": (),
}  # fmt: skip
PARTS = {
    "all": lambda x: x,
    "flat": lambda x: x.view(-1) if x.is_contiguous() else x.reshape(-1),
    "row": lambda x: x[1:2],
    "transposed": lambda x: x.t(),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", [*NAMES, *(f"functional.{f}" for f in IN_PLACE)])
def test_second_derivatives_through_writes_to_views(name, part):
    def program(t):
        x = ((t.arange(12.0, dtype=t.float64) * 0.05 + 0.3).reshape(3, 4)).requires_grad_()
        o = (x.detach().flip(0) * 0.9 + 0.05).requires_grad_()
        y = x * x * 0.6 + 0.35
        v, w = PARTS[part](y), PARTS[part](o * o)
        if name.startswith("functional."):
            f = name.partition(".")[2]
            getattr(t.nn.functional, f)(v, *IN_PLACE[f], inplace=True)
        else:
            getattr(v, name.split()[0])(*(ARGUMENTS[name](t, w) if name in ARGUMENTS else ()))
        first = t.autograd.grad((v * v).sum() + y.sum(), [x, o], create_graph=True, allow_unused=True)
        total = sum((g * g).sum() for g in first if g is not None)
        return first, t.autograd.grad(total, [x, o], allow_unused=True)

    want, got = outcome(program, torch), outcome(program, rl)
    if want[0] in ("RuntimeError", "IndexError"):  # arguments that do not fit this part
        assert got[0] in ("RuntimeError", "IndexError"), f"PyTorch {want!r}, here {got!r}"
    else:
        assert got == want, f"PyTorch {want!r}, here {got!r}"


HOOKED = {
    "view": lambda y: (y[:, :], y),
    "view of a view": lambda y: (y.unsqueeze(0)[0], y),
    "base": lambda y: (y, y[:, :]),
    "result": lambda y: (y, y),
}


@pytest.mark.parametrize("where", HOOKED)
@pytest.mark.parametrize("name", NAMES)
def test_hooks_from_before_a_write_see_what_pytorchs_see(name, where):
    def program(t):
        seen = []
        x = (t.arange(12.0, dtype=t.float64) * 0.05 + 0.3).reshape(3, 4).requires_grad_()
        o = x.detach().flip(0) * 0.9 + 0.05
        y = x * 0.6 + 0.1
        v, other = HOOKED[where](y)
        v.register_hook(lambda g: (seen.append(g * 1), g * 2)[1])
        getattr(v, name.split()[0])(*(ARGUMENTS[name](t, o) if name in ARGUMENTS else ()))
        (v.sum() + 2 * other.sum()).backward()
        return x.grad, seen

    want, got = outcome(program, torch), outcome(program, rl)
    assert got == want, f"PyTorch {want!r}, here {got!r}"


@pytest.mark.parametrize("target", ["result", "view"])
@pytest.mark.parametrize("name", ["add_", "sub_", "mul_", "div_", "pow_", "atan2_", "copysign_", "lerp_", "copy_"])
def test_a_tensor_that_is_its_own_operand(name, target):
    def program(t):
        seen = []
        x = t.tensor([0.3, 0.6, 0.9], dtype=t.float64, requires_grad=True)
        y = x * 1
        v = y.unsqueeze(0) if target == "view" else y
        v.register_hook(lambda g: (seen.append(g * 1), g * 2)[1])
        getattr(v, name)(v, *((0.5,) if name == "lerp_" else ()))
        v.sum().backward()
        return x.grad, seen

    want, got = outcome(program, torch), outcome(program, rl)
    assert got == want, f"PyTorch {want!r}, here {got!r}"


@pytest.mark.parametrize("mode", ["floor", "trunc"])
def test_rounded_division_of_a_view_passes_the_hooks_by(mode):
    def program(t):
        seen = []
        x = t.tensor([0.3, 0.6, 0.9], requires_grad=True)
        v = (x * 1).unsqueeze(0)
        v.register_hook(seen.append)
        v.div_(0.5, rounding_mode=mode)
        v.sum().backward()
        return x.grad, seen

    assert outcome(program, rl) == outcome(program, torch)


RESHAPED = {
    "transpose_": (0, 1),
    "unsqueeze_": (0,),
    "squeeze_": (),
    "t_": (),
    "swapaxes_": (0, 1),
    "swapdims_": (0, 1),
}


@pytest.mark.parametrize("name", RESHAPED)
@pytest.mark.parametrize("target", ["leaf", "view", "several", "no_grad", "saved"])
def test_changes_of_shape_in_place_are_refused_where_writes_are(name, target):
    def program(t):
        x = t.ones(2, 3, requires_grad=True)
        if target == "no_grad":
            with t.no_grad():
                y = x[:]
        else:
            y = {"leaf": lambda: x, "view": lambda: x[:], "several": lambda: x.split(2)[0], "saved": x.exp}[target]()
        getattr(y, name)(*RESHAPED[name])
        y.sum().backward()

    want, got = outcome(program, torch), outcome(program, rl)
    assert want[0] == "RuntimeError"
    assert got == want


WRITTEN = {
    "copy_": lambda t, x, y: x.copy_(y), "lerp_": lambda t, x, y: x.lerp_(y, 0.5),
    "clamp_": lambda t, x, y: x.clamp_(y),
    "addcmul_": lambda t, x, y: x.addcmul_(y, y), "add_": lambda t, x, y: x.add_(y),
    "div_": lambda t, x, y: x.div_(y, rounding_mode="floor"), "[...]": lambda t, x, y: x.__setitem__(..., y),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("shapes", [((3, 4), (1, 3, 4)), ((), (1,)), ((1,), (1, 1)), ((2, 3), (3,)), ((3,), (2, 3))])
def test_what_is_written_has_no_more_dimensions_than_the_target(name, shapes):
    def program(t):
        x, y = (t.ones(s) for s in shapes)
        WRITTEN[name](t, x, y)
        return x

    want, got = outcome(program, torch), outcome(program, rl)
    assert (got == want) if want[0] == "Tensor" else got[0] == want[0], f"PyTorch {want!r}, here {got!r}"


@pytest.mark.parametrize("write", [lambda x: x.fill_(2.0), lambda x: x.zero_()])
@pytest.mark.parametrize("view", [lambda x: x.expand(2, 4).unfold(1, 2, 1), lambda x: x.expand(2, 4).unfold(0, 1, 1)])
def test_a_number_is_written_to_elements_that_overlap(view, write):
    def program(t):
        x = t.ones(1, 4)
        write(view(x))
        return x

    assert outcome(program, rl) == outcome(program, torch)
