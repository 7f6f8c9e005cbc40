"""Operators without a kernel of their own: their NumPy reference runs between the compiled parts of a program.

They are ordinary nodes: recorded, differentiated, traced and replayed like all others. `docs/pytorch.md` lists them,
and `graphc.counters()["host_calls"]` counts their runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.counting import FRONT
from graphc.ir.node import Node
from graphc.ir.opdef import OPS, attrs_of
from graphc_runtime.buffer import Buffer


def is_host(node: Node) -> bool:
    """Whether the operator of `node` runs on the host."""
    return OPS[node.op].kind == "host"


def stages(order: Sequence[Node]) -> list[list[Node]]:
    """`order` (operands before users) in parts that run one after the other: compiled ones, and single host nodes."""
    if not any(is_host(n) for n in order):
        return [list(order)] if order else []
    level: dict[Node, int] = {}
    compiled: list[list[Node]] = [[]]
    hosted: list[list[Node]] = [[]]
    for node in order:
        at = max((level[i] + is_host(i) for i in node.inputs if i in level), default=0)
        level[node] = at
        while len(compiled) <= at:
            compiled.append([])
            hosted.append([])
        (hosted if is_host(node) else compiled)[at].append(node)
    parts: list[list[Node]] = []
    for nodes, hosts in zip(compiled, hosted, strict=True):
        parts += [nodes] if nodes else []
        parts += [[node] for node in hosts]
    return parts


class HostExecutable:
    """Runs one host operator where a program runs an executable."""

    output_aliases = (-1,)

    def __init__(self, node: Node) -> None:
        self._evaluate = OPS[node.op].evaluate
        self._attrs = attrs_of(node)
        self._types = tuple(i.type for i in node.inputs)
        self._type = node.type

    def run(self, inputs: Sequence[Buffer]) -> list[Buffer]:
        """The result for the operands' buffers."""
        FRONT.host_calls += 1
        arrays = [b.view(t.dtype.numpy, t.shape) for b, t in zip(inputs, self._types, strict=True)]
        with np.errstate(all="ignore"):
            made = self._evaluate(arrays, self._attrs, self._type)
        return [Buffer.from_array(np.array(made, self._type.dtype.numpy, order="C", copy=True))]

    def launch(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        """`run` into given memory."""
        np.copyto(outputs[0].array, self.run(inputs)[0].array)
