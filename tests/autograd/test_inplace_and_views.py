"""In-place operations and views: shared memory, versions, and the graph that follows them."""

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_autograd import Function, grad, no_grad
from rushlight_optim import SGD
from rushlight_tensor import REGISTRY
from tests.ops.harness import call, tensors
from tests.ops.samples import SAMPLES

pytestmark = pytest.mark.usefixtures("text")


def leaf(*values):
    return T.tensor(values, dtype=T.float64, requires_grad=True)


def test_view_shares_memory_and_version():
    x = T.zeros(2, 3)
    v = x.view(3, 2)
    v.add_(1)
    np.testing.assert_array_equal(x.numpy(), np.ones((2, 3)))
    assert x._version == 1


def test_saved_input_changed_in_place_is_refused():
    x = leaf(1.0, 2.0)
    h = x * 1
    y = h * h
    h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_saved_result_changed_in_place_is_refused_also_under_no_grad_and_through_a_view():
    for change in (lambda y: y.mul_(2), lambda y: y.view(2, 1).mul_(2), lambda y: y.detach().mul_(2)):
        x = leaf(1.0, 2.0)
        y = T.exp(x)
        with no_grad():
            change(y)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_change_of_a_value_that_no_gradient_needs_is_fine():
    x = leaf(1.0, 2.0)
    h = x * 1
    y = h + 5
    h.mul_(3)
    (y + h).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4.0, 4.0])


def test_inplace_on_base_reaches_a_view_made_before():
    x = leaf(1.0, 2.0)
    base = x * 1
    view = base.view(2, 1)
    base.mul_(5)
    (view * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [10.0, 10.0])


def test_inplace_on_a_view_reaches_the_base():
    x = T.ones(2, 3, dtype=T.float64, requires_grad=True)
    base = x * 1
    base.permute(1, 0).mul_(T.tensor([[1.0], [2.0], [3.0]], dtype=T.float64))
    base.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[1.0, 2.0, 3.0]] * 2)


def test_inplace_with_a_tensor_that_requires_grad_makes_a_plain_tensor_require_it():
    w = leaf(2.0)
    x = T.ones(1, dtype=T.float64)
    x.add_(w)
    assert x.requires_grad
    x.sum().backward()
    assert w.grad.item() == 1.0


def test_leaves_that_require_grad_are_protected():
    w = T.ones(2, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        w.add_(1)
    with pytest.raises(RuntimeError, match="a view of a leaf Variable"):
        w.view(4).add_(1)
    with no_grad():
        w.add_(1)
    np.testing.assert_array_equal(w.detach().numpy(), np.full((2, 2), 2.0))


def test_result_must_fit_into_the_target():
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type"):
        T.tensor([1]).add_(0.5)
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        T.ones(3).add_(T.ones(2, 3))


def test_elements_that_share_memory_are_not_written_to_one_by_one():
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor refers to a single memory"):
        T.ones(1).expand(3).add_(1)
    x = T.ones(3)
    x.expand(2, 3)[0].add_(1)
    np.testing.assert_array_equal(x.numpy(), [2.0, 2.0, 2.0])
    x.expand(2, 3).zero_()
    np.testing.assert_array_equal(x.numpy(), [0.0, 0.0, 0.0])


def test_read_only_memory_is_refused():
    array = np.ones(3)
    array.flags.writeable = False
    with pytest.raises(RuntimeError, match="read-only"):
        T.from_numpy(array).add_(1)
    np.testing.assert_array_equal(array, np.ones(3))


def test_data_shares_memory_outside_the_graph():
    w = T.ones(2, requires_grad=True)
    w.data.mul_(3)
    np.testing.assert_array_equal(w.detach().numpy(), [3.0, 3.0])
    w.data = T.zeros(2)
    np.testing.assert_array_equal(w.detach().numpy(), [0.0, 0.0])


def test_gradient_of_a_chain_of_inplace_writes_agrees_with_the_functional_form():
    x = leaf(0.5, 1.0, 1.5, 2.0)
    h = x * 1
    h.view(2, 2).permute(1, 0).mul_(2)
    h.div_(4)
    h.view(4).sub_(x)
    (h * h).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * (-0.5) * (-0.5) * x.detach().numpy())


def test_write_through_a_view_of_a_view_reaches_the_one_on_the_way():
    w = leaf(5.0, 7.0)
    view = T.zeros(4, dtype=T.float64).view(2, 2)
    view.view(4)[:2].copy_(w)
    assert view.requires_grad
    (view * 3).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [3.0, 3.0])


def test_square_in_place_has_its_gradient():
    w = leaf(5.0, 7.0)
    y = w * 1
    y.square_()
    y.sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [10.0, 14.0])


@pytest.mark.parametrize(
    "function",
    [T.sin, T.exp, lambda v: v * v, lambda v: v * 2, lambda v: 2 / v, lambda v: v.sum(0), lambda v: T.cat([v, v])],
)  # fmt: skip
def test_view_made_before_a_write_to_its_base_can_be_used_by_every_path(function):
    x, y = leaf(0.5, 1.0), leaf(0.5, 1.0)
    base = x * 1
    view = base.view(2, 1)
    base.mul_(3)
    function(view).sum().backward()
    function((y * 3).view(2, 1)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", [op.name for op in REGISTRY.values() if op.view and op.vjp is not None])
def test_view_made_under_no_grad_gets_no_gradient_of_its_own(name):
    for sample in SAMPLES[name]:
        dtype = next((d for d in ("float64", "complex128") if d in sample.dtypes), None)
        if dtype is None or not sample.grad:
            continue
        (x,) = tensors(sample.arrays(dtype), [True])
        with no_grad():
            views = call(REGISTRY[name], [x], sample.attrs)
        for view, again in zip(views, call(REGISTRY[name], [x], sample.attrs), strict=True):
            if not view.requires_grad or view.dtype != again.dtype:
                continue
            x.grad = None
            (view * again).sum().backward(T.ones((), dtype=view.dtype))
            assert view.grad is None
            assert x.grad is not None


@pytest.mark.parametrize(("name", "attrs"), [("split", {"sizes": (1, 2)}), ("unbind", {})])
def test_views_of_a_record_of_several_are_closed(name, attrs):
    base = T.zeros(3, 2, dtype=T.float64)
    first, second = REGISTRY[name](base, **attrs)[:2]
    part = second[..., 0]
    with pytest.raises(RuntimeError, match="function that returns multiple views"):
        second.copy_(T.ones(second.shape, dtype=T.float64, requires_grad=True))
    base.mul_(leaf(2.0))
    for piece in (first, part):
        with pytest.raises(RuntimeError, match="its base or another view of its base has been modified inplace"):
            piece * leaf(2.0)


def test_retained_gradient_is_that_of_the_latest_value():
    x = leaf(1.0, 2.0)
    h = x * 1
    h.retain_grad()
    h.mul_(3)
    (h * 5).sum().backward()
    np.testing.assert_array_equal(h.grad.numpy(), [5.0, 5.0])
    np.testing.assert_array_equal(x.grad.numpy(), [15.0, 15.0])


def test_view_that_is_looked_at_under_no_grad_keeps_its_place_in_the_graph():
    x = leaf(1.0, 2.0)
    base = x * 1
    view = base.view(2, 1)
    base.mul_(5)
    with no_grad():
        assert view.grad_fn is not None
    (view * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [10.0, 10.0])


def test_result_without_gradient_in_place_cuts_the_influence_of_what_was_there():
    x = leaf(1.0, 2.0)
    h = x * 3
    h.gt_(4)
    (h * 5).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0.0, 0.0])


def computed_in_place(memory, into):
    """The exponential of a leaf, computed in place into an alias of `memory`; the leaf; and that alias."""
    w = T.full((3,), 0.5, dtype=T.float64, requires_grad=True)
    alias = into(memory)
    alias.copy_(w)
    alias.exp_()
    return alias * 1, w, alias


WAYS = {
    "its memory": lambda memory, alias: memory.zero_(),
    "a view of its memory": lambda memory, alias: memory.view(-1)[:1].zero_(),
    "another alias": lambda memory, alias: memory.detach().zero_(),
    "itself": lambda memory, alias: alias.zero_(),
    "a view of itself": lambda memory, alias: alias[:1].zero_(),
    "an optimizer's step": lambda memory, alias: step(memory),
}


def step(x):
    x.grad = T.ones(3, dtype=T.float64)
    SGD([x], lr=0.1).step()


@pytest.mark.parametrize("into", [lambda z: z.detach(), lambda z: z.detach().view(3, 1).view(3)], ids=["alias", "view"])
@pytest.mark.parametrize("way", WAYS)
def test_result_saved_in_memory_with_several_names_is_refused_when_any_of_them_was_written_to(way, into):
    memory = T.zeros(3, dtype=T.float64)
    out, _, alias = computed_in_place(memory, into)
    with no_grad():
        WAYS[way](memory, alias)
    del memory, alias  # what was written stays known
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_row_of_a_detached_buffer_is_refused_when_the_buffer_was_written_to():
    memory = T.zeros(2, 3, dtype=T.float64)
    out, _, _ = computed_in_place(memory, lambda z: z.detach()[0])
    memory.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_result_saved_in_memory_with_several_names_has_its_gradient_when_none_was_written_to():
    memory = T.zeros(3, dtype=T.float64)
    memory.detach().add_(1)  # before
    out, w, _ = computed_in_place(memory, lambda z: z.detach())
    out.sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), np.exp([0.5] * 3))


def test_result_that_was_detached_in_place_is_refused_when_it_was_written_to():
    for write in (False, True):
        w = leaf(0.5, 1.0)
        y = T.exp(w)
        z = y * 2
        y.detach_()
        if write:
            y.zero_()
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                z.sum().backward()
        else:
            z.sum().backward()
            np.testing.assert_allclose(w.grad.numpy(), 2 * np.exp([0.5, 1.0]))


def test_write_through_a_flat_view_has_its_gradient_where_that_arrives_transposed():
    x = T.ones(2, 3, dtype=T.float64, requires_grad=True)
    y = x * 1
    y.view(-1)[1:4].mul_(2)
    weights = np.arange(6.0).reshape(3, 2)
    (y.t() * T.tensor(weights)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), weights.T * [[1, 2, 2], [2, 1, 1]])


@pytest.mark.parametrize("write", ["relu_", "exp_", "tanh_", "sqrt_"])
def test_second_derivatives_of_writes_to_views(write):
    def first(x):
        y = x * 2
        getattr(y.view(-1)[1:], write)()
        return grad((y * y).sum(), x, create_graph=True)[0]

    x = T.tensor([[0.3, 0.7], [1.1, 0.2]], dtype=T.float64, requires_grad=True)
    (second,) = grad(first(x).sum(), x)
    step = 1e-6
    wide = [first((x.detach() + s).requires_grad_()).sum() for s in (step, -step)]
    assert abs(second.sum().item() - (wide[0] - wide[1]).item() / (2 * step)) < 1e-5


class Doubled(Function):
    """In place, with a gradient that tells of itself."""

    @staticmethod
    def forward(ctx, a):
        ctx.mark_dirty(a)
        return a.mul_(2)

    @staticmethod
    def backward(ctx, g):
        return g * 100


class Put(Function):
    """`b` into `a`, which stands at another place than the first."""

    @staticmethod
    def forward(ctx, b, a):
        ctx.mark_dirty(a)
        return a.copy_(b)

    @staticmethod
    def backward(ctx, g):
        return g * 7, None


READ = {
    "root": (lambda y, v, w, r: y, [100, 100, 1, 1]),
    "result": (lambda y, v, w, r: r, [100, 100, 0, 0]),
    "view": (lambda y, v, w, r: v * v, [400, 400, 0, 0]),
    "another view": (lambda y, v, w, r: w * 3, [0, 300, 3, 3]),
}


@pytest.mark.parametrize("name", READ)
def test_a_function_that_writes_into_a_view_is_on_the_way_to_all_that_shows_it(name):
    """Its gradient was never asked."""
    read, want = READ[name]
    a = T.ones(4, requires_grad=True)
    y = a * 1
    v, w = y[:2], y[1:]
    r = Doubled.apply(v)
    assert r is v
    assert y.grad_fn.name() == "CopySlices"
    read(y, v, w, r).sum().backward()
    assert a.grad.tolist() == want


@pytest.mark.parametrize("size", [2, 4])
def test_a_function_that_writes_makes_what_is_written_require_grad_by_any_name(size):
    b, y = T.ones(size, requires_grad=True), T.zeros(4)
    before = y[1:]
    Put.apply(b, y if size == 4 else y[:2])
    assert y.requires_grad
    assert before.requires_grad
    (y.sum() + before.sum()).backward()
    assert b.grad.tolist() == [7, 14, 14, 14][:size]


def test_what_a_function_marks_dirty_it_returns():
    class Forgotten(Doubled):
        @staticmethod
        def forward(ctx, a):
            ctx.mark_dirty(a)
            return a.mul_(2) * 1

    class Two(Doubled):
        @staticmethod
        def forward(ctx, a):
            ctx.mark_dirty(a)
            return a.mul_(2), a * 2

    y = T.ones(4, requires_grad=True) * 1
    with pytest.raises(RuntimeError, match="marked as dirty during the forward method were not returned"):
        Forgotten.apply(y)
    with pytest.raises(RuntimeError, match="your Function cannot return more than one Tensor"):
        Two.apply(y[:2])
