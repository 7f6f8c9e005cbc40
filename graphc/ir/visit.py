"""Iterative walks over nodes. Nothing here recurses: a chain of 100 000 nodes must work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from graphc.ir.node import Node


def topological(roots: Iterable[Node], stop: Callable[[Node], bool] | None = None) -> list[Node]:
    """Every node that `roots` depend on, operands before users, in an order fixed by the graph's structure alone.

    Nodes for which `stop` is true are included, their operands are not visited through them.
    """
    order: list[Node] = []
    done: set[Node] = set()
    users: list[tuple[Node, Iterator[Node]]] = []  # of the node that is visited, and their other operands
    for root in roots:
        if root in done:
            continue
        done.add(root)
        node = root
        operands = iter(() if stop is not None and stop(node) else node.inputs)
        while True:
            for operand in operands:
                if operand not in done:
                    done.add(operand)
                    users.append((node, operands))
                    node = operand
                    operands = iter(() if stop is not None and stop(node) else node.inputs)
                    break
            else:
                order.append(node)
                if not users:
                    break
                node, operands = users.pop()
    return order


def users_of(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """For each node, the nodes among `nodes` that use it, in order (a node that uses it twice stands once)."""
    users: dict[Node, list[Node]] = {}
    for node in nodes:
        users.setdefault(node, [])
        for operand in dict.fromkeys(node.inputs):
            users.setdefault(operand, []).append(node)
    return users
