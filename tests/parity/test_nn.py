"""Layers against PyTorch's: printed form, initial weights bit for bit, results, gradients, buffers, errors."""

import warnings

import numpy as np
import pytest

import rushlight_nn as nn
import rushlight_tensor as T
from rushlight_nn.utils import rnn
from tests.nn.layers import EXAMPLES

torch = pytest.importorskip("torch")

EVERY = [pytest.param(e, id=f"{name}-{i}") for name, group in EXAMPLES.items() for i, e in enumerate(group)]
BOTH = [(T, nn), (torch, torch.nn)]


@pytest.fixture(autouse=True)
def _pytorch_may_warn():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch")
        warnings.filterwarnings("ignore", message="enable_nested_tensor")
        yield


def tensors(result):
    if hasattr(result, "shape"):
        return [result]
    return [t for part in result if part is not None for t in tensors(part)]


def arrays(ts):
    return [None if t is None else t.detach().numpy() for t in ts]


def run(namespace, layers, example, train):
    """Results, gradients of inputs and parameters, and the state after one call."""
    namespace.manual_seed(3)
    module = example.make(layers).train(train)
    arguments = example.arguments(namespace, requires_grad=True)
    namespace.manual_seed(4)
    results = tensors(module(*arguments))
    total = sum((r * r * (i + 1)).sum() for i, r in enumerate(results) if r.requires_grad)
    gradients = []
    if not isinstance(total, int):
        total.backward()
        gradients = [t.grad for t in (*arguments, *module.parameters())]
    return arrays(results), arrays(gradients), arrays(module.state_dict().values())


@pytest.mark.parametrize("example", EVERY)
def test_printed_form_keys_and_initial_weights_are_pytorchs(example):
    ours, theirs = [], []
    for (namespace, layers), module in zip(BOTH, (ours, theirs), strict=True):
        namespace.manual_seed(3)
        module.append(example.make(layers))
    a, b = ours[0], theirs[0]
    assert repr(a) == repr(b)
    assert list(a.state_dict()) == list(b.state_dict())
    for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        np.testing.assert_array_equal(x.numpy(), y.numpy())


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("example", EVERY)
def test_results_and_gradients_are_pytorchs(example, train):
    ours, theirs = (run(namespace, layers, example, train) for namespace, layers in BOTH)
    for what, a, b in zip(("results", "gradients", "state"), ours, theirs, strict=True):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert (x is None) == (y is None)
            if x is not None:
                assert x.shape == y.shape
                np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5, err_msg=what)


def both_models(make):
    models = []
    for namespace, layers in BOTH:
        namespace.manual_seed(0)
        models.append(make(layers))
    return models


@pytest.mark.parametrize("mode", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=["plain", "deep"])
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_run_as_pytorchs(mode, options, enforce_sorted):
    lengths = [5, 3, 3, 1] if enforce_sorted else [3, 5, 1, 3]
    data = np.random.RandomState(0).randn(5, 4, 3).astype(np.float32)
    found = []
    models = both_models(lambda layers: getattr(layers, mode)(3, 6, **options))
    for model, namespace, utils in zip(models, (T, torch), (rnn, torch.nn.utils.rnn), strict=True):
        x = namespace.tensor(data, requires_grad=True)
        packed = utils.pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
        out, state = model(packed)
        padded, sizes = utils.pad_packed_sequence(out, padding_value=-1.0, total_length=6)
        (padded * padded).sum().backward()
        pieces = [packed.data, packed.batch_sizes, padded, sizes, x.grad, *(p.grad for p in model.parameters())]
        found.append(arrays([*pieces, *(state if isinstance(state, tuple) else (state,))]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_sequences_of_different_lengths_are_padded_as_pytorchs():
    data = [np.random.RandomState(i).randn(n, 2).astype(np.float32) for i, n in enumerate((3, 1, 4))]
    for options in ({}, {"batch_first": True, "padding_value": 2.0}, {"padding_side": "left"}):
        ours, theirs = (
            u.pad_sequence([ns.tensor(d) for d in data], **options).numpy()
            for ns, u in ((T, rnn), (torch, torch.nn.utils.rnn))
        )
        np.testing.assert_array_equal(ours, theirs)
    packed = rnn.pack_sequence([T.tensor(d) for d in data], enforce_sorted=False)
    for a, b in zip(rnn.unpack_sequence(packed), data, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)


@pytest.mark.parametrize("call", [
    lambda ns, n, init: init.uniform_(ns.empty(5, 7), -2, 3),
    lambda ns, n, init: init.normal_(ns.empty(5, 7), 1, 3),
    lambda ns, n, init: init.constant_(ns.empty(5, 7), 3),
    lambda ns, n, init: init.ones_(ns.empty(5)),
    lambda ns, n, init: init.eye_(ns.empty(3, 5)),
    lambda ns, n, init: init.dirac_(ns.empty(4, 2, 3, 3), 2),
    lambda ns, n, init: init.xavier_uniform_(ns.empty(5, 7, 3), 1.5),
    lambda ns, n, init: init.xavier_normal_(ns.empty(5, 7), 1.5),
    lambda ns, n, init: init.kaiming_uniform_(ns.empty(5, 7, 3, 3), a=0.3),
    lambda ns, n, init: init.kaiming_normal_(ns.empty(5, 7), mode="fan_out", nonlinearity="relu"),
    lambda ns, n, init: init.sparse_(ns.empty(10, 4), 0.3),
    lambda ns, n, init: init.uniform_(ns.empty(9), generator=ns.Generator().manual_seed(9)),
])  # fmt: skip
def test_initial_values_are_pytorchs_bit_for_bit(call):
    results = []
    for namespace, layers in BOTH:
        namespace.manual_seed(7)
        results.append(call(namespace, layers, layers.init).numpy())
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("call", [
    lambda ns, init: init.trunc_normal_(ns.empty(50, 7), 0.1, 0.5, -0.3, 0.8),
    lambda ns, init: init.trunc_normal_(ns.empty(50, 7), 0.0, 1.0, 1.0, 3.0),
    lambda ns, init: init.trunc_normal_(ns.empty(20, 7), std=0.02),
    lambda ns, init: init.orthogonal_(ns.empty(4, 6), 1.3),
    lambda ns, init: init.orthogonal_(ns.empty(6, 2, 2)),
])  # fmt: skip
def test_initial_values_that_are_computed_are_pytorchs_to_rounding(call):
    results = []
    for namespace, layers in BOTH:
        namespace.manual_seed(7)
        results.append(call(namespace, layers.init).numpy())
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


def test_clipping_is_pytorchs():
    for norm_type in (2.0, 1.0, np.inf, -np.inf, 0.0, 3.0):
        for max_norm in (0.5, 100.0):
            found = []
            for namespace, layers in BOTH:
                params = [namespace.zeros(4, 3, requires_grad=True), namespace.zeros(5, requires_grad=True)]
                for i, p in enumerate(params):
                    data = np.random.RandomState(i).randn(*p.shape).astype(np.float32)
                    p.grad = namespace.tensor(data)
                total = layers.utils.clip_grad_norm_(params, max_norm, norm_type)
                found.append([total.numpy(), *(p.grad.numpy() for p in params)])
            for a, b in zip(*found, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, np.inf, -np.inf, 0.0, 3.0])
@pytest.mark.parametrize(
    "dtypes",
    [
        ("float32", "float64"),
        ("bfloat16", "float32"),
        ("float16", "bfloat16"),
        ("complex64", "float32"),
        ("float32", "complex128"),
    ],
)
def test_gradients_of_several_dtypes_are_clipped_as_pytorchs(dtypes, norm_type):
    found = []
    for namespace, layers in BOTH:
        params = []
        for dtype, values in zip(dtypes, ([1.1, -2.3], [3.7, 0.7, -5.3]), strict=True):
            kind = getattr(namespace, dtype)
            params.append(namespace.zeros(len(values), dtype=kind).requires_grad_())
            params[-1].grad = namespace.tensor(values).to(kind) * (1 + 0.5j if "complex" in dtype else 1)
        total = layers.utils.clip_grad_norm_(params, 0.5, norm_type)
        found.append([str(total.dtype), *(np.array((p.grad * 1.0).tolist()) for p in params), total.item()])
    assert found[0][0] == found[1][0]
    for a, b in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=0.02 if any("float16" in d for d in dtypes) else 1e-5)


def test_masks_of_attention_work_as_pytorchs():
    x = np.random.RandomState(0).randn(5, 3, 8).astype(np.float32)
    padding = np.zeros((3, 5), bool)
    padding[1, 3:] = True
    models = both_models(lambda layers: layers.MultiheadAttention(8, 2))
    for options in ({}, {"need_weights": False}, {"average_attn_weights": False}):
        for causal in (False, True):
            found = []
            for model, (namespace, _) in zip(models, BOTH, strict=True):
                q = namespace.tensor(x)
                masks = {"key_padding_mask": namespace.tensor(padding)}
                if causal:
                    mask = namespace.tensor(np.triu(np.ones((5, 5), bool), 1))
                    masks = {"attn_mask": mask, "is_causal": True}
                found.append(arrays(tensors(model(q, q, q, **masks, **options))))
            for a, b in zip(*found, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_model_of_many_parts_prints_as_pytorchs():
    def make(layers):
        model = layers.Module()
        model.body = layers.Sequential(layers.Linear(2, 3), layers.Sequential(layers.ReLU(), layers.Dropout(0.1)))
        model.many = layers.ModuleList([layers.Linear(2, 2) for _ in range(3)] + [layers.Tanh()])
        model.named = layers.ModuleDict({"a": layers.Identity(), "b": layers.ModuleList()})
        return model

    ours, theirs = both_models(make)
    assert repr(ours) == repr(theirs)
    for container in ("ParameterList([t, t])", "ParameterDict({'w': t})", "ParameterList()", "Sequential()"):
        texts = [repr(eval(f"layers.{container}", {"layers": n, "t": ns.zeros(2, 3)})) for ns, n in BOTH]
        assert texts[0] == texts[1]


MISTAKES = [
    ("x.register_parameter('a.b', None)", "layers.Module()"),
    ("x.register_buffer('', None)", "layers.Module()"),
    ("x.add_module('a.b', None)", "layers.Module()"),
    ("x.weight", "layers.Module()"),
    ("x(1)", "layers.Module()"),
    ("x.load_state_dict({'extra': 1})", "layers.Linear(2, 3)"),
    ("x.load_state_dict({'weight': ns.zeros(2, 2), 'bias': ns.zeros(3)})", "layers.Linear(2, 3)"),
    ("x.get_submodule('a.b')", "layers.Sequential(layers.ReLU())"),
    ("x[5]", "layers.Sequential(layers.ReLU())"),
    ("x.append(3)", "layers.Sequential(layers.ReLU())"),
    ("x.extend(3)", "layers.ModuleList()"),
    ("layers.Dropout(2)", "None"),
    ("layers.Conv2d(3, 4, 3, groups=2)", "None"),
    ("layers.Conv2d(3, 4, 3, stride=2, padding='same')", "None"),
    ("layers.ConvTranspose2d(3, 4, 3, padding_mode='reflect')", "None"),
    ("layers.GroupNorm(3, 4)", "None"),
    ("layers.Embedding(3, 4, 5)", "None"),
    ("layers.MultiheadAttention(4, 3)", "None"),
    ("layers.Unflatten(1, 3)", "None"),
    ("layers.RNN(2, 3, nonlinearity='x')", "None"),
    ("layers.LSTM(2, 0)", "None"),
    ("layers.LSTM(2, 3, proj_size=4)", "None"),
    ("x(ns.zeros(2, 3))", "layers.BatchNorm2d(3)"),
    ("x(ns.zeros(5, 4, 3))", "layers.LSTM(2, 3)"),
    ("x(ns.zeros(2))", "layers.LSTM(2, 3)"),
    ("x(ns.zeros(5, 4, 2), ns.zeros(1, 3, 3))", "layers.GRU(2, 3)"),
    ("x(ns.zeros(5, 4, 2), ns.zeros(1, 3))", "layers.GRU(2, 3)"),
    ("x(ns.zeros(5, 4, 2), (ns.zeros(1, 4), ns.zeros(1, 4)))", "layers.LSTM(2, 3)"),
    ("x(ns.zeros(5, 4, 2).double())", "layers.LSTM(2, 3)"),
    ("x(ns.zeros(5, 4))", "layers.LSTMCell(2, 3)"),
    ("x(ns.zeros(5, 2), ns.zeros(4, 3))", "layers.GRUCell(2, 3)"),
    ("x(ns.zeros(5, 3, 5), ns.zeros(5, 3, 4), ns.zeros(5, 3, 4))", "layers.MultiheadAttention(4, 2)"),
    ("x(*[ns.zeros(5, 3, 4)] * 3, is_causal=True)", "layers.MultiheadAttention(4, 2)"),
    ("x(*[ns.zeros(5, 3, 4)] * 3, attn_mask=ns.zeros(3, 3))", "layers.MultiheadAttention(4, 2)"),
    ("x(ns.zeros(2, 3, 4), ns.zeros(2, 4, 4))", "layers.Transformer(4, 2, 1, 1, 8)"),
    ("layers.init.kaiming_uniform_(ns.zeros(3))", "None"),
    ("layers.init.calculate_gain('x')", "None"),
    ("layers.utils.rnn.pack_padded_sequence(ns.zeros(4, 3, 2), [1, 2, 3])", "None"),
    ("layers.utils.rnn.pack_padded_sequence(ns.zeros(4, 3, 2), [3, 2])", "None"),
    ("layers.utils.rnn.pack_padded_sequence(ns.zeros(4, 3, 2), [3, 2, 0])", "None"),
]


@pytest.mark.parametrize(("call", "make"), MISTAKES, ids=[call for call, _ in MISTAKES])
def test_mistakes_raise_what_pytorch_raises(call, make):
    errors = []
    for namespace, layers in BOTH:
        names = {"layers": layers, "ns": namespace}
        names["x"] = eval(make, names)
        with pytest.raises(Exception) as e:
            eval(call, names)
        errors.append((type(e.value), str(e.value)))
    assert errors[0] == errors[1]
