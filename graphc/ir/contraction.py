"""The index formula of `contract`, parsed once: for type inference, the reference, the gradient and the scheduler."""

from __future__ import annotations

import math
import re
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from graphc.errors import ShapeError
from graphc.ir.record import record

if TYPE_CHECKING:
    from graphc.ir.node import Node

Term = tuple[str, int]
Dim = tuple[Term, ...]  # a sum of labels with coefficients: "2h+r" is (("h", 2), ("r", 1))

_TERM = re.compile(r"([1-9][0-9]*)?([a-z][a-z0-9]*)")


def is_plain(dim: Dim) -> bool:
    """True when `dim` is one label with coefficient 1."""
    return len(dim) == 1 and dim[0][1] == 1


def format_dim(dim: Dim) -> str:
    """The text of `dim`, such as `2h+r`."""
    return "+".join(label if coefficient == 1 else f"{coefficient}{label}" for label, coefficient in dim)


def format_spec(x: tuple[Dim, ...], y: tuple[Dim, ...], out: tuple[str, ...]) -> str:
    """The text of a specification, in the spelling that `parse_spec` reads."""
    second = "".join(f" {format_dim(dim)}" for dim in y)
    return f"{' '.join(map(format_dim, x))},{second} -> {' '.join(out)}"


@record(slots=False)
class ContractSpec:
    """`out[labels] = sum(x[x dims] * y[y dims])` over every label that is not in `out`.

    A label stands at most once in an operand and at most once in the output; an output label stands in an operand.
    """

    text: str
    x: tuple[Dim, ...]
    y: tuple[Dim, ...]
    out: tuple[str, ...]

    @property
    def operands(self) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
        return self.x, self.y

    @cached_property
    def x_labels(self) -> tuple[str, ...]:
        return tuple(label for dim in self.x for label, _ in dim)

    @cached_property
    def y_labels(self) -> tuple[str, ...]:
        return tuple(label for dim in self.y for label, _ in dim)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Every label: those of the output in its order, then the summed ones in the order of the operands."""
        return tuple(dict.fromkeys((*self.out, *self.x_labels, *self.y_labels)))

    @cached_property
    def summed(self) -> tuple[str, ...]:
        """The labels that are not in the output."""
        return self.labels[len(self.out) :]

    def extents(self, shape_x: tuple[int, ...], shape_y: tuple[int, ...]) -> dict[str, int]:
        """The extent of each label. Raises ShapeError when ranks, equal labels or sums do not fit the shapes.

        A label that stands alone in a dimension has that dimension's size; one that occurs only in sums has the largest
        extent that stays in bounds (0 when nothing fits).
        """
        both = f"{list(shape_x)} and {list(shape_y)}"
        dims: list[tuple[Dim, int]] = []
        for name, operand, shape in (("first", self.x, shape_x), ("second", self.y, shape_y)):
            if len(operand) != len(shape):
                raise ShapeError(
                    f"contract {self.text!r}: the {name} operand has {len(shape)} dimensions, the formula names "
                    f"{len(operand)}; operand shapes are {both}"
                )
            dims.extend(zip(operand, shape, strict=True))
        known: dict[str, int] = {}
        sums = []
        for dim, size in dims:
            if not is_plain(dim):
                sums.append((dim, size))
            elif known.setdefault(dim[0][0], size) != size:
                raise ShapeError(
                    f"contract {self.text!r}: label {dim[0][0]!r} is {known[dim[0][0]]} in one operand and {size} in "
                    f"the other; operand shapes are {both}"
                )
        self._solve(sums, known, both)
        for dim, size in sums:
            if all(known[label] > 0 for label, _ in dim) and span(dim, known) > size:
                raise ShapeError(
                    f"contract {self.text!r}: {format_dim(dim)} reaches index {span(dim, known) - 1} in a dimension of "
                    f"size {size}; operand shapes are {both}"
                )
        return {label: known[label] for label in self.labels}

    def _solve(self, sums: list[tuple[Dim, int]], known: dict[str, int], both: str) -> None:
        """Give the labels that occur only in sums their largest extents, those with one unknown in their sum first."""
        while True:
            found: dict[str, int] = {}
            waiting = False
            for dim, size in sums:
                unknown = [(label, c) for label, c in dim if label not in known]
                waiting |= bool(unknown)
                if len(unknown) == 1:
                    label, coefficient = unknown[0]
                    reach = sum(c * max(known[other] - 1, 0) for other, c in dim if other in known)
                    extent = max((size - 1 - reach) // coefficient + 1, 0)
                    found[label] = min(found.get(label, extent), extent)
            if not waiting:
                return
            if not found:
                raise ShapeError(
                    f"contract {self.text!r}: the sizes of {sorted({a for d, _ in sums for a, _ in d} - set(known))} "
                    f"cannot be told from operand shapes {both}; let each of them stand alone somewhere"
                )
            known.update(found)


def span(dim: Dim, extents: dict[str, int]) -> int:
    """How many indices `dim` reaches, from 0 on; 0 when a label's extent is 0."""
    if any(extents[label] == 0 for label, _ in dim):
        return 0
    return 1 + sum(coefficient * (extents[label] - 1) for label, coefficient in dim)


def _parse_operand(text: str, side: str) -> tuple[Dim, ...]:
    dims = []
    for word in side.split():
        terms = [_TERM.fullmatch(term) for term in word.split("+")]
        dim = tuple((m[2], int(m[1] or 1)) for m in terms if m)
        if len(dim) != len(terms):
            raise ShapeError(f"contract {text!r}: {word!r} is not a label or a sum of labels such as 2h+r")
        dims.append(dim)
    labels = [label for dim in dims for label, _ in dim]
    if len(set(labels)) != len(labels):
        raise ShapeError(f"contract {text!r}: a label stands twice in the operand {side.strip()!r}")
    return tuple(dims)


@lru_cache(maxsize=4096)
def parse_spec(text: str) -> ContractSpec:
    """Parse `"x dims, y dims -> out dims"`; ShapeError says what is wrong with the text."""
    sides = text.split("->")
    operands = sides[0].split(",")
    if len(sides) != 2 or len(operands) != 2:
        raise ShapeError(f'contract {text!r}: a formula is "x dims, y dims -> out dims"')
    x, y, out = (_parse_operand(text, side) for side in (*operands, sides[1]))
    if not all(map(is_plain, out)):
        raise ShapeError(f"contract {text!r}: an output dimension is one label, not a sum")
    labels = tuple(dim[0][0] for dim in out)
    missing = set(labels) - {label for dim in (*x, *y) for label, _ in dim}
    if missing:
        raise ShapeError(f"contract {text!r}: output label {min(missing)!r} stands in no operand")
    return ContractSpec(text, x, y, labels)


def multiply_adds(contraction: Node) -> int:
    """How many products a `contract` adds up."""
    x, y = contraction.inputs
    return math.prod(parse_spec(contraction.text("spec")).extents(x.shape, y.shape).values())
