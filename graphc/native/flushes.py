"""Plans of native flushes: a program that what is pending asked for before runs again without Python."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.node import Node
from graphc.native.library import NativeLibrary
from graphc.native.plans import is_long
from graphc.native.tables import Plan
from graphc.options import code_key
from graphc.programs import Program
from graphc_runtime.buffer import Buffer
from graphc_runtime.executor import SMALL_ARENA, Executable
from graphc_runtime.options import CODE, KEY


def plan_of(native: NativeLibrary, nodes: Sequence[Node], program: Program) -> tuple[object, ...] | None:
    """What a recorder keeps for the program of `nodes`: the address of a plan, and what that needs; None when Python
    must run the program.
    """
    key = code_key()
    if len(program) != 1 or CODE.get(KEY) is not key:  # options of a scope are looked up by Python
        return None
    (segment,) = program
    executable = segment.executable
    if type(executable) is not Executable or executable.native is None or segment.outputs != tuple(nodes):
        return None
    plan, first, count = Plan(), len(segment.inputs), len(nodes)
    addresses, buffers = plan.own([0] * (first + count + 1)), plan.own([0] * (count + 1))
    sizes = [spec.nbytes for spec in executable.artifact.inputs]
    bound = [
        (id(node), size, addresses.at(i)) for i, (node, size) in enumerate(zip(segment.inputs, sizes, strict=True))
    ]
    aliases = executable.output_aliases
    lent = [(id(segment.inputs[alias]), buffers.at(j)) for j, alias in enumerate(aliases) if alias >= 0]
    takes = [
        (buffers.at(j), plan.take(node.type.nbytes, node.type))
        for j, (node, alias) in enumerate(zip(nodes, aliases, strict=True))
        if alias < 0
    ]
    outputs = [(buffers.at(j), addresses.at(first + j)) for j in range(count)]
    arena = executable.arena_bytes
    if 0 < arena <= SMALL_ARENA:
        held = Buffer.allocate(arena, executable.arena_name)
        plan.keep.append(held)
        addresses.values[first + count] = held.ptr
    elif arena:
        takes.append((buffers.at(count), plan.take(arena, executable.arena_name)))
        outputs.append((buffers.at(count), addresses.at(first + count)))
    for name, records in (("bound", bound), ("lent", lent), ("takes", takes), ("outputs", outputs)):
        plan.table(name, records)
    entry, table, _ = executable.native
    for name, value in {
        "shared": native.shared.address,
        "release": int(is_long(executable)),
        "entry": entry,
        "runtime": table,
        "addresses": addresses.address,
        "launches": len(executable.artifact.launches),
        "owned": plan.own([0] * (first + count + 5)).address,
        "options": id(key),
    }.items():
        plan.set(name, value)
    plan.keep += key, segment
    return plan.words.address, program, plan.words, plan.keep
