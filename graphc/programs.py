"""Programs: pending nodes turned into compiled executables, found again by their nodes or by their structure."""

from __future__ import annotations

import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any

import graphc
from graphc.any_size import Sized
from graphc.counting import FRONT
from graphc.errors import GraphcError
from graphc.host import HostExecutable, NumberTransfer, TransferExecutable, is_host, is_number, stages
from graphc.interpreting import LONG, Interpreted, Variants, compiling, is_drawn, is_worth, parts
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.visit import topological
from graphc.memory import AnyBuffer
from graphc.options import INTERPRET, code_key
from graphc.served import FEWEST, Served, keep_like, operators, served
from graphc.warned import warn
from graphc_runtime.errors import DeviceError, DeviceUnavailable

# A larger graph is cut into several programs, so that compile time stays linear and long chains repeat one program.
# What crosses a cut is stored, so the steps of most networks should stay whole.
SEGMENT_NODES = 4_000
# Values made again in each program that reads them rather than handed on: they would be stored for nothing.
_MADE_AGAIN = frozenset({"constant", "iota", "broadcast", "reshape"})
RUNS = 10  # of a program that is learnt and looked for, at least: of each shape one run is seen
# Executables kept by structure, the least recently used goes first.
KEPT_EXECUTABLES = 256


@dataclass(frozen=True, slots=True)
class Segment:
    """One executable and the nodes that its inputs and outputs stand for."""

    executable: Any
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]


Program = tuple[Segment, ...]

_executables: OrderedDict[tuple[object, ...], Any] = OrderedDict()
_variants: dict[str, Variants] = {}  # by device
_lock = threading.RLock()


def bits(value: object) -> object:
    """Attribute values as part of a key: floats by their bits."""
    return (value.hex(), "float") if type(value) is float else value


def canonical(
    inputs: Sequence[Node], outputs: Sequence[Node], order: Iterable[Node], name: str = "main"
) -> tuple[Graph, tuple[object, ...]]:
    """The graph from `inputs` to `outputs` over fresh nodes, inputs numbered in order, and its structure as a key.

    `order` holds the nodes in between, operands before users. All are of one device, which the graph does not name.
    """
    b = Builder()
    new: dict[Node, Node] = {}
    number: dict[Node, int] = {}
    key: list[object] = []
    for i, node in enumerate(inputs):
        type = node.type.on("cpu")
        new[node] = b.input(i, type)
        number[node] = i
        key.append(type)
    for node in order:
        if node in new:
            continue
        b.locs = node.locs
        type = node.type.on("cpu")
        new[node] = b.make(node.op, tuple(new[i] for i in node.inputs), node.attrs, type)
        number[node] = len(number)
        attrs = tuple((k, bits(v)) for k, v in node.attrs)
        key.append((node.op, tuple(number[i] for i in node.inputs), attrs, type))
    key.append(tuple(number[o] for o in outputs))
    return Graph(tuple(new[i] for i in inputs), tuple(new[o] for o in outputs), name), tuple(key)


def executable_for(graph: Graph, key: tuple[object, ...], donated: tuple[int, ...] = (), device: str = "cpu") -> Any:
    """The executable of a canonical graph on `device`, compiled unless one of that structure is kept.

    It may overwrite the inputs numbered in `donated`.
    """
    key = (device, donated, code_key(), *key)
    with _lock:
        found = _executables.get(key)
        if found is not None:
            _executables.move_to_end(key)
            FRONT.structure_hits += 1
            return found
        FRONT.programs_built += 1
        made = graphc.compiled.compile_graph(graph, donated, device)
        _executables[key] = made
        if len(graph.nodes) >= LONG:
            _variants_on(device).note_compiled(made)
        while len(_executables) > KEPT_EXECUTABLES:
            _executables.popitem(last=False)
        return made


def _variants_on(device: str) -> Variants:
    return _variants.setdefault(device, Variants(device))


def _compiled(graph: Graph, key: tuple[object, ...], donated: tuple[int, ...], device: str) -> Any:
    """`executable_for`. Where compilation fails, which is an error of graphc and of nothing that was recorded, it is
    told, and NumPy runs the program: what is pending must not keep all that comes later from being computed.
    """
    try:
        return executable_for(graph, key, donated, device)
    except (GraphcError, DeviceError, DeviceUnavailable, MemoryError):
        raise
    except Exception as error:
        warn(
            f"graphc could not compile a program of {len(graph.nodes)} operators, which is an error in graphc: "
            f"{type(error).__name__}: {error}, at {_place(error)}. NumPy computes it, which is slow. "
            "Please report it with the code that is traced here",
            RuntimeWarning,
        )
        made = Interpreted(graph, device=device)
        made.compile_never()
        with _lock:
            _executables[device, donated, code_key(), *key] = made
        return made


def _place(error: BaseException) -> str:
    """The file, without its folder, and the line that raised an error."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f"{PurePath(frame.f_code.co_filename).name}:{line}"


def _interpreted(graph: Graph, key: tuple[object, ...], order: Sequence[Node]) -> Interpreted | None:
    """What interprets a canonical graph, whose operators are those of `order`, where that is better than compiling."""
    if not INTERPRET.get():
        return None
    with _lock:
        return _variants_on(order[0].type.device).interpreted(graph, (code_key(), *key), order)


def _is_served(whole: Interpreted, graph: Graph, key: tuple[object, ...]) -> bool:
    """Whether what is compiled for all sizes runs a program, which `graph` shows. It learns what the program does."""
    same = whole.same
    assert same is not None
    with _lock:
        is_first = same.sized is None
        if is_first:
            same.sized = Sized(same.example or graph, whole.device)
        if not (same.sized.is_given_up or (is_first and same.example is None)):
            cost = whole.cost if whole.by_numpy else compiling(graph.nodes, whole.device)
            same.sized.learn(graph, cost, RUNS if len(graph.nodes) >= FEWEST else 1)
            whole.served = same.sized.runner(graph.inputs, graph.nodes[len(graph.inputs) :], graph.outputs)
        whole.seen = same.sized.changes
        if not whole.by_numpy:
            whole.compiled = partial(executable_for, graph, key, device=whole.device)
    return whole.served is not None


def is_due(program: Program) -> bool:
    """Whether a part of a program was interpreted so often that it is to be compiled, or may be done otherwise now."""
    held = [segment.executable for segment in program if type(segment.executable) in (Interpreted, Served)]
    return any(executable.is_due or executable.is_outdated for executable in held)


def needed(outputs: Sequence[Node], known: Callable[[Node], bool]) -> list[Node]:
    """The nodes that compute `outputs`, operands before users, from those whose value is `known`."""
    return [n for n in topological(outputs, known) if not known(n)]


def served_by(outputs: Sequence[Node], order: Sequence[Node]) -> Program | None:
    """The program of the nodes `order` that computes `outputs`, if something compiled for all sizes runs it, but for
    what is brought to its device first.
    """
    given, device = list(dict.fromkeys(outputs)), order[-1].type.device
    brought: list[Segment] = []
    if device != "cpu":
        *before, order = stages(order)
        if any(piece[0].op != "transfer" for piece in before) or not set(given) <= set(order):
            return None
        brought = [_bringing(piece, given) for piece in before]
    inputs = tuple(_operands(order))

    def otherwise() -> Any:
        graph, key = canonical(inputs, given, order)
        by_numpy = is_worth(graph, device) and not is_drawn(graph.nodes)
        return Interpreted(graph, device=device) if by_numpy else executable_for(graph, key, device=device)

    executable = served(inputs, order, given, otherwise)
    return None if executable is None else (*brought, Segment(executable, inputs, tuple(given)))


def _bringing(piece: Sequence[Node], wanted: Iterable[Node]) -> Segment:
    """The segment of transfers, some of which may be `wanted` outside of the program."""
    steady = is_number(piece[0]) and not set(wanted) & set(piece)
    executable = NumberTransfer(piece) if steady else TransferExecutable(piece)
    return Segment(executable, tuple(n.inputs[0] for n in piece), tuple(piece))


def build(
    outputs: Sequence[Node],
    known: Callable[[Node], bool],
    donated: frozenset[Node] = frozenset(),
    interpret: bool = False,
    order: Sequence[Node] | None = None,
) -> Program:
    """The program that computes `outputs` from nodes whose value is `known`; more than one segment when it is long, has
    operators that run on the host, or values on several devices.

    With `interpret` some are not compiled (`graphc/interpreting.py`). A program of one compiled segment, and else of
    transfers, may overwrite the buffers of the leaves `donated` that nothing but that segment reads.
    """
    if order is None:
        order = needed(outputs, known)
    pieces = [part[i : i + SEGMENT_NODES] for part in stages(order) for i in range(0, len(part), SEGMENT_NODES)]
    whole: Interpreted | None = None
    may_interpret = interpret
    changes: list[bool] = []
    made: tuple[Graph, tuple[object, ...]] | None = None  # of the only piece
    if interpret and len(pieces) == 1 and not is_host(order[0]) and order[0].op != "transfer":
        made = canonical(tuple(_operands(order)), list(dict.fromkeys(outputs)), order)
        whole, interpret = _interpreted(*made, order), False
        if whole is not None and len(order) >= FEWEST:
            keep_like(operators(order), whole.same)
        if whole is not None and _is_served(whole, *made):
            changes = [True]
        elif whole is not None and not whole.by_numpy:
            whole = None
        elif whole is not None:
            pieces, changes = map(list, zip(*parts(order, whole.changing), strict=True))
    if len(pieces) > 1:
        others = {order[i] for i in whole.changing} if whole is not None else set[Node]()
        pieces = [
            piece if is_host(piece[0]) else _with_cheap(piece, lambda n: known(n) or n in others) for piece in pieces
        ]
    wanted = set(outputs)
    operands = [_operands(piece) for piece in pieces]
    maker: dict[Node, int] = {}
    last_use: dict[Node, int] = {}
    for place, piece in enumerate(pieces):
        for node in piece:
            maker.setdefault(node, place)
        last_use.update(dict.fromkeys(operands[place], place))
    single = sum(piece[0].op != "transfer" for piece in pieces) == 1

    def read_once(node: Node) -> bool:
        return len(pieces) == 1 or sum(node in read for read in operands) == 1

    program: list[Segment] = []
    for place, piece in enumerate(pieces):
        taken = operands[place]
        given = [n for n in piece if maker[n] == place and (n in wanted or last_use.get(n, -1) > place)]
        if len(pieces) == 1:
            given = list(dict.fromkeys(outputs))
        if piece[0].op == "transfer":
            program.append(_bringing(piece, wanted))
            continue
        if is_host(piece[0]):
            program.append(Segment(HostExecutable(piece[0]), piece[0].inputs, (piece[0],)))
            continue
        graph, key = made if made is not None and len(pieces) == 1 else canonical(tuple(taken), given, piece)
        lent = tuple(i for i, n in enumerate(taken) if n in donated and read_once(n)) if single else ()
        executable: Any = _interpreted(graph, key, piece) if interpret else None
        if executable is not None and len(piece) >= FEWEST and executable.device != "cpu":
            keep_like(operators(piece), executable.same)
        if executable is not None and not _is_served(executable, graph, key) and not executable.by_numpy:
            executable = None
        if whole is not None and changes[place]:
            executable = whole if len(pieces) == 1 else Interpreted(graph, whole=whole, device=whole.device)
        elif executable is None:
            compile = _compiled if may_interpret else executable_for
            executable = compile(graph, key, lent, piece[0].type.device)
        program.append(Segment(executable, tuple(taken), tuple(given)))
    return tuple(program)


def main_of(program: Program) -> Segment | None:
    """The one segment of a program that computes, if all others are transfers."""
    if len(program) == 1:
        return program[0]
    computing = [s for s in program if not isinstance(s.executable, TransferExecutable)]
    single = len(computing) == 1 and not isinstance(computing[0].executable, HostExecutable)
    return computing[0] if single else None


def overwrites(program: Program) -> bool:
    """Whether a program writes into memory that it reads."""
    return any(max(segment.executable.output_aliases, default=-1) >= 0 for segment in program)


def _operands(piece: Sequence[Node]) -> dict[Node, None]:
    """What the nodes of `piece` read and do not make."""
    mine = set(piece)
    return dict.fromkeys(i for n in piece for i in n.inputs if i not in mine)


def _with_cheap(piece: list[Node], known: Callable[[Node], bool]) -> list[Node]:
    """`piece`, and what it reads that is made again, before it."""
    read = _operands(piece)
    again = topological(read, lambda n: known(n) or n.op not in _MADE_AGAIN)
    return [n for n in again if n.op in _MADE_AGAIN and not known(n)] + piece


def run(program: Program, bound: dict[Node, AnyBuffer]) -> dict[Node, AnyBuffer]:
    """Run the segments in order; the buffers of all that they gave. Nothing in `bound` is overwritten."""
    if len(program) == 1:  # as most have
        (segment,) = program
        given = _given(segment.executable, [bound[n] for n in segment.inputs])
        return dict(zip(segment.outputs, segment.executable.run(given), strict=True))
    results: dict[Node, AnyBuffer] = {}
    for segment in program:
        given = _given(segment.executable, [results[n] if n in results else bound[n] for n in segment.inputs])
        results.update(zip(segment.outputs, segment.executable.run(given), strict=True))
    return results


def _given(executable: Any, inputs: list[AnyBuffer]) -> list[AnyBuffer]:
    """`inputs`, with copies of those that the executable overwrites."""
    aliases = executable.output_aliases
    if max(aliases, default=-1) >= 0:
        for alias in aliases:
            if alias >= 0:
                inputs[alias] = inputs[alias].copy()
    return inputs
