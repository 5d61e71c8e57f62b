"""The CPU runner itself: it computes what CUDA would, and finds the mistakes that it promises to find."""

import numpy as np
import pytest

from rushlight_tensor.kernels.cuda_launch import structure
from tests.cuda_on_cpu.runner import FORWARD, REVERSE, SHUFFLED, RawModule, why_not
from tests.device.strict import ndarray

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

TEXT = r"""
extern "C" __global__ void block_sum(const float *x, float *out, int n, int synchronise) {
    __shared__ float sums[32];
    float value = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) value += x[i];
    for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    if (synchronise) __syncthreads();
    if (threadIdx.x < 32) {
        value = threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0.f;
        for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
        if (threadIdx.x == 0) atomicAdd(out, value);
    }
}
extern "C" __global__ void reversed(const float *x, float *y) {
    extern __shared__ float copy[];
    copy[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = copy[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void divergent(float *x) {
    if (threadIdx.x < 16) __syncthreads();
    else { x[0] = 1; __syncthreads(); }
}
extern "C" __global__ void early_exit(float *x) {
    if (threadIdx.x == 3) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}
extern "C" __global__ void missing_lane(float *x) {
    if (threadIdx.x % 2) x[threadIdx.x] = __shfl_sync(0xffffffffu, x[threadIdx.x], 0);
    else { __syncthreads(); }
}
"""


def device(values):
    return ndarray(values)


@pytest.fixture(params=[FORWARD, REVERSE, SHUFFLED, SHUFFLED + 1])
def kernels(request):
    return RawModule(code=TEXT, order=request.param).get_function


def block_sum(kernels, synchronise):
    x, out = device(np.arange(1000, dtype=np.float32)), device(np.zeros(1, np.float32))
    kernels("block_sum")((3,), (256,), (x, out, np.int32(1000), np.int32(synchronise)))
    return float(out[0])


def test_shuffles_shared_memory_and_atomics(kernels):
    assert block_sum(kernels, True) == 999 * 500


def test_missing_barrier_is_found_in_some_order():
    assert any(block_sum(RawModule(code=TEXT, order=order).get_function, False) != 999 * 500 for order in range(5))


def test_dynamic_shared_memory(kernels):
    x, y = device(np.arange(64, dtype=np.float32)), device(np.zeros(64, np.float32))
    kernels("reversed")((1,), (64,), (x, y), shared_mem=256)
    np.testing.assert_array_equal(y.get(), x.get()[::-1])


@pytest.mark.parametrize("name", ["divergent", "early_exit"])
def test_divergent_barrier_is_an_error(kernels, name):
    with pytest.raises(RuntimeError, match="divergent __syncthreads"):
        kernels(name)((1,), (32,), (device(np.zeros(32, np.float32)),))


def test_lanes_that_never_arrive_are_a_deadlock(kernels):
    with pytest.raises(RuntimeError, match="deadlock"):
        kernels("missing_lane")((1,), (32,), (device(np.zeros(32, np.float32)),))


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ((np.arange(1000, dtype=np.float32), "out", np.int32(3), np.int32(1)), "only numpy.ndarrays of size one"),
        (("x", "out", 3, np.int32(1)), "int64, where the kernel declares int32"),
        (("x", "out", np.float32(3), np.int32(1)), "float32, where the kernel declares int32"),
        (("x", np.int32(0), np.int32(3), np.int32(1)), "int32, where the kernel declares pointer"),
        (("x", "out", "x", np.int32(1)), "an array, where the kernel declares int32"),
        (("x", "out", None, np.int32(1)), "Unsupported type <class 'NoneType'>"),
        (("x", "out", np.int32(3)), "takes 4 arguments"),
    ],
)
def test_arguments_that_cupy_refuses_or_the_kernel_would_misread(kernels, args, why):
    arrays = {"x": device(np.zeros(1000, np.float32)), "out": device(np.zeros(1, np.float32))}
    with pytest.raises(TypeError, match=why):
        kernels("block_sum")((1,), (32,), tuple(arrays[a] if isinstance(a, str) else a for a in args))


def test_structure_is_an_array_of_size_one():
    text = """
    struct Pair { long long a, b; };
    extern "C" __global__ void spread(Pair p, long long *y) { y[0] = p.a; y[1] = p.b; }
    """
    y, pair = device(np.zeros(2, np.int64)), np.array([3, 4])
    spread = RawModule(code=text).get_function("spread")
    with pytest.raises(TypeError, match="of size one"):
        spread((1,), (1,), (pair, y))
    spread((1,), (1,), (structure(pair), y))
    assert y.tolist() == [3, 4]


@pytest.mark.parametrize(("grid", "block"), [((1,), (2048,)), ((1,), (0,)), ((0,), (32,))])
def test_impossible_launch_is_an_error(kernels, grid, block):
    with pytest.raises(RuntimeError, match="invalid launch"):
        kernels("divergent")(grid, block, (device(np.zeros(1, np.float32)),))
