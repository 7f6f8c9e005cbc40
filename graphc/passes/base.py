"""What a pass is, and how passes run one after the other."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import ClassVar

from graphc.errors import CompileError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.ir.verify import verify


@record
class Fact:
    """A property of graphs that passes require or ensure. It is read off the graph, not off the passes run before."""

    name: str
    holds: Callable[[Graph], bool]


PRIMITIVE = Fact("only primitive operators", lambda g: all(OPS[n.op].kind != "composite" for n in g.nodes))
NO_DETACH = Fact("no detach", lambda g: all(n.op != "detach" for n in g.nodes))


class Pass(ABC):
    """A transformation of graphs. Subclasses are records or frozen dataclasses; their fields, all with a default, are
    its options.

    `run` returns a graph with the same inputs and the same output types, and the same object when nothing changes.
    """

    name: ClassVar[str]
    doc: ClassVar[str]
    requires: ClassVar[tuple[Fact, ...]] = ()
    ensures: ClassVar[tuple[Fact, ...]] = ()

    @abstractmethod
    def run(self, graph: Graph) -> Graph: ...

    def __str__(self) -> str:
        """The pass as `parse_pipeline` reads it: its name, and the options that differ from their defaults."""
        options = fields(self)  # type: ignore[arg-type]  # of the subclass, which is a dataclass
        given = [(f.name, getattr(self, f.name)) for f in options if getattr(self, f.name) != f.default]
        options = ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in given)
        return f"{self.name}{{{options}}}" if options else self.name


Observer = Callable[[Pass, Graph, Graph, float], None]  # the pass, the graph before and after it, seconds


def run_passes(
    graph: Graph, passes: Sequence[Pass], verify_each: bool = False, observer: Observer | None = None
) -> Graph:
    """`graph` after all of `passes`, in order.

    `verify_each` checks the graph and what each pass promises after it; `observer` is told of each pass. Raises
    CompileError that names the passes run before when one lacks what it requires.
    """
    if verify_each:
        verify(graph)
    done: list[str] = []
    for step in passes:
        _check(step, graph, step.requires, "requires", done)
        start = time.perf_counter()
        result = step.run(graph)
        seconds = time.perf_counter() - start
        if verify_each:
            verify(result)
            _check(step, result, step.ensures, "promises", done)
        if observer is not None:
            observer(step, graph, result, seconds)
        graph = result
        done.append(str(step))
    return graph


def _check(step: Pass, graph: Graph, facts: Iterable[Fact], verb: str, done: Sequence[str]) -> None:
    for fact in facts:
        if not fact.holds(graph):
            before = f"after {', '.join(done)}" if done else "with no pass before it"
            raise CompileError(f"pass {step} {verb} {fact.name}, which does not hold ({before})")


def rebuild(graph: Graph, replace: Callable[[Builder, Node], Node | None]) -> Graph:
    """`graph` with each node replaced by `replace(builder, node)`, where that is not None; operands are replaced first.

    A replacement has the node's type and is not visited itself. The same object when nothing is replaced.
    """
    builder = Builder.of(graph)
    done: dict[Node, Node] = {}
    for node in graph.nodes:
        builder.locs = node.locs
        operands = tuple([done[operand] for operand in node.inputs])
        same = node if operands == node.inputs else builder.make(node.op, operands, node.attrs, node.type)
        done[node] = replace(builder, same) or same
    return graph.with_outputs(tuple(done[node] for node in graph.outputs))
