"""The prototype of a kernel says how it is called: what it reads, what it makes, where it works, and how long each is.

Note [Lengths]
    Every array declares how many elements it has, by the numbers of the same prototype.  Whoever calls a kernel works
    the lengths out first, in arithmetic that saturates instead of wrapping round, and compares them with the arrays:
    the wrappers of `binding` for each call from Python, `program` once for a call that C repeats.  So a kernel that
    stays within its own declaration cannot touch memory that is not its own, whoever calls it; and a prototype without
    lengths is refused when its text is bound.  What a kernel reads *inside* an array (indices, classes) it checks
    itself, at the moment of use: another thread may change them at any time.

Prototypes, one `EXPORT` each:

    EXPORT void name(LENGTH(m * n) const float *restrict x, OPTIONAL LENGTH(n) const float *b,
        EXTENT(span(m, step, n, 1)) float *y, LENGTH(count, sizes[i]) const float *const *many,
        SCRATCH LENGTH(threads * n) float *work, long m, long n)

    `T *`            a C-contiguous array of that dtype (float, double, int64_t, int32_t, uint8_t, bool), aligned; with
                     `const` the kernel reads it, without it is a result; uint32_t and uint64_t are any dtype of 4 or 8
                     bytes, for kernels that only move it
    `INOUT`          a result that is read as well
    `SCRATCH`        memory to work in, of any content, which belongs to the call: kernels allocate nothing
    `IMAGE`          it is (N, C, ...) with the channels innermost in memory: contiguous as (N, ..., C)
    `LENGTH(e)`      it has exactly `e` elements; for a list, `LENGTH(count, sizes[i])`: how many arrays, and each
                     one's length, where `sizes` is another array argument; or `LENGTH(count, 1)`
    `EXTENT(e)`      it need not be contiguous: from its first element to its last (no stride may be negative) it spans
                     at least `e` elements.  Strides are passed as numbers of their own
    `OPTIONAL`       may be None, and is NULL then
    `T *const *`     a list of such arrays
    `long`, `int64_t`, `float`, `double`  numbers; those that a length names must not be negative
    `POSITIVE long`  a number that is at least 1
    `long threads`   how many threads the kernel may use, and has scratch for; who allocates that says it, not Python
    result           void, long, int64_t, double.  A kernel that a record names returns nothing, or 0, or 1 + the place
                     of the first thing that is wrong

    `e` is made of numbers that are not negative, `+`, `-` (at least 0), `*`, `/` (of integers, 0 where b is 0),
    `ceil(a, b)` (a / b, rounded up), `least(a, b)`, `most(a, b)`, `pick(condition, a, b)`, and
    `span(n0, step0, n1, step1, …)`: the extent of an array of these sizes and strides, 0 where a size is 0.  A name
    that the text has given to a part of a prototype, `#define PATCH (kh * kw * cg)`, may stand there for it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

ARRAY_CODES = {"float": "f", "double": "d", "int64_t": "lq", "int32_t": "i", "uint8_t": "B", "bool": "?"}
WORDS = {"uint32_t": "fiI", "uint64_t": "dlqLQ"}
ARRAY_CODES |= WORDS
DTYPES = {name: np.dtype(codes[-1]) for name, codes in ARRAY_CODES.items()}
_NUMBERS = {"long", "int64_t", "float", "double"}
_FOUND = re.compile(r"^EXPORT\s+(void|long|int64_t|double)\s+(\w+)\s*\(", re.MULTILINE)
_ARITY = {"ceil": 2, "least": 2, "most": 2, "pick": 3}
_DEFINED = re.compile(r"^#define[ \t]+(\w+)[ \t]+((?:[^\\\n]|\\\n)+)", re.MULTILINE)
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "rl_add",
    ast.Sub: "rl_sub",
    ast.Mult: "rl_mul",
    ast.Div: "rl_div",
}
THREAD_COUNT = "threads"
MOST = 2**63 - 1  # what would wrap round stays here


@dataclass(frozen=True)
class Argument:
    """One argument of a prototype, as it is declared."""

    name: str
    type: str  # of the C variable
    base: str
    stars: int
    marks: frozenset[str]
    kind: str  # of the length: LENGTH, EXTENT, or nothing
    length: str

    @property
    def is_integer(self) -> bool:
        """Whether it is a whole number."""
        return not self.stars and self.base in ("long", "int64_t")

    @property
    def is_scratch(self) -> bool:
        """Whether the kernel works in it."""
        return "SCRATCH" in self.marks

    @property
    def is_thread_count(self) -> bool:
        """Whether it says for how many threads there is scratch."""
        return self.is_integer and self.name == THREAD_COUNT

    @property
    def is_given(self) -> bool:
        """Whether Python gives it."""
        return not (self.is_scratch or self.is_thread_count)

    @property
    def is_input(self) -> bool:
        """Whether the kernel only reads it."""
        return bool(self.stars) and self.type.startswith("const")

    @property
    def is_read(self) -> bool:
        """Whether it comes from the caller with something in it."""
        return self.is_input or "INOUT" in self.marks

    @property
    def is_image(self) -> bool:
        """Whether its channels lie innermost in memory."""
        return "IMAGE" in self.marks

    @property
    def is_result(self) -> bool:
        """Whether it holds something for the caller afterwards."""
        return bool(self.stars) and not self.is_input and not self.is_scratch


@dataclass(frozen=True)
class Prototype:
    """How a kernel is called."""

    name: str
    result: str
    arguments: tuple[Argument, ...]

    @cached_property
    def sizes(self) -> tuple[str, ...]:
        """The names of its whole numbers that Python gives, in order."""
        return tuple(a.name for a in self.arguments if a.is_integer and a.is_given)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """The names of its other numbers, in order."""
        return tuple(a.name for a in self.arguments if not a.stars and not a.is_integer)

    @cached_property
    def measuring(self) -> frozenset[str]:
        """Every name that a length mentions."""
        return frozenset(word for a in self.arguments for word in re.findall(r"\w+", a.length))

    @cached_property
    def one_list(self) -> Argument | None:
        """The list that holds all its inputs, where that is so; the array beside it says how long they are."""
        lists = [a for a in self.arguments if a.stars == 2]
        return lists[0] if len(lists) == 1 and lists[0].is_input and len(self.inputs) == 2 else None

    @cached_property
    def inputs(self) -> tuple[Argument, ...]:
        """The arrays and lists that come with something in them."""
        return tuple(a for a in self.arguments if a.stars and a.is_read)

    def trees(self, a: Argument) -> list[ast.expr]:
        """The length of an array as an expression; of a list, also the array of its lengths, by name, or 1.

        Raises:
            ValueError: The text is no length.
        """
        trouble = ValueError(f"EXPORT {self.name}: cannot read the length of {a.name!r}: {a.length!r}")
        parts = split(a.length)
        if len(parts) != a.stars:
            raise trouble
        try:
            trees = [ast.parse(part, mode="eval").body for part in parts]
        except SyntaxError:
            raise trouble from None
        if not self._is_length(trees[0]):
            raise trouble
        if a.stars == 2:
            each = trees[1]
            if isinstance(each, ast.Constant) and each.value == 1:
                return trees
            if not (isinstance(each, ast.Subscript) and isinstance(each.value, ast.Name)):
                raise trouble
            sizes = next((s for s in self.arguments if s.name == each.value.id), None)
            if sizes is None or sizes.stars != 1 or sizes.base != "int64_t" or split(sizes.length) != [parts[0]]:
                raise trouble  # it must have one element for each array of the list
            trees[1] = each.value
        return trees

    def _is_length(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Constant):
            return isinstance(node.value, int)
        if isinstance(node, ast.Name):
            return any(a.is_integer and a.name == node.id for a in self.arguments)
        if isinstance(node, ast.BinOp):
            return type(node.op) in _OPERATORS and self._is_length(node.left) and self._is_length(node.right)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and all(map(self._is_length, node.args)):
            count = len(node.args)
            return count % 2 == 0 if node.func.id == "span" else _ARITY.get(node.func.id) == count
        return False

    def length(self, a: Argument, sizes: Mapping[str, int], threads: int = 1) -> int:
        """How many elements an array must have for these sizes; at most `MOST`."""
        return _evaluated(self.trees(a)[0], {**sizes, THREAD_COUNT: threads})


def prototypes(text: str) -> Iterator[Prototype]:
    """Every `EXPORT` function of a C text.

    Raises:
        ValueError: An argument type cannot be bound, or an array declares no length.
    """
    names = {name: part.replace("\\\n", " ") for name, part in _DEFINED.findall(text)}
    for found in _FOUND.finditer(text):
        arguments = tuple(_argument(found[2], part) for part in split(_expanded(_inside(text, found.end()), names)))
        made = Prototype(found[2], found[1], arguments)
        for a in arguments:
            if a.stars:
                made.trees(a)
        yield made


def _inside(text: str, start: int) -> str:
    """What stands between the bracket that opened before `start` and the one that closes it."""
    depth = 1
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if not depth:
            return text[start:i]
    raise ValueError("an EXPORT prototype has no closing bracket")


def _expanded(text: str, names: Mapping[str, str]) -> str:
    """The text with what its names stand for in their place."""
    seen = ""
    while text != seen:
        seen, text = text, re.sub(r"[A-Za-z_]\w*", lambda word: names.get(word[0], word[0]), text)
    return text


def split(text: str) -> list[str]:
    """The parts between the commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _argument(function: str, text: str) -> Argument:
    declared = re.match(r"((?:OPTIONAL|POSITIVE|INOUT|SCRATCH|IMAGE|\s)*)(?:(LENGTH|EXTENT)\s*\()?", text)
    assert declared is not None
    kind, length, rest = declared[2] or "", "", text[declared.end() :]
    if kind:
        length = _inside(text, declared.end())
        rest = rest[len(length) + 1 :]
    words = re.sub(r"\b(restrict|__restrict)\b", " ", rest).replace("*", " * ").split()
    stars, base = words.count("*"), next((w for w in words if w not in ("const", "*")), "")
    constant = "const " if words[:1] == ["const"] else ""
    marks = frozenset(declared[1].split())
    known = base in (ARRAY_CODES if stars else _NUMBERS) and stars <= 2 and len(words) > 1
    if not known or (marks & {"INOUT", "SCRATCH"} and (constant or not stars)):
        raise ValueError(f"EXPORT {function}: cannot bind an argument {text!r}; use arrays, lists or numbers")
    if stars and not length:
        raise ValueError(
            f"EXPORT {function}: the array {words[-1]!r} declares no length; write LENGTH(...) or EXTENT(...) before it"
        )
    ctype = base if not stars else f"{constant}{base} *" if stars == 1 else f"{constant}{base} *const *"
    return Argument(words[-1], ctype, base, stars, marks, kind, length)


def c_text(node: ast.expr, places: Mapping[str, str]) -> str:
    """A length as a C expression; `places` says what stands for each number."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return places[node.id]
    if isinstance(node, ast.BinOp):
        return f"{_OPERATORS[type(node.op)]}({c_text(node.left, places)}, {c_text(node.right, places)})"
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    given = [c_text(x, places) for x in node.args]
    if node.func.id == "pick":
        return f"({given[0]} ? {given[1]} : {given[2]})"
    if node.func.id != "span":
        return f"rl_{node.func.id}({given[0]}, {given[1]})"
    total = "1"
    for n, step in zip(given[::2], given[1::2], strict=True):
        total = f"rl_add({total}, rl_mul(rl_sub({n}, 1), {step}))"
    return f"({' && '.join(f'{n} > 0' for n in given[::2])} ? {total} : 0)"


def _evaluated(node: ast.expr, values: Mapping[str, int]) -> int:
    """The same in Python."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int)
        return node.value
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.BinOp):
        a, b = _evaluated(node.left, values), _evaluated(node.right, values)
        if isinstance(node.op, ast.Sub):
            return a if a == MOST else max(a - b, 0)
        if isinstance(node.op, ast.Div):
            return a if a == MOST else a // b if b else 0
        return min(a + b if isinstance(node.op, ast.Add) else a * b, MOST)
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    given = [_evaluated(x, values) for x in node.args]
    match node.func.id:
        case "pick":
            return given[1] if given[0] else given[2]
        case "ceil":
            return MOST if given[0] == MOST else -(-given[0] // given[1]) if given[1] else 0
        case "least":
            return min(given)
        case "most":
            return max(given)
    if min(given[::2]) <= 0:
        return 0
    return min(1 + sum((n - 1) * step for n, step in zip(given[::2], given[1::2], strict=True)), MOST)
