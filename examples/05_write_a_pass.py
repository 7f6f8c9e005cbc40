"""Write a pass: a function from graphs to graphs. This one turns x·x·x·x into (x·x)·(x·x), one multiplication less.

A pass that changes nothing returns the same object; nodes are interned, so `is` compares them.
"""

from dataclasses import dataclass

import graphc
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.passes.base import Pass, rebuild, run_passes


@dataclass(frozen=True)
class FourthPower(Pass):
    """((x·x)·x)·x becomes (x·x)·(x·x)."""

    name = "fourth_power"
    doc = "x·x·x·x in two multiplications"

    def run(self, graph: Graph) -> Graph:
        return rebuild(graph, self.replace)

    def replace(self, builder: Builder, node: Node) -> Node | None:
        """The node that stands for `node`, or None to keep it."""
        if node.op != "mul":
            return None
        cube, x = node.inputs
        if cube.op != "mul" or cube.inputs[1] is not x or cube.inputs[0] is not builder.mul(x, x):
            return None
        square = builder.mul(x, x)
        return builder.mul(square, square)


def f(x):
    return x * x * x * x + 1.0


def multiplications(graph: Graph) -> int:
    return sum(node.op == "mul" for node in graph.nodes)


before = graphc.trace(f, graphc.ones(5))
after = run_passes(before, [FourthPower()], verify_each=True)
print(before)
print(after)
print("multiplications:", multiplications(before), "->", multiplications(after))
print("nothing left to do:", FourthPower().run(after) is after)
