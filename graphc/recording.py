"""The recorder: one per thread. It records operations as interned nodes and runs what is pending when somebody looks.

**Same nodes again.** Leaves (buffers that a pending program reads) are numbered by the smallest free number, and
numbers become free when neither pending work nor gradient history needs the leaf. So the second iteration of a loop
records the very same nodes, and its program is found by one look-up with the pending output nodes as the key.

**Bounds.** Pending work is run by itself after `MAX_PENDING` recorded operations or `MAX_PENDING_BYTES` bytes of
results, and after a round of a loop without gradients (`graphc.rounds`). The builder, which holds every node recorded,
is dropped once it holds `MAX_NODES` nodes and no history needs it; executables survive that, as they are also kept by
structure.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from graphc import programs
from graphc.apart import Apart
from graphc.collecting import no_collection
from graphc.counting import FRONT
from graphc.errors import GraphcError, UsageError
from graphc.interpreting import evaluated
from graphc.ir.builder import Builder
from graphc.ir.node import Location, Node
from graphc.late_checks import LateChecks, Problem
from graphc.leaves import Leaves, leaf_behind
from graphc.lending import lendable
from graphc.memory import LATE, AnyBuffer, constant
from graphc.options import INTERPRET, code_key
from graphc.recording_hooks import FLUSH, PLAN, WHEN_OFTEN, needed_later
from graphc.repeats import Repeats
from graphc.rounds import ROUND, Rounds
from graphc.served import may_be_served
from graphc.source import user_location
from graphc.storage import Binding, Lineage, Seen, Storage, Value, set_watching
from graphc_runtime.buffer import Buffer

MAX_PENDING = 10_000
MAX_PENDING_BYTES = 4 << 30
MAX_NODES = 200_000
KEPT_PROGRAMS = 1_024
KEPT_FLUSHES = 1_024
OFTEN = 256  # recorded operations from which on it pays to load native code for what is recorded again

SOURCES = frozenset(("input", "constant", "iota"))

Check = tuple[Node, Value, Problem]


class Recorder(Leaves):
    """Records operations of one thread. `b` is the builder; `lock` is held while recording and running."""

    # Slots, as native code reads them.
    __slots__ = (
        "_bytes", "_count", "_next", "_programs", "apart", "calls", "checks", "closures", "draws", "enter",
        "example_since", "flushes", "freed", "gradients", "is_new", "late", "leave", "lent", "lock", "most", "needed",
        "own", "pending", "place", "randomness", "repeated", "repeats", "round", "rounds", "seen", "shared", "sites",
        "token", "updates", "updating", "variables", "width",
    )  # fmt: skip

    threads: ClassVar[int] = 0  # that recorded something; and traces

    def __init__(self) -> None:
        super().__init__()
        self.token = object()  # by which others know it without keeping it
        self.lock = threading.RLock()
        self.enter, self.leave = self.lock.acquire, self.lock.release  # for native code
        self.repeats = Repeats()
        self.pending: list[weakref.ref[Storage]] = []  # also of storages that died or were computed since
        self.variables: dict[Node, weakref.ref[Value]] = {}
        # The variables of leaves that are others' in other threads, and the version of the memory that they stand for.
        self.shared: weakref.WeakKeyDictionary[Lineage, tuple[int, weakref.ref[Value]]] = weakref.WeakKeyDictionary()
        self.gradients: dict[tuple[object, ...], list[Node | None]] = {}
        self.needed: dict[Node, tuple[Node, ...]] = {}
        self.updates: dict[tuple[object, ...], tuple[tuple[int, Node], ...]] = {}
        self.checks: list[Check] = []
        self.late = LateChecks()
        self.seen: list[Seen] = []  # the views that the operation recorded last reads with gradients
        self.freed: list[Value] = []
        self.lent = False  # whether the operation that is recorded reads memory where it lies that NumPy may write
        # In `vmap`: the serial from which on storages hold the values of one example, and what random draws do.
        self.example_since: int | None = None
        # The keys of random draws, while somebody wants to know them, and those to give out again.
        self.draws: list[Binding] | None = None
        self.repeated: list[Binding] = []
        self.randomness = ""
        # Leaves that the call made which is looked at (`graphc.tensors.learning`), and the numbers, or generators, that
        # they are for.
        self.own: list[tuple[object, Binding]] | None = None
        self.sites: dict[tuple[int, int, str], Any] = {}  # what is known of Python numbers, by their calls
        self.closures: dict[Any, Any] = {}  # and of those that functions close over (`graphc.tensors.emitting`)
        self.calls: Any = None  # which operands calls had (`graphc.tensors.changing`)
        self.width = 1  # how many operands the call has that is recorded now, about
        self.updating = False  # whether calls are those of an optimizer's updates (`graphc.recorder`)
        self.is_new = False  # whether one had others than ever before, since the last program
        self.place = "cpu"  # the device of what is made from nothing now
        # For native code, by pending nodes, then None and those that values stand for, if there are any.
        self.flushes: dict[tuple[Node | None, ...], tuple[Any, ...] | None] = {}
        self._programs: OrderedDict[tuple[object, ...], programs.Program] = OrderedDict()
        self.apart = Apart()
        self.rounds = Rounds()
        self.most = self.round = ROUND  # recorded operations after which it is asked: now, and after the next program
        self._bytes = 0
        self._count = 0  # of operations
        self._next = OFTEN  # the operation after which `WHEN_OFTEN` is asked

    def read(self, storage: Storage) -> tuple[Node, Value | Binding]:
        """The node of the base tensor and what keeps it valid."""
        value = storage.value
        if value is not None:
            if storage.recorder is self:
                return value.node, value
            storage.realise()
        binding = self.leaf(storage)
        return binding.node, binding

    # pending work

    def before_replay(self) -> None:
        """A replay works on memory as it is, and wants to know who else holds it."""
        with self.lock:
            if self.has_pending():
                self.flush("")
            self.let_go()

    def has_pending(self) -> bool:
        """Whether something is recorded that a living storage waits for."""
        if not self.pending:
            return False
        held = [(ref, ref()) for ref in self.pending]
        self.pending = [ref for ref, s in held if s is not None and s.value is not None and s.recorder is self]
        return bool(self.pending)

    def begin(self) -> Builder:
        """Before recording an operation: runs pending work that passed a bound, gives new nodes the user's line."""
        self.seen = self.seen and []
        locs = user_location(3)
        if (len(self.pending) >= self.most or self._bytes >= MAX_PENDING_BYTES) and self.capture is None:
            self._at_bound(locs)
        self.b.locs = locs
        return self.b

    def _at_bound(self, place: frozenset[Location]) -> None:
        """Runs pending work that passed a bound, before an operation at `place` is recorded."""
        if len(self.pending) >= MAX_PENDING or self._bytes >= MAX_PENDING_BYTES:
            self.flush("")
        elif self.example_since is None:
            if self.rounds.ends(place, self.pending, self.turn):
                before = FRONT.program_hits
                self.flush("")
                self.rounds.ended(FRONT.program_hits == before, self.turn)
            self.round, self.most = self.rounds.first, min(self.rounds.next, MAX_PENDING)

    def recorded(self, node: Node) -> None:
        """After recording an operation that gave `node`."""
        FRONT.records += 1
        self._bytes += node.type.nbytes
        self.counted()

    def counted(self) -> None:
        """After an operation, recorded or done at once: native code is worth while where there are many."""
        self._count += 1
        if self._count == self._next:
            self._next = 0 if all(function() for function in WHEN_OFTEN) else self._next + OFTEN

    def check(self, node: Node, keep: Value, error: Problem) -> None:
        """Raise `error` at the next flush if the scalar `node` is true; a function finds the error, if any."""
        if isinstance(error, GraphcError):
            error.locs, error.made_now = self.b.locs, False
        self.checks.append((node, keep, error))

    def flush(self, reason: str) -> None:
        """Compute all pending storages. `reason` says who looks; it is empty when a bound was passed."""
        with self.lock:
            if self.example_since is not None and not reason:
                return
            if self.capture is not None:
                self.capture.give_up(reason, user_location())
            self._flush()

    def outputs(self) -> tuple[list[Storage], tuple[Node, ...]]:
        """The pending storages that live, and the nodes that a program must compute for them and for the checks."""
        storages: dict[Storage, None] = {}
        nodes: dict[Node, None] = {}
        bound, since = self.bound, self.example_since
        for ref in self.pending:
            storage = ref()
            if storage is None or storage.recorder is not self:
                continue
            value = storage.value
            if value is None or (since is not None and (storage.serial >= since or value.serial >= since)):
                continue
            storages[storage] = None
            node = value.node
            if node not in bound and node.op != "constant":
                nodes[node] = None
        if self.checks and since is None:
            nodes |= dict.fromkeys([node for node, _, _ in self.checks])
        return list(storages), tuple(nodes)

    def _is_example(self, storage: Storage) -> bool:
        """Whether a storage holds a value that was recorded inside `vmap`."""
        value, since = storage.value, self.example_since
        return since is not None and value is not None and value.serial >= since

    def look(self, storage: Storage) -> None:
        """The value of `storage` is looked at: it is computed, with all that is pending."""
        if self.example_since is not None and (storage.serial >= self.example_since or self._is_example(storage)):
            raise UsageError(
                "vmap: It looks like you're calling .item() on a Tensor. We don't support vmap over calling .item() on "
                "a Tensor, please try to rewrite what you're doing with other operations. So it is with everything "
                "that looks at a value, such as `if` on a Tensor or printing it."
            )
        if self.capture is None and self.example_since is None:
            with self.lock:
                self._flush()
        else:
            self.flush("an observation")

    def _flush(self) -> None:
        done: bool | None = True
        try:
            done = FLUSH[0](self)
        finally:  # a check may have found an error, after everything was computed
            if done:
                LATE.clear()
                self.clear_up()
        if done:
            return
        FRONT.flushes += 1
        try:
            with no_collection():  # which runs finalizers at any time: they may end what is bound, and record
                self._compute_pending()
        finally:
            LATE.clear()

    def clear_up(self) -> None:
        """After a native flush."""
        if not self.pending and (self.freed or self.parted or len(self.b) > MAX_NODES):
            self._forget()
        self._sweep_in_time()

    def compute_by_operators(self) -> None:
        """Compute what is pending as it is, where that takes little: no program is made of it, nor looked for."""
        if not self.pending:
            return
        count = len(self.pending)
        with no_collection():
            storages, nodes = self.outputs()
            results = evaluated(nodes, self.bound) if nodes else {}
            if results is not None:
                FRONT.flushes += 1
                FRONT.interpreted += 1
                self._settle(storages, results, count)

    def _compute_pending(self) -> None:
        count = len(self.pending)
        storages, nodes = self.outputs()
        saved = self._saved(storages) if self.capture is None else ()
        for _, needed in saved:
            nodes = tuple(dict.fromkeys((*nodes, *[n for n in needed if n not in self.bound])))
        results = self._computed(storages, nodes) if nodes else {}
        for value, needed in saved:
            value.saved = tuple([self.bind_cut(node, results[node]) for node in needed if node in results])
        self._settle(storages, results, count)

    def _computed(self, storages: Sequence[Storage], nodes: tuple[Node, ...]) -> dict[Node, AnyBuffer]:
        is_new, self.is_new = self.is_new and INTERPRET.get() and self.capture is None, False
        key = self._key(nodes, frozenset(), True)
        order: list[Node] | None = None
        if INTERPRET.get() and self.capture is None and key not in self._programs:
            order = programs.needed(nodes, self.bound.__contains__)
            program = programs.served_by(nodes, order)
            if program is not None:
                self._keep(key, program)
                return programs.run(program, self.bound)
            results = evaluated(nodes, self.bound) if is_new and not may_be_served(order) else None
            if results is not None:  # it likely is not wanted again
                FRONT.interpreted += 1
                return results
        program = self.program(nodes, interpret=True, order=order)
        if PLAN:
            self._plan_flush(storages, nodes, program)
        return programs.run(program, self.bound)

    def _saved(self, storages: Sequence[Storage]) -> list[tuple[Value, tuple[Node, ...]]]:
        """Pending single numbers that `backward` may be called on later, and what it will read."""
        found: list[tuple[Value, tuple[Node, ...]]] = []
        for storage in storages:
            value = storage.value
            if value is None or not value.grad or storage.type.size != 1 or value.freed:
                continue
            if value.name != "AccumulateGrad":
                found.append((value, needed_later(self, value)))
        return found

    def flush_captured(self, program: programs.Program) -> None:
        """Run what a finished capture recorded, as `program`, which computes all its outputs."""
        FRONT.flushes += 1
        self.capture = None
        count = len(self.pending)
        with no_collection():
            storages, _ = self.outputs()
            self._settle(storages, programs.run(program, self.bound), count)

    def compute(self, outputs: tuple[Node, ...]) -> dict[Node, AnyBuffer]:
        """The buffers of `outputs`, from what is bound now."""
        return programs.run(self.program(outputs, interpret=True), self.bound)

    def program(
        self,
        outputs: tuple[Node, ...],
        donated: frozenset[Node] = frozenset(),
        interpret: bool = False,
        order: list[Node] | None = None,
    ) -> programs.Program:
        """The program for `outputs`, by one look-up when it was built before. It may overwrite the leaves `donated`.
        The nodes that it computes, in their `order`, may be known.
        """
        key = self._key(outputs, donated, interpret)
        program = self._programs.get(key)
        if program is None or programs.is_due(program):
            program = programs.build(outputs, self.bound.__contains__, donated, interpret, order)
            self._keep(key, program)
        else:
            FRONT.program_hits += 1
            self._programs.move_to_end(key)
        return program

    def _keep(self, key: tuple[object, ...], program: programs.Program) -> None:
        self._programs[key] = program
        if len(self._programs) > KEPT_PROGRAMS:
            self._programs.popitem(last=False)

    def _key(self, outputs: tuple[Node, ...], donated: frozenset[Node], interpret: bool) -> tuple[object, ...]:
        return outputs, tuple(self.cuts.keys()) if len(self.cuts) else (), donated, interpret, code_key()

    def _plan_flush(self, storages: Sequence[Storage], nodes: tuple[Node, ...], program: programs.Program) -> None:
        """Let native code run `program`, or one that overwrites what nobody reads later, from the third time on."""
        flushes, key = self.flushes, (*nodes, None, *self.cuts.keys()) if len(self.cuts) else nodes
        if key not in flushes:
            if len(flushes) >= KEPT_FLUSHES:
                flushes.clear()
            flushes[key] = None
            return
        held = flushes[key]
        lent = lendable(self, storages)
        if lent and programs.overwrites(lending := self.program(nodes, lent, interpret=True)):
            program = lending
        elif held is not None and programs.overwrites(held[1]):
            return  # somebody holds what it overwrites, now
        if held is None or held[1] is not program:
            flushes[key] = PLAN[0](nodes, program)

    def _settle(self, storages: Sequence[Storage], results: dict[Node, AnyBuffer], count: int) -> None:
        """Give the storages what was computed for them; the first `count` of what is pending is done with."""
        self.seen = []
        inside = self.example_since is not None
        checks, self.checks = ([], self.checks) if inside else (self.checks, [])
        values = [s.value for s in storages]  # they hold bindings that others among them read
        used: set[int] = set()
        for storage in storages:
            value = storage.value
            assert value is not None
            node = value.node
            buffer = results.get(node)
            if buffer is None:
                buffer = constant(node) if node.op == "constant" else self.bound[node].copy()
            elif id(buffer) in used:
                buffer = buffer.copy()
            used.add(id(buffer))
            if (value.grad or value.gate is not None) and not value.freed and node.op != "constant":
                value.binding = leaf_behind(value) if node.op == "input" else self.bind_cut(node, buffer)
            storage.set_buffer(buffer)
        del values
        self._bytes, self.most = 0, self.round
        if inside:
            self.has_pending()
        else:
            del self.pending[:count]
            self._forget()
            self._keep_leaves()
        for node, _, problem in checks:
            self.late.judge(results[node], problem)
        if self.late and any(type(buffer) is Buffer for buffer in results.values()):
            self.late.raise_found()

    def _forget(self) -> None:
        """After a flush nothing is pending: leaves that no history needs give their numbers back."""
        freed, self.freed = self.freed, []
        for value in freed:
            lineage = value.lineage() if value.lineage is not None else None
            if lineage is not None and lineage.hist is value:
                lineage.hist = Value(value.node, (), value.name, True)
                lineage.hist.freed = True
        del freed
        if self.parted:
            for storage in self.parted:
                storage.slots = None
            self.parted.clear()
        if len(self.b) > MAX_NODES:
            self.reset()

    def reset(self) -> None:
        """Forget every node but those that living history holds; only when nothing is pending."""
        self.let_go()
        self.b = Builder()
        self.repeats.clear()
        self._programs.clear()
        self.flushes.clear()
        self.variables = {node: ref for node, ref in self.variables.items() if ref() is not None}
        self.gradients.clear()
        self.needed.clear()
        self.updates.clear()
        if not self.bound:
            self.free.clear()
            self._leaves = 0


class _Threads(threading.local):
    def __init__(self) -> None:
        self.recorder = Recorder()
        Recorder.threads += 1


THREADS = _Threads()


def current() -> Recorder:
    """The recorder of this thread."""
    return THREADS.recorder


def _watched(storage: Storage) -> None:
    """A captured call that looks at what was there before it cannot be replayed, computed or not."""
    capture = THREADS.recorder.capture
    if capture is not None and storage.serial <= capture.serial:
        capture.give_up("an observation", user_location())


set_watching(_watched)


@contextmanager
def using(recorder: Recorder) -> Iterator[None]:
    """Record with `recorder` inside the `with` block."""
    saved, THREADS.recorder = THREADS.recorder, recorder
    Recorder.threads += 1
    try:
        yield
    finally:
        THREADS.recorder = saved
