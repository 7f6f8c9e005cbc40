"""Runs of accesses in a block kernel that a thread can do at once: neighbours in memory, the first of them aligned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import gcd

from graphc.codegen.cuda.ranges import Spans, multiple_of_sum
from graphc.codegen.kernel import Load, Stmt, Store
from graphc.codegen.target import WIDE


def run_length(
    statements: Sequence[Stmt], first: int, spans: Spans, aligned_params: bool, barriers: Collection[int]
) -> int:
    """How many statements from number `first` on are one wide access; 1 when it is alone. Memory of the block's own
    begins at a multiple of a wide access, parameters do when they are `aligned_params`.
    """
    start = statements[first]
    if not isinstance(start, (Load, Store)) or (start.offsets is None and start.stride < 2):
        return 1
    if not aligned_params and start.buffer.mode != "own":
        return 1
    aligned = gcd(multiple_of_sum(start.index, spans), _multiple_across(start, spans))
    most = gcd(WIDE // start.buffer.dtype.itemsize, aligned)
    length = 1
    while length < most and first + length < len(statements):
        after = statements[first + length]
        if id(after) in barriers or not _follows(start, after, length):
            break
        length += 1
    return 1 << (length.bit_length() - 1)


def _multiple_across(access: Load | Store, spans: Spans) -> int:
    """What the elements of all threads lie a multiple of apart."""
    if access.offsets is None:
        return access.stride
    span = spans.get(access.offsets)
    return span.multiple if span is not None else 1


def _follows(start: Load | Store, after: Stmt, distance: int) -> bool:
    """Whether `after` accesses the element `distance` after that of `start`, under the same mask."""
    if not isinstance(after, (Load, Store)) or type(after) is not type(start):
        return False
    return (
        after.buffer is start.buffer
        and after.offsets is start.offsets
        and after.stride == start.stride
        and after.mask is start.mask
        and after.index.terms == start.index.terms
        and after.index.const == start.index.const + distance
    )
