"""The order of the multiply-adds in an unrolled body: it decides how long elements stay in registers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product

from graphc.codegen.sites import Site
from graphc.ir.access import Index
from graphc.ir.contraction import parse_spec
from graphc.ir.demand import reduction_reads
from graphc.ir.index import Ix, Symbol, Var, linear
from graphc.ir.node import Node

Item = tuple[Node, Index]
"""A sum of the tile: the contraction, and the index of the result."""

Tap = tuple[tuple[int, ...], int]
"""A multiply-add of an unrolled body: where the unrolled loops are, and the number of the sum that it adds to."""


def addresses(items: Sequence[Item], site: Site) -> list[list[Ix]]:
    """For each operand the element that each sum reads, where the loops of `site` are at their variables."""
    over = tuple(Ix.of(v) for v in site.loops)
    reads = [reduction_reads(stage, at, over) for stage, at in items]
    return [
        [linear(read[k], stage.inputs[k].shape) for (stage, _), read in zip(items, reads, strict=True)] for k in (0, 1)
    ]


def element_keys(stage: Node, at: Index, over: Index) -> list[tuple[object, ...]]:
    """For each operand a key of the element that is read for the result at `at` in the place `over` of the sum."""
    if stage.op != "contract":
        return [(stage, at, over)]
    place = (*at, *over)
    return [(stage, k, *[place[d] for d in own]) for k, own in enumerate(_own_places(stage.text("spec")))]


@lru_cache(maxsize=1024)
def _own_places(text: str) -> tuple[tuple[int, ...], ...]:
    """For each operand of a contraction: where its labels stand among those of the result and the summed ones."""
    spec = parse_spec(text)
    number = {label: place for place, label in enumerate(spec.labels)}
    return tuple(tuple(number[label] for label in own) for own in (spec.x_labels, spec.y_labels))


def streamed(items: list[Item], site: Site) -> list[Item]:
    """Points of a contraction in an order that uses up each element of the operand with more of them at once.

    Only the other operand's elements then stay in registers.
    """
    more = max(addresses(items, site), key=lambda k: len(set(k)))
    first = {ix: i for i, ix in reversed(list(enumerate(more)))}
    return [item for _, item in sorted(zip(more, items, strict=True), key=lambda pair: first[pair[0]])]


def one_by_one(count: int, unrolled: Sequence[Var]) -> list[list[Tap]]:
    """All steps of a body with `count` sums, in groups: one for each place of the unrolled loops."""
    return [[(place, n) for n in range(count)] for place in product(*(range(v.hi + 1) for v in unrolled))]


def by_elements(items: Sequence[Item], site: Site, unrolled: Sequence[Var], registers: int) -> list[list[Tap]]:
    """All steps of a body, in groups whose elements are loaded once each.

    Sums of neighbouring places read some elements at several places of a sliding window. Steps of such places are one
    group, ordered by the elements of which there are more, while the sums and the other operand's elements fit the
    registers.
    """
    groups = one_by_one(len(items), unrolled)
    if len(groups) == 1:
        return groups
    elements = [_elements(groups, ixs, unrolled) for ixs in addresses(items, site)]
    elements.sort(key=lambda found: -len(set(found.values())))
    more, other = elements
    least = sum(_distinct(found, group) for found in elements for group in groups)
    if least == sum(len(set(found.values())) for found in elements):
        return groups
    best = groups
    for size in range(1, len(unrolled) + 1):
        for inner in combinations(range(len(unrolled)), size):
            gathered: dict[tuple[int, ...], list[Tap]] = {}
            for step in (step for group in groups for step in group):
                outer = tuple(at for k, at in enumerate(step[0]) if k not in inner)
                gathered.setdefault(outer, []).append(step)
            found = list(gathered.values())
            held = len(items) + max(_distinct(other, group) for group in found) + 1
            loads = sum(_distinct(each, group) for each in elements for group in found)
            if held <= registers and loads < least:
                least, best = loads, [sorted(group, key=more.__getitem__) for group in found]
    return best


def _elements(
    groups: Sequence[Sequence[Tap]], ixs: Sequence[Ix], unrolled: Sequence[Var]
) -> dict[Tap, tuple[int, int]]:
    """A number for the element of one operand that each step reads: neighbours along memory have neighbouring ones."""
    numbers: dict[tuple[tuple[Symbol, int], ...], int] = {}
    bases = [tuple((s, c) for s, c in ix.terms if s not in unrolled) for ix in ixs]
    steps = [[ix.coefficient(v) for v in unrolled] for ix in ixs]
    found: dict[Tap, tuple[int, int]] = {}
    for place, n in (step for group in groups for step in group):
        at = ixs[n].const + sum(c * p for c, p in zip(steps[n], place, strict=True))
        found[place, n] = numbers.setdefault(bases[n], len(numbers)), at
    return found


def _distinct(found: dict[Tap, tuple[int, int]], group: Sequence[Tap]) -> int:
    return len({found[step] for step in group})
