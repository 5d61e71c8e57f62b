"""A fused chain as CUDA kernels: their text runs on the CPU runner and gives what the ops give one by one."""

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_jit import compile
from rushlight_jit.fuse import LONGEST_EXPRESSION, Kernel, groups
from rushlight_tensor.kernels import elementwise_cuda
from tests.cuda_on_cpu.runner import why_not
from tests.device.standin import standing_in

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def chain(x, y):
    h = T.exp(x * y + 1) / (1 + x * x)
    return h, T.tanh(h) - 0.5 * y.abs()


@pytest.mark.parametrize("shape", [(6, 5), (5,), (6, 1), ()])
def test_chain_on_the_device_is_one_expression_per_output(shape):
    rng = np.random.default_rng(0)
    x, y = (T.tensor(rng.standard_normal(s).astype(np.float32)) for s in ((6, 5), shape))
    fast = compile(chain)
    wanted = fast(x, y)
    values = dict(zip(fast.graph.inputs, (x.numpy(), y.numpy()), strict=True))
    parts = groups(fast.graph)
    assert any(isinstance(part, Kernel) for part in parts)
    with standing_in() as cupy:
        for part in parts:
            if isinstance(part, Kernel):
                arrays = [cupy.asarray(values[v]) for v in part.inputs]
                values.update(
                    (v, elementwise_cuda.launch(op, arrays, {}).get())
                    for v, op in zip(part.outputs, part.device, strict=True)
                )
            else:  # what has another shape than the chain stays outside
                operands = [values.get(x, x) for x in part.inputs]
                values[part.outputs[0]] = np.asarray(part.op.cpu(*operands, **part.attrs))
    for v, w in zip(fast.graph.outputs, wanted, strict=True):
        np.testing.assert_allclose(values[v], w.numpy(), rtol=2e-5, atol=1e-6)


def test_expression_that_would_explode_is_left_to_single_kernels():
    def doubling(x):
        for _ in range(20):
            x = x + x
        return x

    fast = compile(doubling)
    x = T.ones(3)
    assert fast(x)[0].item() == 2.0**20
    (kernel,) = groups(fast.graph)
    assert kernel.device is None
    assert LONGEST_EXPRESSION < 2**20
