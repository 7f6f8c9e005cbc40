"""Statements whose results nothing uses: a product that was added to a sum by one instruction, a vector that another
one replaced. They are left out before anyone reads the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from graphc.codegen.kernel import (
    Affine,
    AsyncCopy,
    AwaitGroups,
    Exchange,
    Exp2,
    For,
    GroupMma,
    If,
    Load,
    LoadMatrix,
    Mma,
    Op,
    Prefetch,
    Stmt,
    Store,
    Value,
)


def without_dead(body: Sequence[Stmt]) -> tuple[Stmt, ...]:
    """`body` without operations and loads that no store, loop or condition needs. Loops and stores all stay."""
    return _kept(body, set())


def _kept(body: Sequence[Stmt], live: set[Value]) -> tuple[Stmt, ...]:
    """What stays of `body`, given the values that are used after it; adds those that it uses."""
    kept: list[Stmt] = []
    for statement in reversed(body):
        if isinstance(statement, Op | Load) and statement.result not in live:
            continue
        if isinstance(statement, For):
            live.update(statement.yields)
            statement = replace(statement, body=_kept(statement.body, live))
        elif isinstance(statement, If):
            statement = replace(statement, body=_kept(statement.body, live))
        live.update(_used(statement))
        kept.append(statement)
    return tuple(reversed(kept))


def _used(statement: Stmt) -> Iterable[Value]:
    """The values that a statement itself names."""
    named: list[object] = []
    match statement:
        case Op():
            named += statement.args
        case Load():
            named += (statement.index, statement.offsets, statement.mask)
        case Store():
            named += (statement.index, statement.value, statement.offsets, statement.mask)
        case Prefetch():
            named.append(statement.index)
        case For():
            named += (statement.lo, statement.hi, *statement.inits)
        case If():
            named.append(statement.condition)
        case Exchange() | Exp2():
            named.append(statement.value)
        case Mma():
            named += (*statement.a, *statement.b, *statement.c)
        case LoadMatrix():
            named += (statement.index, statement.offsets)
        case AsyncCopy():
            named += (statement.index, statement.offsets, statement.source_index, statement.source_offsets)
            named.append(statement.mask)
        case GroupMma(left=left, right=right, c=c):
            named += (left.index, left.offsets, right.index, right.offsets, *c)
        case AwaitGroups():
            named += statement.values
        case _:
            pass
    for value in named:
        if isinstance(value, Affine):
            yield from (symbol for symbol, _ in value.terms)
        elif isinstance(value, Value):
            yield value
