"""Optimizers and schedulers against PyTorch's: the same updates to rounding, the same rates, the same saved state."""

import warnings

import numpy as np
import pytest

import rushlight_optim as optim
import rushlight_tensor as T
from rushlight_optim import lr_scheduler

torch = pytest.importorskip("torch")

SHAPES = [(4, 3), (3,), (), (2, 2, 2)]


def leaves(seed=0, dtype=np.float32):
    r = np.random.RandomState(seed)
    return [np.asarray(r.randn(*shape), dtype=dtype) for shape in SHAPES]


def run(cls, namespace, options, steps, dtype=np.float32):
    """The parameters after some steps with gradients that depend on them, and the optimizer."""
    params = [namespace.tensor(a.copy(), requires_grad=True) for a in leaves(dtype=dtype)]
    optimizer = cls(params, **options)
    targets = leaves(1, dtype)
    for step in range(steps):
        for i, (p, target) in enumerate(zip(params, targets, strict=True)):
            if step == 2 and i == 1:
                p.grad = None  # a parameter that was not used
            else:
                p.grad = namespace.tensor(np.asarray(np.sin(3 * (p.detach().numpy() - target)), dtype=dtype))
        optimizer.step()
    return params, optimizer


CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "maximize": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "decoupled_weight_decay": True, "weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.3}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.5}),
    ("RMSprop", {"lr": 0.01, "centered": True, "maximize": True}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2}),
    ("Adadelta", {"lr": 1.0}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1}),
    ("Adamax", {"lr": 0.01}),
    ("Adamax", {"lr": 0.01, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.01}),
    ("NAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 0.01}),
    ("RAdam", {"lr": 0.01}),
    ("RAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
]
IDS = [f"{name}-{'-'.join(o)}" for name, o in CASES]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_optimizer_gives_pytorchs_parameters(name, options, dtype):
    ours, _ = run(getattr(optim, name), T, options, 20, dtype)
    theirs, _ = run(getattr(torch.optim, name), torch, {**options, "foreach": False}, 20, dtype)
    for a, b in zip(ours, theirs, strict=True):
        rtol = 2e-5 if dtype is np.float32 else 1e-12
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_complex_parameters(name, options, dtype):  # the square in Adam's rule was that of the complex number
    def after(cls, namespace):
        real = [leaves(seed) for seed in (0, 1, 2, 3)]
        arrays = [np.asarray(a + 1j * b, dtype) for a, b in zip(real[0], real[1], strict=True)]
        params = [namespace.tensor(a, requires_grad=True) for a in arrays]
        params[0] = params[0].detach().T.requires_grad_()  # strided, and 0-d ones are among the others
        optimizer = cls(params, **options)
        for step in range(6):
            for p, a, b in zip(params, real[2], real[3], strict=True):
                g = np.asarray(np.cos(step * a) + 1j * b, dtype)
                p.grad = namespace.tensor(g.T.copy() if p is params[0] else g)
            optimizer.step()
        state = optimizer.state_dict()["state"]
        return [p.detach().numpy() for p in params], {i: {k: np.asarray(v) for k, v in s.items() if v is not None}
                                                      for i, s in state.items()}  # fmt: skip

    ours, own = after(getattr(optim, name), T)
    theirs, kept = after(getattr(torch.optim, name), torch)
    rtol = 2e-5 if dtype is np.complex64 else 1e-12
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol / 10)
    for i, state in kept.items():
        for k, v in state.items():
            assert own[i][k].dtype == v.dtype
            np.testing.assert_allclose(own[i][k], v, rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_state_dict_has_pytorchs_layout_and_loads_there_and_back(name, options):
    _, ours = run(getattr(optim, name), T, options, 5)
    _, theirs = run(getattr(torch.optim, name), torch, options, 5)
    a, b = ours.state_dict(), theirs.state_dict()
    assert a["param_groups"] == b["param_groups"]
    assert set(a["state"]) == set(b["state"])
    for key, state in b["state"].items():
        state = {k: v for k, v in state.items() if v is not None}
        assert set(a["state"][key]) == set(state)
        for k, v in state.items():
            assert tuple(a["state"][key][k].shape) == tuple(v.shape)
            assert repr(a["state"][key][k].dtype) == repr(v.dtype)
            np.testing.assert_allclose(a["state"][key][k].numpy(), v.numpy(), rtol=1e-5, atol=1e-7)
    state = {k: {n: T.tensor(v.numpy()) for n, v in s.items() if v is not None} for k, s in b["state"].items()}
    as_ours = {"state": state, "param_groups": b["param_groups"]}
    fresh = getattr(optim, name)([T.tensor(x, requires_grad=True) for x in leaves()], **options)
    fresh.load_state_dict(as_ours)
    for key, state in b["state"].items():
        for k, v in state.items():
            if v is not None:
                np.testing.assert_array_equal(fresh.state_dict()["state"][key][k].numpy(), v.numpy())


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_printed_form_is_pytorchs(name, options):
    ours = getattr(optim, name)([T.zeros(1, requires_grad=True)], **options)
    theirs = getattr(torch.optim, name)([torch.zeros(1, requires_grad=True)], **options)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SGD", {"lr": -0.1}), ("SGD", {"momentum": -1}), ("SGD", {"weight_decay": -1}), ("SGD", {"nesterov": True}),
        ("Adam", {"betas": (1.0, 0.9)}), ("Adam", {"betas": (0.1, 1)}), ("Adam", {"eps": -1}), ("Adam", {"lr": -1}),
        ("AdamW", {"weight_decay": -1}), ("RMSprop", {"alpha": -1}), ("RMSprop", {"momentum": -1}),
        ("Adagrad", {"lr_decay": -1}), ("Adagrad", {"initial_accumulator_value": -1}), ("Adadelta", {"rho": 2}),
        ("NAdam", {"momentum_decay": -1}), ("Adam", {"foreach": True, "fused": True}),
    ],
)  # fmt: skip
def test_bad_options_are_refused_with_pytorchs_words(name, arguments):
    with pytest.raises(Exception) as theirs:
        getattr(torch.optim, name)([torch.zeros(1, requires_grad=True)], **arguments)
    with pytest.raises(type(theirs.value)) as ours:
        getattr(optim, name)([T.zeros(1, requires_grad=True)], **arguments)
    assert str(ours.value) == str(theirs.value)


SCHEDULES = {
    "LambdaLR": lambda L, o: L.LambdaLR(o, lambda e: 0.9**e),
    "LambdaLR-per-group": lambda L, o: L.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (e + 1)]),
    "MultiplicativeLR": lambda L, o: L.MultiplicativeLR(o, lambda e: 0.95),
    "StepLR": lambda L, o: L.StepLR(o, 7, 0.3),
    "MultiStepLR": lambda L, o: L.MultiStepLR(o, [5, 5, 20, 40], 0.5),
    "ConstantLR": lambda L, o: L.ConstantLR(o, 0.25, 9),
    "LinearLR": lambda L, o: L.LinearLR(o, 0.1, 0.8, 30),
    "ExponentialLR": lambda L, o: L.ExponentialLR(o, 0.97),
    "CosineAnnealingLR": lambda L, o: L.CosineAnnealingLR(o, 13, 0.01),
    "CosineAnnealingWarmRestarts": lambda L, o: L.CosineAnnealingWarmRestarts(o, 6, 2, 0.01),
    "CosineAnnealingWarmRestarts-equal": lambda L, o: L.CosineAnnealingWarmRestarts(o, 8),
    "PolynomialLR": lambda L, o: L.PolynomialLR(o, 40, 1.7),
    "OneCycleLR": lambda L, o: L.OneCycleLR(o, 0.7, total_steps=61),
    "OneCycleLR-linear-three": lambda L, o: L.OneCycleLR(
        o, [0.7, 0.2], epochs=7, steps_per_epoch=10, anneal_strategy="linear", three_phase=True, div_factor=5.0
    ),
    "CyclicLR": lambda L, o: L.CyclicLR(o, 0.01, 0.5, step_size_up=8, step_size_down=5),
    "CyclicLR-triangular2": lambda L, o: L.CyclicLR(o, 0.01, 0.5, step_size_up=6, mode="triangular2"),
    "CyclicLR-exp": lambda L, o: L.CyclicLR(o, 0.01, 0.5, step_size_up=6, mode="exp_range", gamma=0.98),
    "SequentialLR": lambda L, o: L.SequentialLR(
        o, [L.LinearLR(o, 0.1, 1.0, 5), L.ExponentialLR(o, 0.9), L.CosineAnnealingLR(o, 10)], [5, 30]
    ),
    "SequentialLR-constant": lambda L, o: L.SequentialLR(o, [L.ConstantLR(o, 0.1, 20), L.StepLR(o, 4)], [20]),
    "ChainedScheduler": lambda L, o: L.ChainedScheduler([L.ConstantLR(o, 0.1, 5), L.ExponentialLR(o, 0.9)]),
}


def optimizer_with_two_groups(namespace, optim_namespace, kind):
    params = [namespace.zeros(1, requires_grad=True), namespace.zeros(2, requires_grad=True)]
    groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.05}]
    extra = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(optim_namespace, kind)(groups, lr=0.5, **extra)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_scheduler_gives_pytorchs_rates_for_60_steps(name, kind):
    ours = optimizer_with_two_groups(T, optim, kind)
    theirs = optimizer_with_two_groups(torch, torch.optim, kind)
    a, b = SCHEDULES[name](lr_scheduler, ours), SCHEDULES[name](torch.optim.lr_scheduler, theirs)
    for step in range(60):
        for x, y in zip(ours.param_groups, theirs.param_groups, strict=True):
            for key in ("lr", "momentum", "betas"):
                if key in y:
                    assert x[key] == pytest.approx(y[key], rel=1e-12, abs=1e-15), f"{key} at step {step}"
        assert a.get_last_lr() == pytest.approx(b.get_last_lr(), rel=1e-12, abs=1e-15)
        ours.step(), theirs.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SequentialLR calls PyTorch's own step(0), which it deprecates
            a.step(), b.step()
    assert set(a.state_dict()) == set(b.state_dict())


def test_reduce_on_plateau_follows_pytorch():
    metrics = [1.0, 0.9, 0.9, 0.9, 0.9, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6]
    for mode, threshold_mode in [("min", "rel"), ("max", "abs")]:
        rates = []
        for namespace, o, L in [(T, optim, lr_scheduler), (torch, torch.optim, torch.optim.lr_scheduler)]:
            optimizer = optimizer_with_two_groups(namespace, o, "SGD")
            scheduler = L.ReduceLROnPlateau(optimizer, mode, 0.5, 2, 1e-3, threshold_mode, 1, [0.02, 0.0])
            seen = []
            for m in metrics:
                scheduler.step(m)
                seen.append([g["lr"] for g in optimizer.param_groups])
            rates.append(seen)
        assert rates[0] == rates[1]


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "SequentialLR" and "lambda" not in n.lower()])
def test_scheduler_resumes_where_it_stopped(name):
    kept = optimizer_with_two_groups(T, optim, "SGD")
    a = SCHEDULES[name](lr_scheduler, kept)
    for _ in range(17):
        kept.step()
        a.step()
    resumed = optimizer_with_two_groups(T, optim, "SGD")
    b = SCHEDULES[name](lr_scheduler, resumed)
    resumed.load_state_dict(kept.state_dict())
    b.load_state_dict(a.state_dict())
    for _ in range(17):
        kept.step(), resumed.step()
        a.step(), b.step()
        assert [g["lr"] for g in kept.param_groups] == [g["lr"] for g in resumed.param_groups]
