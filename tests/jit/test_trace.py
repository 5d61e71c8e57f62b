"""`jit.trace`: the model's numbers without the model's code, in a file that runs nothing."""

import copy
import io
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import rushlight as torch
from rushlight import jit, nn
from rushlight_jit import FileError, TraceError


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def test_trace_gives_what_the_model_gives_also_for_other_inputs():
    model = small()
    traced = jit.trace(model, torch.randn(3, 4))
    x = torch.randn(3, 4)
    np.testing.assert_allclose(traced(x).detach().numpy(), model(x).detach().numpy(), rtol=1e-6)


def test_graph_is_readable_and_names_the_parameters():
    text = str(jit.trace(small(), torch.randn(3, 4)).graph)
    assert "%0.weight: float32[8, 4]" in text
    assert "linear" in text
    assert "return" in text


def test_saved_trace_runs_in_a_process_without_the_models_code(tmp_path):
    (tmp_path / "secret_model.py").write_text(
        textwrap.dedent(
            """
            from rushlight import nn

            class Secret(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
                    self.norm = nn.LayerNorm(8)

                def forward(self, x):
                    h = self.norm(self.a(x)).tanh()
                    return {"logits": self.b(h)[:, ::2], "hidden": (h, 1.5)}
            """
        )
    )
    make = """
        import rushlight as torch
        from secret_model import Secret
        torch.manual_seed(1)
        model, x = Secret(), torch.randn(3, 4)
        torch.jit.save(torch.jit.trace(model, x), "model.rl")
        torch.save({"x": x, "logits": model(x)["logits"].detach()}, "wanted.pt")
    """
    use = """
        import sys
        import rushlight as torch
        traced, wanted = torch.jit.load("model.rl"), torch.load("wanted.pt")
        out = traced(wanted["x"])
        assert torch.allclose(out["logits"], wanted["logits"]), (out, wanted)
        assert out["hidden"][0].shape == (3, 8) and out["hidden"][1] == 1.5
        assert "secret_model" not in sys.modules
        print("same")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(make)], cwd=tmp_path, check=True)
    (tmp_path / "secret_model.py").unlink()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(use)], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == "same\n"


def test_traced_module_can_be_trained():
    model = small()
    traced = jit.trace(model, torch.randn(3, 4))
    x = torch.randn(3, 4)
    traced(x).sum().backward()
    got = [p.grad.numpy().copy() for p in traced.parameters()]
    model.zero_grad()
    model(x).sum().backward()
    for g, p in zip(got, model.parameters(), strict=True):
        np.testing.assert_allclose(g, p.grad.numpy(), rtol=1e-5)


def test_other_shape_or_dtype_is_refused_with_both():
    traced = jit.trace(small(), torch.randn(3, 4))
    with pytest.raises(RuntimeError, match=r"shape \[5, 4\].*traced with \[3, 4\]"):
        traced(torch.randn(5, 4))


def test_control_flow_on_values_is_an_error():
    with pytest.raises(TraceError, match=r"test_trace\.py:\d+"):
        jit.trace(lambda x: x if x.sum() > 0 else -x, torch.randn(3))


@pytest.mark.parametrize("damage", ["truncate", "flip", "not a zip", "unknown op"])
def test_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "model.rl"
    jit.trace(small(), torch.randn(3, 4)).save(path)
    data = path.read_bytes()
    if damage == "truncate":
        data = data[: len(data) // 2]
    elif damage == "flip":
        at = data.index(b'"op"')
        data = data[:at] + b"#" + data[at + 1 :]
    elif damage == "unknown op":
        data = data.replace(b"linear", b"lineaX")
    else:
        data = b"nothing"
    with pytest.raises(FileError, match="this file object is no saved trace"):
        jit.load(io.BytesIO(data))
    path.write_bytes(data)
    with pytest.raises(FileError, match=re.escape(f"{path} is no saved trace")):
        jit.load(path)


def test_numbers_and_shared_memory_among_the_inputs_are_refused():
    x = torch.randn(3)
    with pytest.raises(RuntimeError, match="Type 'float' cannot be traced"):
        jit.trace(lambda x, k: x * k, (x, 2.0))
    with pytest.raises(RuntimeError, match="two example inputs share memory"):
        jit.trace(lambda x, y: x.add_(1) + y, (x, x))
    traced = jit.trace(lambda x, y: (x * 2, y.add_(1), x * 2), (x, torch.zeros(3)))
    y = torch.zeros(3)
    assert traced(x, y)[1].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(RuntimeError, match="shares memory"):
        traced(y, y)


def test_a_refusal_that_the_function_catches_is_still_one():
    def swallow(x):
        try:
            return x * x.sum().item()
        except RuntimeError:
            return x

    with pytest.raises(TraceError, match=r"test_trace\.py:\d+: the value of a tensor is read"):
        jit.trace(swallow, torch.ones(2))


@pytest.mark.parametrize("take", [copy.deepcopy, lambda x: torch.tensor([x[0], x[1]]), np.asarray])
def test_copies_out_of_a_trace_are_refused(take):
    with pytest.raises(TraceError, match="the value of a tensor is read"):
        jit.trace(lambda x: torch.as_tensor(take(x)) * 2, torch.ones(2))


@pytest.mark.parametrize("take", [torch.tensor, copy.copy])  # an operation; a second tensor on the same memory
def test_tensor_of_a_tensor_is_followed(take):
    traced = jit.trace(lambda x: take(x) * 2, torch.ones(2))
    assert traced(torch.tensor([3.0, 4.0])).tolist() == [6.0, 8.0]


def test_objects_are_not_results_of_a_trace():
    with pytest.raises(TraceError, match="returns a set"):
        jit.trace(lambda x: {x}, torch.ones(2))


class _Bare:
    __slots__ = ("value",)

    def __getattr__(self, name):
        if name != "value":
            raise AttributeError(name)
        return 2.0


def test_a_slot_that_is_not_set_is_no_value():
    bare = _Bare()

    def f(x):
        return x * bare.value if bare else x

    fast = torch.compile(f)
    for _ in range(3):
        assert fast(torch.ones(3)).tolist() == [2, 2, 2]


def test_results_follow_the_order_of_whatever_comes():
    def function(x, y):
        return (x * y + x) * 2.0

    square = torch.arange(9.0).reshape(3, 3)
    lies = [square, square.t(), square + 1.0, square.t() + 2.0, torch.ones(3, 6)[:, ::2]]
    traced = jit.trace(function, (square, square + 1.0))
    for x in lies * 2:
        for y in lies:
            if x is not y:
                got, want = traced(x, y), function(x, y)
                assert (got.tolist(), got.stride()) == (want.tolist(), want.stride())
