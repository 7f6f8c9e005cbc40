"""What runs between the compiled parts of a program: operators without a kernel of their own, and transfers.

They are ordinary nodes: recorded, differentiated, traced and replayed like all others. Of an operator without a kernel
the NumPy reference runs, on copies of what lies on other devices; `docs/pytorch.md` lists them, and
`graphc.counters()["host_calls"]` counts their runs.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.counting import FRONT
from graphc.ir.node import Node
from graphc.ir.opdef import OPS, attrs_of
from graphc.ir.small_matrices import has_kernel
from graphc.memory import (
    ALONE,
    TOGETHER,
    AnyBuffer,
    copy_into,
    driven,
    from_host,
    moved_all,
    packed_places,
    part,
    purpose_of,
    values_of,
)
from graphc_runtime.buffer import Buffer

_FEW = 16  # bytes: a number, or the key of a draw


def is_host(node: Node) -> bool:
    """Whether `node` runs between compiled parts."""
    return OPS[node.op].kind == "host" and not has_kernel(node)


def stages(order: Sequence[Node]) -> list[list[Node]]:
    """`order` (operands before users) in parts that run one after the other: compiled ones, each for one device, single
    host nodes, and transfers to one device.
    """
    if not order:
        return []
    device = order[0].type.device
    if not any(is_host(n) or n.type.device != device for n in order):
        return [list(order)]
    # The host nodes of a level run before its compiled ones, so that what moves leaves cuts nothing.
    level: dict[Node, int] = {}
    compiled: list[dict[str, list[Node]]] = [{}]
    hosted: list[list[Node]] = [[]]
    for node in order:
        host = is_host(node)
        at = max((level[i] + (host and not is_host(i)) for i in node.inputs if i in level), default=0)
        level[node] = at
        while len(compiled) <= at:
            compiled.append({})
            hosted.append([])
        if host:
            hosted[at].append(node)
        else:
            compiled[at].setdefault(node.type.device, []).append(node)
    parts: list[list[Node]] = []
    for nodes, hosts in zip(compiled, hosted, strict=True):
        parts += _host_parts(hosts)
        parts += nodes.values()
    return parts


def is_number(node: Node) -> bool:
    """Whether a transfer brings a number, or little more, from the host: a setting, the key of a draw."""
    return node.type.nbytes <= _FEW and node.inputs[0].type.device == "cpu"


def _host_parts(hosts: Sequence[Node]) -> list[list[Node]]:
    """Host nodes of one level, one by one but for transfers that wait for none of them, which go together: numbers, and
    all others.
    """
    level = set(hosts)
    together: dict[tuple[str, bool], list[Node]] = {}
    single: list[list[Node]] = []
    for node in hosts:
        if node.op == "transfer" and node.inputs[0] not in level:
            together.setdefault((node.type.device, is_number(node)), []).append(node)
        else:
            single.append([node])
    return [*together.values(), *single]


class HostExecutable:
    """Runs one host operator where a program runs an executable."""

    output_aliases = (-1,)

    def __init__(self, node: Node) -> None:
        self._evaluate = OPS[node.op].evaluate
        self._attrs = attrs_of(node)
        self._types = tuple(i.type for i in node.inputs)
        self._type = node.type
        self._purpose = purpose_of(node)

    def run(self, inputs: Sequence[AnyBuffer]) -> list[AnyBuffer]:
        """The result for the operands' buffers."""
        FRONT.host_calls += 1
        arrays = [values_of(b, t) for b, t in zip(inputs, self._types, strict=True)]
        with np.errstate(all="ignore"):
            made = self._evaluate(arrays, self._attrs, self._type)
        array = np.array(made, self._type.dtype.numpy, order="C", copy=True)
        return [from_host(array, self._type.device, self._purpose)]

    def launch(self, inputs: Sequence[AnyBuffer], outputs: Sequence[AnyBuffer]) -> None:
        """`run` into given memory."""
        copy_into(outputs[0], self.run(inputs)[0])


class TransferExecutable:
    """Moves values to a device where a program runs an executable."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.output_aliases = (-1,) * len(nodes)
        self._device = nodes[0].type.device
        self._purposes = [purpose_of(node) for node in nodes]

    def run(self, inputs: Sequence[AnyBuffer]) -> list[AnyBuffer]:
        """The values on the device, in memory of their own."""
        FRONT.transfers += len(inputs)
        return moved_all(inputs, self._device, self._purposes)

    def launch(self, inputs: Sequence[AnyBuffer], outputs: Sequence[AnyBuffer]) -> None:
        """`run` into given memory."""
        for target, made in zip(outputs, self.run(inputs), strict=True):
            copy_into(target, made)


class NumberTransfer(TransferExecutable):
    """Moves numbers, again when one has changed, or for another stream: to where they lay, while nobody holds what was
    there. What it gives must not be written.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        super().__init__(nodes)
        self._parts = packed_places([node.type.nbytes for node in nodes])
        self._packed = np.zeros(sum(self._parts[-1]), np.uint8)
        self._source = Buffer.from_array(self._packed)
        self._whole: Any = None  # the memory on the device
        self._made: list[AnyBuffer] = []  # its parts
        self._last: tuple[Any, bytes] | None = None  # the stream that they were brought on, and they
        self._lock = threading.Lock()

    def run(self, inputs: Sequence[AnyBuffer]) -> list[AnyBuffer]:
        """The numbers on the device."""
        now = driven(self._device).current_stream, b"".join([buffer.array.tobytes() for buffer in inputs])
        with self._lock:
            if now != self._last:
                self._bring(inputs)
                self._last = now
            # A list of their own keeps them from being written before the caller has used them.
            return [*self._made]

    def _bring(self, inputs: Sequence[AnyBuffer]) -> None:
        FRONT.transfers += len(inputs)
        device = driven(self._device)
        for (start, nbytes), buffer in zip(self._parts, inputs, strict=True):
            self._packed[start : start + nbytes] = buffer.array
        if self._is_free(device):
            device.write(self._whole, self._source)
        else:
            self._whole = device.upload(self._source, TOGETHER)
            self._made = [part(self._whole, start, nbytes) for start, nbytes in self._parts]

    def _is_free(self, device: Any) -> bool:
        """Whether what is on the stream reads the memory before it is written again, and nothing else does."""
        stream = device.current_stream
        if self._whole is None or self._whole.device is not device or stream is not device.default_stream:
            return False
        # The list and the variable hold each.
        return all(sys.getrefcount(buffer) == ALONE and not buffer.is_shared for buffer in self._made)
