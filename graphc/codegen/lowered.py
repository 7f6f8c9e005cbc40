"""What lowering gives: a kernel with the values it works on."""

from __future__ import annotations

from graphc.codegen.kernel import Kernel
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.schedule import Scratch


@record
class Lowered:
    """A kernel, the value behind each of its parameters, and how many bytes into it each begins (not given: 0)."""

    kernel: Kernel
    buffers: tuple[Node | Scratch, ...]
    starts: tuple[int, ...] = ()
