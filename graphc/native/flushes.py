"""Plans of native flushes: a program that what is pending asked for before runs again without Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphc.host import TransferExecutable
from graphc.interpreting import Interpreted
from graphc.ir.node import Node
from graphc.memory import purpose_of
from graphc.native.bringing import Taken, bring, current_stream, drive
from graphc.native.library import NativeLibrary
from graphc.native.plans import is_long
from graphc.native.rooming import RUN
from graphc.native.roomy_plans import roomy
from graphc.native.tables import Plan, Words
from graphc.options import code_key
from graphc.programs import Program, Segment
from graphc.recording import current
from graphc.room_programs import Run
from graphc.served import Served
from graphc_runtime.buffer import Buffer
from graphc_runtime.executor import SMALL_ARENA, DeviceExecutable, Executable
from graphc_runtime.options import CODE, KEY


@dataclass(frozen=True, slots=True)
class _Way:
    """How native code runs a program: words of the plan, what gives records of memory, and the arena that it needs."""

    words: dict[str, int]
    take: Callable[[int, object], int]
    arena: int = 0
    arena_name: str = ""


def plan_of(native: NativeLibrary, nodes: Sequence[Node], program: Program) -> tuple[object, ...] | None:
    """What a recorder keeps for the program of `nodes`: the address of a plan, and what that needs; None when Python
    must run the program.
    """
    key = code_key()
    *before, segment = program
    if CODE.get(KEY) is not key or segment.outputs != tuple(nodes):  # options of a scope are looked up by Python
        return None
    plan, first, count = Plan(), len(segment.inputs), len(nodes)
    addresses, buffers = plan.own([0] * (first + count + 1)), plan.own([0] * (count + 1))
    if isinstance(segment.executable, DeviceExecutable):
        way = _driven(plan, before, segment, addresses)
    else:
        way = None if before else _called(plan, native, nodes, segment.executable)
    if way is None:
        return None
    made = {node for earlier in before for node in earlier.outputs}
    bound = [(id(n), n.type.nbytes, addresses.at(i)) for i, n in enumerate(segment.inputs) if n not in made]
    aliases = segment.executable.output_aliases
    lent = [(id(segment.inputs[alias]), buffers.at(j)) for j, alias in enumerate(aliases) if alias >= 0]
    takes = [
        (buffers.at(j), way.take(node.type.nbytes, purpose_of(node)))
        for j, (node, alias) in enumerate(zip(nodes, aliases, strict=True))
        if alias < 0
    ]
    outputs = [(buffers.at(j), addresses.at(first + j)) for j in range(count)]
    if 0 < way.arena <= SMALL_ARENA:
        held = Buffer.allocate(way.arena, way.arena_name)
        plan.keep.append(held)
        addresses.values[first + count] = held.ptr
    elif way.arena:
        takes.append((buffers.at(count), way.take(way.arena, way.arena_name)))
        outputs.append((buffers.at(count), addresses.at(first + count)))
    for name, records in (("bound", bound), ("lent", lent), ("takes", takes), ("outputs", outputs)):
        plan.table(name, records)
    for name, value in {
        "shared": native.shared.address,
        "addresses": addresses.address,
        "owned": plan.own([0] * (first + count + 6)).address,
        "options": id(key),
        **way.words,
    }.items():
        plan.set(name, value)
    plan.keep += key, segment
    return plan.words.address, program, plan.words, plan.keep


def _called(plan: Plan, native: NativeLibrary, nodes: Sequence[Node], executable: Any) -> _Way | None:
    """The way of what is compiled for the CPU, for these sizes or for all."""
    if type(executable) is Executable and executable.native is not None:
        entry, table, _ = executable.native
        launches, release = len(executable.artifact.launches), int(is_long(executable))
        words = {"entry": entry, "runtime": table, "launches": launches, "release": release}
        return _Way(words, plan.take, executable.arena_bytes, executable.arena_name)
    run = executable.served if isinstance(executable, (Interpreted, Served)) else None
    made = roomy(plan, run, [node.type for node in nodes]) if isinstance(run, Run) else None
    if made is None:
        return None
    return _Way({"entry": native.code[RUN], "runtime": made[0], "launches": made[1]}, plan.take)


def _driven(plan: Plan, before: Sequence[Segment], segment: Segment, addresses: Words) -> _Way | None:
    """The way of a program on a device that the host drives, `before` which leaves of the host are brought to it."""
    executable: DeviceExecutable = segment.executable
    made = {node for earlier in before for node in earlier.outputs}
    hosted = [node for earlier in before for node in earlier.inputs]
    if not all(isinstance(s.executable, TransferExecutable) for s in before) or not made.isdisjoint(hosted):
        return None
    get, stream = current_stream(plan, executable.device)
    plan.table("calls", [(id(get), id(stream))])
    plan.table("hosted", [(id(node),) for node in hosted])
    read = [(i, node) for i, node in enumerate(segment.inputs) if node in made]
    if read:
        called = partial(_brought, before, [node for _, node in read])
        bring(plan, called, stream, [addresses.at(i) for i, _ in read])
    drive(plan, executable, stream, addresses)
    words = {"launches": len(executable.artifact.launches)}
    return _Way(words, Taken(plan, executable.device).take)


def _brought(before: Sequence[Segment], wanted: Sequence[Node]) -> list[Any]:
    """The buffers of nodes that are brought to the device."""
    bound, made = current().bound, dict[Node, Any]()
    for segment in before:
        given = [bound[node] for node in segment.inputs]
        made.update(zip(segment.outputs, segment.executable.run(given), strict=True))
    return [made[node] for node in wanted]
