"""Replays of captured calls: a flat plan, made once, of where inputs come from and where results go.

A replay gathers buffers into one list of *slots*, makes one native call and hands the results out. No dictionary and no
node is touched.

**Memory.** Who else can see a buffer is read from reference counts, which are exact: storages, pending work, history
and NumPy arrays all hold the buffer they read. A parameter that nobody else sees is overwritten in place by its new
value; one that somebody sees is copied first. The same holds for `.grad`: when nothing but the parameter holds the
gradient of the last step, its tensor and memory are used again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from graphc.guards import Guards
from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.late_checks import Problem, found
from graphc.memory import ALONE, AnyBuffer, constant, driven, purpose_of
from graphc.options import code_key
from graphc.programs import Program, main_of
from graphc.random import key_buffer
from graphc.recording import Recorder
from graphc.signatures import argument_buffer, restore
from graphc.storage import Lineage, Storage
from graphc.tensors.core import new
from graphc_runtime.buffer import Buffer

# Memory of a written storage's last value is kept for its next one up to this size; larger blocks go to the pool.
_SPARE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where a leaf of the program comes from.

    `kind` is "storage", "argument" (a place), "gradient" (of a tensor), "call" (a function), "number" (a place among
    the float arguments) or "key" (of a random draw).
    """

    kind: str
    what: Any


@dataclass(slots=True)
class Recorded:
    """What a captured call was found to do; the material of a replay.

    `sources` holds every leaf that is read. `written` storages and the gradients of `written_gradients` get the value
    of a node, as do arguments by their place in `written_arguments`; `fresh` are results' storages. `new_gradients`
    says how to make `.grad` anew (None: no gradient), `draws` which generators draw, in order, with the key's leaf,
    `fixed` which tensors must stand at places of arguments: their gradients are used, or they are captured too.
    """

    program: Program
    sources: dict[Node, Source]
    written: list[tuple[Storage, Node]]
    written_gradients: list[tuple[Any, Node]]
    written_arguments: list[tuple[int, Node]]
    fresh: list[tuple[TensorType, Node]]
    new_gradients: list[tuple[Any, Any]]
    result: Any
    checks: list[tuple[Node, Problem]]
    draws: list[tuple[Any, Node | None]]
    fixed: list[tuple[int, Any]]


@dataclass(slots=True)
class _Scratch:
    """Memory of a replay in flight, used again by later ones: numbers with their buffers, and `outputs` that are there
    already: those that only checks read (their contents are `flags`), and what written storages held before, for their
    next values. `missing` says where such an output must be made.
    """

    numbers: list[np.ndarray]
    buffers: list[Buffer]
    outputs: list[Buffer | None]
    flags: list[np.ndarray]
    missing: list[tuple[int, TensorType]]


class Replay:
    """One captured call, ready to be replayed while its guards hold."""

    def __init__(
        self, guards: Guards, grads: list[tuple[Any, Any]], shared: list[Storage | None], recorded: Recorded
    ) -> None:
        self.code = code_key()  # the options that it was compiled under; callers look at them
        self._guards = guards
        self._grads = grads  # tensors whose .grad is read first, with the type it must have (None: no gradient)
        self._shared = shared  # for each tensor argument the captured storage that it lies over, or None
        self._fixed = recorded.fixed
        self.is_fixed = frozenset(place for place, _ in recorded.fixed)  # places of arguments
        self._captured = guards.storages()
        self._result = recorded.result
        self._scratch: list[_Scratch] = []
        self.natives: dict[Any, Any] = {}  # native forms, by the classes of the arguments; None where there is none
        self._slots: dict[Node, int] = {}
        self._claimed: set[int] = set()
        self._plan_inputs(recorded)
        self._plan_segments(recorded.program)
        self._plan_results(recorded)
        self._plan_outputs(recorded)
        self._slots = {}

    def failure(self, tensors: Sequence[Any]) -> str | None:
        """Why this replay does not fit now and these arguments, or None."""
        if self._captured:
            for place, (tensor, shared) in enumerate(zip(tensors, self._shared, strict=True)):
                if self._captured.get(id(tensor._storage)) is not shared:
                    return "an argument shares memory with other captured tensors than before"
                if shared is not None and place not in self.is_fixed and self._guards.holds(tensor):
                    return "an argument is a captured tensor"
        for place, tensor in self._fixed:
            if tensors[place] is not tensor:
                return "an argument is another tensor, and the function tells them apart"
        for tensor, expected in self._grads:
            held = tensor._grad
            if held is not None and held._chain:
                return "a gradient is a view now"
            if (None if held is None else held._type) != expected:
                return f"a gradient was {expected}, is {None if held is None else held._type}"
        return self._guards.failure()

    # planning

    def _plan_inputs(self, recorded: Recorded) -> None:
        """Slots of inputs, in the order in which `_gather` fills them."""
        leaves: dict[str, list[Node]] = {k: [] for k in ("storage", "argument", "gradient", "call", "number")}
        for node, source in recorded.sources.items():
            if source.kind in leaves:
                leaves[source.kind].append(node)
        keys = [node for _, node in recorded.draws if node is not None and node in recorded.sources]
        for node in (*(n for group in leaves.values() for n in group), *keys):
            self._slots[node] = len(self._slots)
        found = {kind: [recorded.sources[n].what for n in nodes] for kind, nodes in leaves.items()}
        self._storages: list[Storage] = found["storage"]
        self._arguments: list[int] = found["argument"]
        self._gradients: list[Any] = found["gradient"]
        self._computes, self._places = found["call"], found["number"]
        self._number_types = [n.dtype.numpy for n in (*leaves["call"], *leaves["number"])]
        self._draws = [(g, n is not None and n in recorded.sources) for g, n in recorded.draws]
        self._constants: list[Buffer] = []
        results = (recorded.written, recorded.written_gradients, recorded.written_arguments, recorded.fresh)
        for node in (n for pairs in results for _, n in pairs):
            if node.op == "constant" and node not in self._slots:
                self._slots[node] = len(self._slots)
                self._constants.append(constant(node))

    def _plan_segments(self, program: Program) -> None:
        self._segments: list[tuple[Any, list[int]]] = []
        self._first_output = self._main_output = len(self._slots)
        main = self._main = main_of(program)
        # Whether values of other devices come to the host.
        self._brings = any(s.outputs[0].op == "transfer" and s.outputs[0].type.device == "cpu" for s in program)
        for segment in program:
            self._segments.append((segment.executable, [self._slots[n] for n in segment.inputs]))
            if segment is main:
                self._main_output = len(self._slots)
            for node in segment.outputs:
                self._slots.setdefault(node, len(self._slots))
        if main is not None:
            place = program.index(main)
            self._before, self._after = self._segments[:place], self._segments[place + 1 :]
            self._executable, self._reads = self._segments[place]

    def _take(self, node: Node) -> tuple[int, bool]:
        """The slot of a result, and whether it must be copied, as its memory belongs to somebody else."""
        slot = self._slots[node]
        if slot < self._first_output or slot in self._claimed:
            return slot, True
        self._claimed.add(slot)
        return slot, False

    def _plan_results(self, recorded: Recorded) -> None:
        self._written = [(s, *self._take(n)) for s, n in recorded.written]
        self._written_gradients = [(t, *self._take(n)) for t, n in recorded.written_gradients]
        self._written_arguments = [(place, *self._take(n)) for place, n in recorded.written_arguments]
        places = [made.storage for _, made in _made_in(recorded)]
        self._fresh: list[tuple[int, TensorType, int, bool]] = []
        self._kept: list[tuple[Any, TensorType, int]] = []
        self._new_gradients: list[tuple[Any, Any]] = []
        owners = {}
        for owner, recipe in recorded.new_gradients:
            if (
                recipe is not None
                and recipe[0] == "made"
                and is_plain(recipe[2])
                and places.count(recipe[2].storage) == 1
            ):
                owners[recipe[2].storage] = owner
            else:
                self._new_gradients.append((owner, recipe))
        for place, (type, node) in enumerate(recorded.fresh):
            slot, copied = self._take(node)
            if place in owners and not copied:
                self._kept.append((owners[place], type, slot))
            else:
                self._fresh.append((place, type, slot, copied))
                if place in owners:
                    self._new_gradients.append((owners[place], _recipe_of(recorded, owners[place])))
        self._blank: list[Any] = [None] * len(recorded.fresh)
        # The commonest result by far: one new tensor over all of its own memory.
        self._whole: tuple[TensorType, tuple[int, ...], int] | None = None
        result = recorded.result
        if len(self._fresh) == 1 and not self._fresh[0][3] and result is not None and result[0] == "made":
            made = result[2]
            if is_plain(made) and made.storage == self._fresh[0][0] and not made.offset and not self._new_gradients:
                self._whole = (made.type, made.strides, self._fresh[0][2])
                self._fresh = []

    def _plan_outputs(self, recorded: Recorded) -> None:
        """Of a program of one segment: where each output goes."""
        self._aliases: list[tuple[int, int]] = []
        self._allocated: list[int] = []
        # Storages whose memory is exchanged for that of the output, which they had before.
        self._exchanged: list[tuple[Storage, int, TensorType]] = []
        self._scratched: list[int] = []
        self._kept_outputs: list[tuple[Any, TensorType, int]] = []
        # Gradients that lie in memory that an input had.
        self._taken_over: list[tuple[Any, TensorType, int]] = []
        self._outputs: list[Any] = []
        self._is_simple = self._in_order = False
        flags: dict[Node, int] = {}
        segment = self._main
        if segment is not None:
            device = segment.outputs[0].type.device if segment.outputs else "cpu"
            source: Any = Buffer if device == "cpu" else driven(device)
            self._allocate_all = source.allocate_all
            self._outputs = [None] * len(segment.outputs)
            kept = {slot: (owner, type) for owner, type, slot in self._kept}
            read = {id(s) for s in self._storages}
            exchanged = {slot: s for s, slot, copied in self._written if not copied and id(s) in read}
            for j, (node, alias) in enumerate(zip(segment.outputs, segment.executable.output_aliases, strict=True)):
                slot = self._main_output + j
                if alias >= 0:
                    self._aliases.append((j, alias))
                    if slot in kept:
                        self._taken_over.append((*kept[slot], j))
                elif slot in kept:
                    self._kept_outputs.append((*kept[slot], j))
                elif slot not in self._claimed and device == "cpu":
                    flags[node] = len(self._scratched)
                    self._scratched.append(j)
                elif slot in exchanged and node.type.nbytes <= _SPARE_BYTES:
                    self._exchanged.append((exchanged[slot], j, node.type))
                else:
                    self._allocated.append(j)
            self._purposes = [purpose_of(node) for node in segment.outputs]
            self._sizes = [segment.outputs[j].type.nbytes for j in self._allocated]
            self._what = [self._purposes[j] for j in self._allocated]
            places = self._reads
            # Nothing is written in place, used again or checked.
            self._is_simple = len(self._allocated) == len(self._outputs) and not (
                self._written
                or self._written_arguments
                or self._written_gradients
                or self._new_gradients
                or recorded.checks
            )
            self._pick = itemgetter(*places) if len(places) > 1 else None  # of one place it gives no tuple
            self._in_order = places == list(range(self._main_output))
            taken = {id(storage) for storage, *_ in self._exchanged}
            self._written = [entry for entry in self._written if id(entry[0]) not in taken]
            self._scratch_bytes = [segment.outputs[j].type.nbytes for j in self._scratched]
        # Checks: by the place of their scratch memory, or by slot.
        self._flags = [(flags[n], error) for n, error in recorded.checks if n in flags]
        self._checks = [(self._slots[n], error) for n, error in recorded.checks if n not in flags]

    def _new_scratch(self) -> _Scratch:
        numbers = [np.zeros(1, dtype) for dtype in self._number_types]
        outputs = self._outputs.copy()
        for place, j in enumerate(self._scratched):
            outputs[j] = Buffer.allocate(self._scratch_bytes[place])
        flags = [outputs[j].array for j in self._scratched]
        missing = [(j, type) for _, j, type in self._exchanged]
        return _Scratch(numbers, [Buffer.from_array(n) for n in numbers], outputs, flags, missing)

    # running

    def run(self, recorder: Recorder, tensors: Sequence[Any], floats: Sequence[float]) -> Any:
        """Do what the captured call did, with these arguments. The caller holds the recorder's lock; nothing is
        pending.
        """
        try:
            scratch = self._scratch.pop()
        except IndexError:
            scratch = self._new_scratch()
        slots = self._gather(scratch, tensors, floats)
        if self._is_simple:
            return self._run_simple(recorder, slots, scratch, tensors)
        if self._main is not None:
            self._run_one(recorder, slots, scratch)
        else:
            for executable, places in self._segments:
                slots += executable.run([slots[i] for i in places])
            for owner, type, slot in self._kept:
                owner._grad = new(Storage(recorder, type, None, slots[slot]), type, Lineage())
        if self._exchanged:
            self._exchange(slots, scratch)
        for storage, slot, copied in self._written:
            write_buffer(storage, slots[slot].copy() if copied else slots[slot])
        for tensor, slot, copied in self._written_gradients:
            write_buffer(tensor._grad._storage, slots[slot].copy() if copied else slots[slot])
        for place, slot, copied in self._written_arguments:
            write_buffer(tensors[place]._storage, slots[slot].copy() if copied else slots[slot])
        storages = self._made(recorder, slots)
        made: dict[int, Any] = {}
        for tensor, recipe in self._new_gradients:
            tensor._grad = None if recipe is None else restore(recipe, storages, tensors, made)
        failed = None
        for place, problem in self._flags:
            failed = failed or found(problem, scratch.flags[place])
        self._scratch.append(scratch)
        if failed is not None:
            raise failed
        for slot, problem in self._checks:
            recorder.late.judge(slots[slot], problem)
        if self._brings and recorder.late:
            recorder.late.raise_found()
        return self._results(recorder, slots, storages, tensors, made)

    def _run_simple(self, recorder: Recorder, slots: list[Any], scratch: _Scratch, tensors: Sequence[Any]) -> Any:
        for executable, places in self._before:
            slots += executable.run([slots[i] for i in places])
        inputs = slots if self._in_order else [slots[i] for i in self._reads]
        made = self._allocate_all(self._sizes, self._what)
        self._executable.launch(inputs, made)
        self._scratch.append(scratch)
        slots += made
        for executable, places in self._after:
            slots += executable.run([slots[i] for i in places])
        return self._results(recorder, slots, self._made(recorder, slots), tensors, {})

    def _made(self, recorder: Recorder, slots: list[Any]) -> list[Any]:
        """Storages of new tensors, by their places."""
        if not self._fresh:
            return self._blank  # nobody asks for one
        storages = self._blank.copy()
        for place, type, slot, copied in self._fresh:
            storages[place] = Storage.over(recorder, type, slots[slot].copy() if copied else slots[slot])
        return storages

    def _results(self, recorder: Recorder, slots: list[Any], storages: Any, tensors: Sequence[Any], made: Any) -> Any:
        whole = self._whole
        if whole is not None:
            type, strides, slot = whole
            return new(Storage.over(recorder, type, slots[slot]), type, Lineage(), (), strides)
        return restore(self._result, storages, tensors, made)

    def _gather(self, scratch: _Scratch, tensors: Sequence[Any], floats: Sequence[float]) -> list[Any]:
        slots: list[Any] = []
        for storage in self._storages:
            slots.append(storage.buffer if storage.value is None else storage.realise())
        for place in self._arguments:
            tensor = tensors[place]
            storage = tensor._storage
            slots.append(storage.buffer if storage.value is None and not tensor._chain else argument_buffer(tensor))
        for tensor in self._gradients:
            slots.append(argument_buffer(tensor._grad))
        if scratch.numbers:
            arrays = iter(scratch.numbers)
            for compute in self._computes:
                next(arrays)[0] = compute()
            for place in self._places:
                next(arrays)[0] = floats[place]
            slots += scratch.buffers
        for generator, read in self._draws:
            if read:
                slots.append(key_buffer(generator))
            else:
                generator.skip()
        if self._constants:
            slots += self._constants
        return slots

    def _exchange(self, slots: list[Any], scratch: _Scratch) -> None:
        """Written storages get their outputs; the memory that they had is kept for the next ones."""
        count = sys.getrefcount
        first, spares, missing = self._main_output, scratch.outputs, []
        for storage, j, type in self._exchanged:
            before, buffer = storage.buffer, slots[first + j]
            if storage.value is storage.external is storage.export is None:
                storage.version += 1
                if storage.counter is not None:
                    storage.counter[0] += 1
                storage.buffer = buffer
                storage.slot = storage.slots = None
            else:
                write_buffer(storage, buffer)
            # `slots` and the variable hold it: when there is more, somebody looks at the old value.
            if before is not None and before is not storage.buffer and count(before) == ALONE and before.of_pool:
                spares[j] = before
            else:
                spares[j] = None
                missing.append((j, type))
        scratch.missing = missing

    def _run_one(self, recorder: Recorder, slots: list[Any], scratch: _Scratch) -> None:
        for executable, places in self._before:
            slots += executable.run([slots[i] for i in places])
        inputs = [slots[i] for i in self._reads] if self._pick is None else list(self._pick(slots))
        outputs: list[Any] = scratch.outputs.copy()
        count = sys.getrefcount
        for j, alias in self._aliases:
            buffer = inputs[alias]
            # Its storage, `slots`, `inputs` and the variable: when there is more, somebody may look at the old value.
            if count(buffer) != ALONE + 2 or not buffer.of_pool:
                inputs[alias] = buffer = buffer.copy()
            outputs[j] = buffer
        anew = self._taken_over.copy()
        wanted = scratch.missing.copy()  # outputs that need memory, besides those that always do
        for owner, type, j in self._kept_outputs:
            held = owner._grad
            if held is not None and held._type is type and count(held) == ALONE:
                storage, lineage = held._storage, held._lineage
                buffer = storage.buffer
                if (
                    count(storage) == count(lineage) == count(buffer) == ALONE
                    and storage.value is lineage.hist is held._grad is None
                    and not (held._chain or lineage.requires_grad)
                    and buffer.of_pool
                ):
                    storage.version = lineage.version = 0
                    storage.slot = storage.slots = None
                    outputs[j] = buffer
                    continue
            wanted.append((j, type))
            anew.append((owner, type, j))
        places, sizes, what = self._allocated, self._sizes, self._what
        if wanted:
            places = places + [j for j, _ in wanted]
            what = what + [self._purposes[j] for j, _ in wanted]
            sizes = sizes + [type.nbytes for _, type in wanted]
        for j, buffer in zip(places, self._allocate_all(sizes, what), strict=True):
            outputs[j] = buffer
        self._executable.launch(inputs, outputs)
        for owner, type, j in anew:
            owner._grad = new(Storage(recorder, type, None, outputs[j]), type, Lineage())
        slots += outputs
        for executable, places in self._after:
            slots += executable.run([slots[i] for i in places])


def write_buffer(storage: Storage, buffer: AnyBuffer) -> None:
    storage.version += 1
    if storage.counter is not None:
        storage.counter[0] += 1
    if storage.value is storage.external is storage.export is None or storage.buffer is buffer:
        storage.buffer = buffer
        storage.slot = storage.slots = None
    else:
        storage.set_buffer(buffer)


def is_lent(type: TensorType) -> bool:
    """Whether a program may overwrite what it reads of a written storage. Small values of other devices go to and fro
    between two places: any result may take over what is lent, and a graph of launches wants addresses it had before."""
    return type.device == "cpu" or type.nbytes > _SPARE_BYTES


def is_plain(made: Any) -> bool:
    """Whether a result is the whole of a new storage, without history."""
    return type(made.storage) is int and not (made.chain or made.name or made.requires_grad)


def _made_in(recorded: Recorded) -> list[tuple[str, Any]]:
    """All recipes of new tensors among results and gradients."""
    found: list[tuple[str, Any]] = []
    stack = [recorded.result, *(recipe for _, recipe in recorded.new_gradients)]
    while stack:
        recipe = stack.pop()
        if recipe is None:
            continue
        tag, _, what = recipe
        if tag == "made":
            found.append((tag, what))
        elif tag in ("seq", "named"):
            stack.extend(what)
        elif tag == "dict":
            stack.extend(w for _, w in what)
    return found


def _recipe_of(recorded: Recorded, owner: Any) -> Any:
    return next(recipe for tensor, recipe in recorded.new_gradients if tensor is owner)
