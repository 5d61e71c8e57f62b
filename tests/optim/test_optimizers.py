"""Optimizers: they go down, they say what is wrong, they are saved and resumed, and a step is one op."""

import copy
import pickle

import numpy as np
import pytest

import rushlight_optim as optim
import rushlight_tensor as T
from rushlight_tensor.core import dispatch

ALL = {
    "SGD": {"lr": 0.1, "momentum": 0.5},
    "Adam": {"lr": 0.1},
    "AdamW": {"lr": 0.1},
    "RMSprop": {"lr": 0.05},
    "Adagrad": {"lr": 0.5},
    "Adadelta": {"lr": 20.0},
    "Adamax": {"lr": 0.1},
    "NAdam": {"lr": 0.1},
    "RAdam": {"lr": 0.3},
}


def make(name, params, **options):
    return getattr(optim, name)(params, **{**ALL[name], **options})


def with_gradients(params):
    for p in params:
        p.grad = 2 * (p.detach() - 3)
    return params


def leaves():
    return [T.tensor([1.0, -2.0], requires_grad=True), T.tensor([[5.0]], requires_grad=True)]


@pytest.mark.parametrize("name", ALL)
def test_it_finds_the_minimum_of_a_parabola(name):
    params = leaves()
    optimizer = make(name, params)
    for _ in range(300):
        with_gradients(params)
        optimizer.step()
    for p in params:
        np.testing.assert_allclose(p.detach().numpy(), 3.0, atol=0.1)


MORE = {"RMSprop": {"alpha": 0.5, "centered": True}, "Adam": {"amsgrad": True}, "AdamW": {"amsgrad": True}}


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_a_square_too_large_for_a_half_type_makes_no_nan(name, more):
    p = T.tensor([1.0, -2.0, 3.0], dtype=T.float16, requires_grad=True)
    optimizer = make(name, [p], **(MORE.get(name, {}) if more else {}))
    for _ in range(3):
        p.grad = T.tensor([2000.0, -900.0, 1e-3], dtype=T.float16)
        optimizer.step()
        assert not p.isnan().any(), p


@pytest.mark.parametrize("name", ALL)
def test_maximize_goes_the_other_way(name):
    up, down = leaves(), leaves()
    make(name, with_gradients(up), maximize=True).step()
    for p in with_gradients(down):
        p.grad = -p.grad
    make(name, down).step()
    for a, b in zip(up, down, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize("name", ALL)
def test_resuming_from_a_state_dict_continues_exactly(name):
    params = leaves()
    optimizer = make(name, params)
    for _ in range(3):
        with_gradients(params)
        optimizer.step()
    others = [p.detach().clone().requires_grad_() for p in params]
    resumed = make(name, others)
    resumed.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    for _ in range(3):
        for o, ps in ((optimizer, params), (resumed, others)):
            with_gradients(ps)
            o.step()
    for a, b in zip(params, others, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize("name", ALL)
def test_copies_and_pickles_keep_state(name):
    params = with_gradients(leaves())
    optimizer = make(name, params)
    optimizer.step()
    for again in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert repr(again) == repr(optimizer)
        with_gradients(again.param_groups[0]["params"])
        again.step()


@pytest.mark.parametrize("name", ALL)
def test_parameters_without_gradient_are_left_alone(name):
    params = leaves()
    params[0].grad = T.ones(2)
    before = params[1].detach().clone()
    make(name, params).step()
    np.testing.assert_array_equal(params[1].detach().numpy(), before.numpy())
    make(name, leaves()).step()  # none at all


@pytest.mark.parametrize("name", ALL)
def test_a_step_is_one_op_that_the_tracer_sees(name):
    class Spy:
        def __init__(self):
            self.ops = []

        def mutate(self, op, arrays, attrs):
            self.ops.append(op.name)
            dispatch.run(op, arrays, attrs)

    params = with_gradients(leaves())
    optimizer = make(name, params)
    optimizer.step()  # the state exists now
    with_gradients(params)
    spy = Spy()
    old = dispatch.set_intercept(spy)
    try:
        optimizer.step()
    finally:
        dispatch.set_intercept(old)
    assert len(spy.ops) == 1


def test_versions_of_parameters_move_on_and_those_of_gradients_do_not():
    params = with_gradients(leaves())
    optimizer = optim.SGD(params, lr=0.1)
    before = [(p._version, p.grad._version) for p in params]
    optimizer.step()
    for p, (version, grad_version) in zip(params, before, strict=True):
        assert p._version > version
        assert p.grad._version == grad_version


def test_closure_is_called_with_gradients_on_and_its_loss_returned():
    from rushlight_autograd import no_grad

    p = T.tensor([2.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 4.0
    assert p.item() == 0.0


def test_groups_have_options_of_their_own():
    a, b = leaves()
    optimizer = optim.SGD([{"params": [a], "lr": 1.0}, {"params": b}], lr=0.1)
    for p in (a, b):
        p.grad = T.ones(p.shape)
    optimizer.step()
    np.testing.assert_allclose(a.detach().numpy(), [0.0, -3.0])
    np.testing.assert_allclose(b.detach().numpy(), [[4.9]])
    c = T.zeros(1, requires_grad=True)
    optimizer.add_param_group({"params": c, "lr": 2.0})
    c.grad = T.ones(1)
    optimizer.step()
    assert c.item() == -2.0


def test_named_parameters_keep_their_names():
    a, b = leaves()
    optimizer = optim.SGD([("a", a), ("b", b)], lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["a", "b"]
    assert optimizer.param_groups[0]["params"] == [a, b]


def test_zero_grad():
    params = with_gradients(leaves())
    optimizer = optim.SGD(params, lr=0.1)
    optimizer.zero_grad(set_to_none=False)
    assert all((p.grad.numpy() == 0).all() for p in params)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


def test_hooks_run_around_the_step():
    params = with_gradients(leaves())
    optimizer = optim.Adam(params)
    seen = []
    handle = optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("before"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("after"))
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert seen == ["before", "after", "after"]
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "extra": 1})
    state = optimizer.state_dict()
    assert state["extra"] == 1
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    optimizer.load_state_dict(state)
    assert seen[-1] == "loaded"


@pytest.mark.parametrize(
    ("make_it", "kind", "text"),
    [
        (lambda: optim.SGD(T.zeros(1), lr=0.1), TypeError, "should be an iterable of Tensors or dicts, but got"),
        (lambda: optim.SGD([], lr=0.1), ValueError, "empty parameter list"),
        (lambda: optim.SGD([3], lr=0.1), TypeError, "can only optimize Tensors, but one of the params is int"),
        (lambda: optim.SGD([T.zeros(1, requires_grad=True) * 2]), ValueError, "can't optimize a non-leaf Tensor"),
        (lambda: optim.SGD([{"params": {T.zeros(1)}}]), TypeError, "organized in ordered collections"),
        (lambda: optim.Adam([T.zeros(1)], differentiable=True), RuntimeError, "differentiable=True is not supported"),
        (lambda: optim.SGD([T.zeros(1)]).add_param_group(3), TypeError, "param_group must be a dict"),
    ],
)
def test_mistakes_are_refused(make_it, kind, text):
    with pytest.raises(kind, match=text):
        make_it()


def test_one_parameter_in_two_groups_is_refused():
    p = T.zeros(1, requires_grad=True)
    with pytest.raises(ValueError, match="appear in more than one parameter group"):
        optim.SGD([{"params": [p]}, {"params": [p]}])


def test_state_of_another_optimizer_is_refused():
    optimizer = optim.SGD(leaves(), lr=0.1)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizer.load_state_dict({"state": {}, "param_groups": [{"params": [0]}]})


def test_scheduler_before_optimizer_warns():
    optimizer = optim.SGD(leaves(), lr=0.1)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match=r"before `optimizer.step\(\)`"):
        scheduler.step()


def test_an_optimizer_of_ones_own():
    class SignSGD(optim.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data = p.data - group["lr"] * p.grad.sign()

    params = with_gradients(leaves())
    optimizer = SignSGD(params)
    seen = []
    optimizer.register_step_post_hook(lambda *a: seen.append(1))
    optimizer.step()
    np.testing.assert_allclose(params[0].detach().numpy(), [1.1, -1.9], rtol=1e-6)
    assert seen == [1]
