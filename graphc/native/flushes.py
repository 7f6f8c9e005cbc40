"""Plans of native flushes: a program that what is pending asked for before runs again without Python."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.any_size import Run
from graphc.interpreting import Interpreted
from graphc.ir.node import Node
from graphc.native.library import NativeLibrary
from graphc.native.plans import is_long
from graphc.native.rooming import RUN
from graphc.native.roomy_plans import roomy
from graphc.native.tables import Plan
from graphc.options import code_key
from graphc.programs import Program
from graphc.served import Served
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
    if segment.outputs != tuple(nodes):
        return None
    plan, first, count = Plan(), len(segment.inputs), len(nodes)
    arena, arena_name, release = 0, "", False
    if type(executable) is Executable and executable.native is not None:
        entry, table, _ = executable.native
        arena, arena_name, release = executable.arena_bytes, executable.arena_name, is_long(executable)
        launches = len(executable.artifact.launches)
    else:
        run = executable.served if isinstance(executable, (Interpreted, Served)) else None
        made = roomy(plan, run, [node.type for node in nodes]) if isinstance(run, Run) else None
        if made is None:
            return None
        entry, (table, launches) = native.code[RUN], made
    addresses, buffers = plan.own([0] * (first + count + 1)), plan.own([0] * (count + 1))
    bound = [(id(node), node.type.nbytes, addresses.at(i)) for i, node in enumerate(segment.inputs)]
    aliases = executable.output_aliases
    lent = [(id(segment.inputs[alias]), buffers.at(j)) for j, alias in enumerate(aliases) if alias >= 0]
    takes = [
        (buffers.at(j), plan.take(node.type.nbytes, node.type))
        for j, (node, alias) in enumerate(zip(nodes, aliases, strict=True))
        if alias < 0
    ]
    outputs = [(buffers.at(j), addresses.at(first + j)) for j in range(count)]
    if 0 < arena <= SMALL_ARENA:
        held = Buffer.allocate(arena, arena_name)
        plan.keep.append(held)
        addresses.values[first + count] = held.ptr
    elif arena:
        takes.append((buffers.at(count), plan.take(arena, arena_name)))
        outputs.append((buffers.at(count), addresses.at(first + count)))
    for name, records in (("bound", bound), ("lent", lent), ("takes", takes), ("outputs", outputs)):
        plan.table(name, records)
    for name, value in {
        "shared": native.shared.address,
        "release": int(release),
        "entry": entry,
        "runtime": table,
        "addresses": addresses.address,
        "launches": launches,
        "owned": plan.own([0] * (first + count + 5)).address,
        "options": id(key),
    }.items():
        plan.set(name, value)
    plan.keep += key, segment
    return plan.words.address, program, plan.words, plan.keep
