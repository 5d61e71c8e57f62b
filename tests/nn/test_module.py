"""Module: registration rules, walking the tree, hooks, saving and loading, conversion, errors."""

import copy
from collections import OrderedDict

import numpy as np
import pytest

import rushlight_nn as nn
import rushlight_tensor as T


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 4)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(4, 2)
        self.register_buffer("scale", T.ones(2))
        self.register_buffer("scratch", T.zeros(2), persistent=False)

    def forward(self, x, *, times=1):
        return self.fc2(self.act(self.fc1(x))) * self.scale * times


def test_attributes_register_themselves_in_order():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert [n for n, _ in net.named_children()] == ["fc1", "act", "fc2"]
    assert [n for n, _ in net.named_buffers()] == ["scale", "scratch"]
    assert list(net.state_dict()) == ["scale", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]


def test_an_attribute_moves_between_registries():
    net = Net()
    net.act = nn.Parameter(T.zeros(1))
    assert "act" not in dict(net.named_children())
    assert "act" in dict(net.named_parameters())
    net.act = None
    assert net.act is None
    assert "act" not in dict(net.named_parameters())
    del net.act
    assert not hasattr(net, "act")
    net.plain = 3
    net.plain = nn.Linear(1, 1)
    assert "plain" in dict(net.named_children())
    net.fc1 = None
    assert net.fc1 is None
    net.buffer = nn.Buffer(T.zeros(2), persistent=False)
    assert "buffer" in dict(net.named_buffers())
    assert "buffer" not in net.state_dict()
    net.buffer = T.ones(2)
    assert "buffer" not in net.state_dict()


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda n: setattr(n, "fc1", T.zeros(2)), TypeError, "cannot assign 'torch.FloatTensor' as child module 'fc1'"),
        (lambda n: setattr(n.fc1, "weight", T.zeros(2)), TypeError, "as parameter 'weight' .torch.nn.Param"),
        (lambda n: setattr(n, "scale", 3), TypeError, "cannot assign 'int' as buffer 'scale'"),
        (lambda n: n.register_parameter("a.b", None), KeyError, "parameter name can.*t contain"),
        (lambda n: n.register_parameter("", None), KeyError, "parameter name can.*t be empty"),
        (lambda n: n.register_parameter("fc1", None), KeyError, "attribute 'fc1' already exists"),
        (lambda n: n.register_parameter("w", T.zeros(1)), TypeError, "object to parameter 'w'"),
        (lambda n: n.register_buffer("fc1", None), KeyError, "attribute 'fc1' already exists"),
        (lambda n: n.register_buffer("b", 3), TypeError, "cannot assign 'int' object to buffer 'b'"),
        (lambda n: n.add_module("m", 3), TypeError, "int is not a Module subclass"),
        (lambda n: n.add_module("scale", nn.ReLU()), KeyError, "attribute 'scale' already exists"),
        (lambda n: n.nothing, AttributeError, "'Net' object has no attribute 'nothing'"),
        (lambda n: n.get_submodule("fc1.x"), AttributeError, "Linear has no attribute `x`"),
        (lambda n: n.get_parameter("fc1"), AttributeError, "`fc1` is not an nn.Parameter"),
        (lambda n: n.to(T.int64), TypeError, "only accepts floating point or complex dtypes"),
        (lambda n: n.train(1), ValueError, "training mode is expected to be boolean"),
        (lambda n: nn.Module()(1), NotImplementedError, 'missing the required "forward" function'),
        (lambda n: nn.Module(1), TypeError, "takes 1 positional argument but 2 were given"),
        (lambda n: nn.Module(x=1), TypeError, "got an unexpected keyword argument 'x'"),
        (lambda n: n.load_state_dict(3), TypeError, "Expected state_dict to be dict-like"),
    ],
)
def test_mistakes_are_refused(change, kind, text):
    with pytest.raises(kind, match=text):
        change(Net())


def test_assigning_before_init_is_refused():
    class Early(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match="cannot assign module before Module"):
        Early()


def test_shared_modules_and_parameters_are_listed_once():
    net = Net()
    net.again = net.fc1
    net.fc2.extra = net.fc1.weight
    assert len(list(net.parameters())) == 4
    assert [n for n, _ in net.named_modules()] == ["", "fc1", "act", "fc2"]
    twice = [n for n, _ in net.named_parameters(remove_duplicate=False)]
    assert {"again.weight", "fc2.extra"} <= set(twice)
    copied = copy.deepcopy(net)
    assert copied.again is copied.fc1
    assert copied.fc2.extra is copied.fc1.weight


def test_lookup_by_dotted_name():
    net = nn.Sequential(Net(), nn.ReLU())
    assert net.get_submodule("0.fc1") is net[0].fc1
    assert net.get_submodule("") is net
    assert net.get_parameter("0.fc1.weight") is net[0].fc1.weight
    assert net.get_buffer("0.scale") is net[0].scale


def test_a_submodule_is_exchanged_by_name():
    net = nn.Sequential(Net(), nn.ReLU())
    net.set_submodule("0.act", nn.Tanh())
    assert isinstance(net[0].act, nn.Tanh)
    net.set_submodule("0.new", nn.ReLU())
    assert isinstance(net[0].new, nn.ReLU)
    with pytest.raises(AttributeError, match="Net has no attribute `other`"):
        net.set_submodule("0.other", nn.ReLU(), strict=True)
    with pytest.raises(AttributeError, match="`weight` is not an nn"):
        net.set_submodule("0.fc1.weight", nn.ReLU())
    with pytest.raises(ValueError, match="without a target name"):
        net.set_submodule("", nn.ReLU())


def test_to_empty_keeps_shapes():
    net = Net()
    weight = net.fc1.weight
    assert net.to_empty(device="cpu").fc1.weight is weight
    assert weight.shape == (4, 3)


def test_load_state_dict_reports_everything_at_once():
    net = Net()
    state = net.state_dict()
    state["fc1.weight"] = T.zeros(5, 3)
    del state["fc2.bias"]
    state["extra"] = state["fc1.more"] = T.zeros(1)
    with pytest.raises(RuntimeError) as e:
        net.load_state_dict(state)
    assert str(e.value) == (
        "Error(s) in loading state_dict for Net:\n"
        '\tMissing key(s) in state_dict: "fc2.bias". \n'
        '\tUnexpected key(s) in state_dict: "extra", "fc1.more". \n'
        "\tsize mismatch for fc1.weight: copying a param with shape torch.Size([5, 3]) from checkpoint, "
        "the shape in current model is torch.Size([4, 3])."
    )
    del state["fc1.weight"]
    found = net.load_state_dict(state, strict=False)
    assert found.missing_keys == ["fc1.weight", "fc2.bias"]
    assert set(found.unexpected_keys) == {"extra", "fc1.more"}


def test_state_dict_shares_memory_and_loading_keeps_identity():
    net, other = Net(), Net()
    weight = net.fc1.weight
    state = net.state_dict()
    assert np.shares_memory(state["fc1.weight"].numpy(), weight.detach().numpy())
    assert not state["fc1.weight"].requires_grad
    assert net.state_dict(keep_vars=True)["fc1.weight"] is weight
    assert next(iter(net.state_dict(prefix="net."))) == "net.scale"
    net.load_state_dict(other.state_dict())
    assert net.fc1.weight is weight
    np.testing.assert_array_equal(weight.detach().numpy(), other.fc1.weight.detach().numpy())
    net.load_state_dict(OrderedDict((k, v.double()) for k, v in other.state_dict().items()), assign=True)
    assert net.fc1.weight.dtype is T.float64
    assert isinstance(net.fc1.weight, nn.Parameter)
    assert net.fc1.weight.requires_grad


def test_extra_state_and_the_saving_hooks():
    class Counted(nn.Linear):
        calls = 0

        def get_extra_state(self):
            return self.calls

        def set_extra_state(self, state):
            self.calls = state

    a, b = Counted(1, 1), Counted(1, 1)
    a.calls = 7
    assert list(a.state_dict()) == ["weight", "bias", "_extra_state"]
    b.load_state_dict(a.state_dict())
    assert b.calls == 7
    seen = []
    a.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append("pre"))
    a.register_state_dict_post_hook(lambda m, state, prefix, meta: state.__delitem__(prefix + "bias"))
    b.register_load_state_dict_pre_hook(lambda m, state, *rest: state.setdefault("bias", T.zeros(1)))
    b.register_load_state_dict_post_hook(lambda m, keys: seen.append(keys.missing_keys))
    state = a.state_dict()
    assert list(state) == ["weight", "_extra_state"]
    b.load_state_dict(state)
    assert seen == ["pre", []]


def test_forward_hooks_change_arguments_and_results():
    net = Net()
    x = T.ones(1, 3)
    plain = net(x).detach().numpy()
    handle = net.register_forward_hook(lambda m, args, out: out * 2)
    np.testing.assert_allclose(net(x).detach().numpy(), plain * 2)
    handle.remove()
    with net.register_forward_pre_hook(lambda m, args, kwargs: (args, {"times": 3}), with_kwargs=True):
        np.testing.assert_allclose(net(x).detach().numpy(), plain * 3, rtol=1e-6)
    with net.register_forward_pre_hook(lambda m, args: args[0] * 0):
        np.testing.assert_allclose(net(x).detach().numpy(), net(x * 0).detach().numpy())
    order = []
    net.register_forward_hook(lambda m, a, o: order.append("second"))
    net.register_forward_hook(lambda m, a, o: order.append("first"), prepend=True)
    net(x)
    assert order == ["first", "second"]


def test_a_hook_that_always_runs_sees_a_failed_forward():
    net = Net()
    seen = []
    net.register_forward_hook(lambda m, a, o: seen.append(o), always_call=True)
    with pytest.raises(RuntimeError):
        net(T.ones(1, 5))
    assert seen == [None]


def test_full_backward_hooks_see_and_change_gradients():
    net = Net()
    seen = {}

    def hook(module, grad_input, grad_output):
        seen["in"], seen["out"] = grad_input, grad_output
        return (grad_input[0] * 10,)

    x = T.ones(2, 3, requires_grad=True)
    net(x).sum().backward()
    plain = x.grad.numpy().copy()
    x.grad = None
    net.register_full_backward_hook(hook)
    net.register_full_backward_pre_hook(lambda m, grads: (grads[0] * 2,))
    net(x).sum().backward()
    np.testing.assert_allclose(seen["out"][0].numpy(), 2 * np.ones((2, 2)))
    np.testing.assert_allclose(seen["in"][0].numpy(), 2 * plain, rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), 20 * plain, rtol=1e-6)


def test_a_backward_hook_of_the_first_layer_gets_no_input_gradient():
    layer = nn.Linear(3, 2)
    seen = []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].shape)))
    layer(T.ones(4, 3)).sum().backward()
    assert seen == [((None,), T.Size([4, 2]))]


def test_global_hooks_see_every_module_until_removed():
    from rushlight_nn.modules.hooks import register_module_forward_hook

    seen = []
    with register_module_forward_hook(lambda m, args, out: seen.append(type(m).__name__)):
        Net()(T.ones(1, 3))
    assert seen == ["Linear", "ReLU", "Linear", "Net"]
    Net()(T.ones(1, 3))
    assert len(seen) == 4


def test_conversion_keeps_parameters_and_their_gradients():
    net = Net()
    weight = net.fc1.weight
    net(T.ones(1, 3)).sum().backward()
    net.register_buffer("count", T.tensor(3))
    assert net.double() is net
    assert net.fc1.weight is weight
    assert weight.dtype is weight.grad.dtype is net.scale.dtype is T.float64
    assert net.count.dtype is T.int64
    net.to(T.float32)
    assert weight.dtype is T.float32
    net.to("cpu", T.float64)
    assert weight.dtype is T.float64
    net.to(T.zeros(1))
    assert weight.dtype is T.float32
    net.half()
    assert weight.dtype is T.float16


def test_apply_and_requires_grad():
    net = Net()
    seen = []
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Linear", "ReLU", "Linear", "Net"]
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())
    net.requires_grad_()
    net(T.ones(1, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all((p.grad.numpy() == 0).all() for p in net.parameters())


def test_parameter_shares_memory_with_its_data():
    data = T.zeros(3)
    p = nn.Parameter(data)
    data[0] = 5.0
    assert p[0].item() == 5.0
    assert p.is_leaf
    assert p.requires_grad
    assert isinstance(p, T.Tensor)
    assert not isinstance(p * 2, nn.Parameter)
    p.decay = False  # users mark parameters
    assert not hasattr(copy.deepcopy(p), "decay")  # as in PyTorch, where pickling keeps it
    assert not nn.Parameter(T.zeros(2), requires_grad=False).requires_grad
    assert repr(nn.Parameter(T.tensor([1.0]))) == "Parameter containing:\ntensor([1.], requires_grad=True)"


def test_an_error_names_the_module_and_the_shapes_it_was_given():
    net = nn.Sequential(nn.Sequential(nn.ReLU(), Net()), nn.ReLU())
    with pytest.raises(RuntimeError) as e:
        net(T.ones(2, 5))
    place = "in Sequential.0.1.fc1: Linear(in_features=3, out_features=4, bias=True), called with (float32 2×5)"
    assert e.value.__notes__ == [place]
    with pytest.raises(TypeError) as e:
        Net()(T.ones(1, 3), times="x")
    assert e.value.__notes__ == ["in Net: Net(…), called with (float32 1×3, times='x')"]


def test_dir_lists_what_is_registered():
    assert {"fc1", "scale", "forward"} <= set(dir(Net()))
