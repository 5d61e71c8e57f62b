"""What kind of thing an op does: the contract from which batching, forward mode and fusion follow.

Every record has one.  A kind knows no op; what differs between ops of a kind it is told in its fields:

    dims      attributes that name dimensions, an int or several, counted from either end; None or () are all of them
    shapes    attributes that hold the shape of an input or of a result
    shared    inputs that all rows have in common
    first     the result has the shape of the first input, and the others are broadcast to it
    folds     just so many dimensions are taken, the first of which counts images or rows: samples are more of them

How large a result is follows from shapes and attributes in every record: functions where it depends on values (nonzero,
unique) read these first, `dispatch.read`, and call records that are told the size.

Use it as a module, `kinds.rows("dim")`: the names here are short.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """What all kinds can say; see the head of the file."""

    dims: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    folds: bool = False
    first: bool = False


class Elementwise(Kind):
    """Inputs are broadcast; an element of the result depends on the elements at its place, and on nothing else.

    So a further dimension in front, of all inputs or of some, means the same op, once ranks are aligned.
    """

    __slots__ = ()


class Reduction(Kind):
    """The dimensions named by `dims` (None or (): all) become one value, and go or keep size one; or its gradient.

    A further dimension in front means: all dimensions are one further, and "all" are all but the first.
    """

    __slots__ = ()


class Rows(Kind):
    """Acts along some dimensions, named by `dims` or else the last ones; all others only say how many rows there are.

    All inputs have the same leading dimensions, except those that are `shared` by all rows.  So a further dimension in
    front is more rows.
    """

    __slots__ = ()


class View(Kind):
    """The result shows the memory of the first input in another shape or order; linear."""

    __slots__ = ()


class Linear(Kind):
    """Linear in each of its first two inputs for itself, such as a product or a convolution; a third is added.

    Or the gradient of any op, which is linear in what comes in.  Of one input, samples are a further dimension, as for
    a view; of several, each may be the one that has them, and the record says how.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Opaque(Kind):
    """Nothing follows from its kind, and `why` says why; what a consumer wants to know the record says itself."""

    why: str = ""


def reduction(*dims: str, shapes: tuple[str, ...] = ()) -> Reduction:
    """Over the dimensions in these attributes."""
    return Reduction(dims, shapes)


def rows(*dims: str, shapes: tuple[str, ...] = (), shared: tuple[str, ...] = (), folds: bool = False) -> Rows:
    """Along the dimensions in these attributes, or the last ones."""
    return Rows(dims, shapes, shared, folds)


def view(*dims: str, shapes: tuple[str, ...] = ()) -> View:
    """Of the dimensions in these attributes."""
    return View(dims, shapes)


def linear(*dims: str, shapes: tuple[str, ...] = ()) -> Linear:
    """With dimensions and shapes in these attributes."""
    return Linear(dims, shapes)


def opaque(why: str) -> Opaque:
    """None of the others; `why` is for the reader."""
    return Opaque(why=why)


ELEMENTWISE = Elementwise()
INTO_FIRST = Elementwise(first=True)
