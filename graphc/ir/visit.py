"""Iterative walks over nodes. Nothing here recurses: a chain of 100 000 nodes must work."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from graphc.ir.node import Node


def topological(roots: Iterable[Node], stop: Callable[[Node], bool] | None = None) -> list[Node]:
    """Every node that `roots` depend on, operands before users, in an order fixed by the graph's structure alone.

    Nodes for which `stop` is true are included, their operands are not visited through them.
    """
    order: list[Node] = []
    done: set[Node] = set()
    stack: list[tuple[Node, int]] = []
    for root in roots:
        if root in done:
            continue
        stack.append((root, 0))
        done.add(root)
        while stack:
            node, i = stack.pop()
            inputs = () if stop is not None and stop(node) else node.inputs
            while i < len(inputs) and inputs[i] in done:
                i += 1
            if i < len(inputs):
                stack.append((node, i + 1))
                stack.append((inputs[i], 0))
                done.add(inputs[i])
            else:
                order.append(node)
    return order


def users_of(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """For each node, the nodes among `nodes` that use it, in order (a node that uses it twice stands once)."""
    users: dict[Node, list[Node]] = {}
    for node in nodes:
        users.setdefault(node, [])
        for operand in dict.fromkeys(node.inputs):
            users.setdefault(operand, []).append(node)
    return users
