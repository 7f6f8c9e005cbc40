"""Accesses to neighbours in memory stand one after the other, so that a thread of a block may do them as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.kernel import For, If, Load, Op, Stmt, Store

_Key = tuple[object, ...]


def neighbours_together(statements: Sequence[Stmt], count: int) -> tuple[Stmt, ...]:
    """`statements` with accesses to `count` neighbours, from a multiple of `count` on, in a row by their places: loads
    where the first of them was, stores where the last was, but none across another access to a buffer that is written.
    """
    inner = (_with_inner(statement, count) for statement in statements)
    return tuple(_stores_together(_loads_together(list(inner), count), count))


def _with_inner(statement: Stmt, count: int) -> Stmt:
    if isinstance(statement, (For, If)):
        return replace(statement, body=neighbours_together(statement.body, count))
    return statement


def _loads_together(statements: Sequence[Stmt], count: int) -> list[Stmt]:
    groups: list[list[Stmt]] = []
    found: dict[_Key, list[Stmt]] = {}
    for statement in statements:
        if isinstance(statement, Load) and statement.buffer.mode != "own":
            key = _key(statement, count)
            if key in found:
                found[key].append(statement)
                continue
            found[key] = [statement]
            groups.append(found[key])
            continue
        groups.append([statement])
        if isinstance(statement, Store):
            found = {key: group for key, group in found.items() if key[0] != id(statement.buffer)}
        elif not isinstance(statement, Op):
            found = {}
    return _in_order(groups)


def _stores_together(statements: Sequence[Stmt], count: int) -> list[Stmt]:
    groups: list[list[Stmt]] = []
    found: dict[_Key, list[Stmt]] = {}
    for statement in reversed(statements):
        key = _key(statement, count) if isinstance(statement, (Load, Store)) else None
        if isinstance(statement, Store) and statement.buffer.mode != "own" and key in found:
            found[key].append(statement)
            continue
        groups.append([statement])
        if key is not None:
            found = {other: group for other, group in found.items() if other[0] != key[0]}
            if isinstance(statement, Store):
                found[key] = groups[-1]
        elif not isinstance(statement, Op):
            found = {}
    return _in_order(groups[::-1])


def _in_order(groups: Sequence[list[Stmt]]) -> list[Stmt]:
    def place(statement: Stmt) -> int:
        return statement.index.const if isinstance(statement, (Load, Store)) else 0

    return [statement for group in groups for statement in sorted(group, key=place)]


def _key(access: Load | Store, count: int) -> _Key:
    """What accesses to neighbours have in common."""
    mine = access.result.type if isinstance(access, Load) else access.value.type
    where = access.index.terms, access.stride, id(access.offsets), id(access.mask)
    return id(access.buffer), *where, mine, access.index.const // count
