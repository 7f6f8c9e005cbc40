"""`graphc.compile`: a call captured once with its state, then replayed without running its Python code.

A capture is an ordinary recorded call, watched: what it reads becomes the program's inputs (arguments, captured
tensors by reference,
numbers of optimizers, keys of random draws), what it leaves behind becomes the outputs (returned tensors, tensors
written in place,
`.grad`). Python values it depends on are guarded (`guards`). A call that looks at a value, or does something else
that a replay cannot
repeat, is simply an ordinary call.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import programs
from graphc.capture import Capture
from graphc.counting import FRONT
from graphc.grad_mode import MODE
from graphc.guards import Guards, Unguardable
from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.random import key_buffer
from graphc.recorder import runtime_scalar
from graphc.recording import Recorder, copy_buffer, current, fill, raise_checks
from graphc.signatures import Recipes, argument_buffer, flatten, originals, rebuild, restore, stand_in_for, tensors_in
from graphc.storage import Storage, next_serial
from graphc.tensors.core import TensorBase
from graphc_runtime.buffer import Buffer

# Captures of one signature that may fail a guard before the function is run plainly for good.
MOST_CAPTURES = 8
# Calls in a row that could not be captured before it is tried no more.
MOST_FAILURES = 4

_reasons: list[str] = []


def explain_recompiles() -> list[str]:
    """Why compiled functions captured a call again, or could not be captured, in order."""
    return list(_reasons)


def _report(text: str) -> None:
    _reasons.append(text)
    if "recompiles" in os.environ.get("GRAPHC_LOGS", ""):
        print(f"graphc: {text}", file=sys.stderr)


@dataclass(slots=True)
class _Entry:
    """One captured call, ready to be replayed."""

    guards: Guards
    grads: list[tuple[Any, Any]]  # tensors whose .grad is read first, with the type it must have (None: no gradient)
    program: programs.Program
    sources: dict[Node, Any]
    draws: list[tuple[Any, Node | None]]
    written: list[tuple[Storage, Node]]
    fresh: list[tuple[TensorType, Node]]
    new_grads: list[tuple[Any, Any]]  # tensors and how to make their .grad (None: no gradient)
    result: Any
    checks: list[tuple[Node, Exception]]
    written_args: list[tuple[int, Node]]

    def failure(self) -> str | None:
        """Why this entry does not fit now, or None."""
        for tensor, expected in self.grads:
            held = tensor._grad
            if (None if held is None else held._type) != expected:
                return f"a gradient was {expected}, is {None if held is None else held._type}"
        return self.guards.failure()


class Compiled:
    """A function compiled by `graphc.compile`; call it as the function."""

    def __init__(self, function: Callable[..., Any], name: str, fullgraph: bool = False) -> None:
        self._function = function
        self._name = name
        self._fullgraph = fullgraph
        self._entries: dict[Any, list[_Entry]] = {}
        self._captures: dict[Any, int] = {}
        self._failures: dict[Any, int] = {}
        self._floats: dict[int, float] = {}
        self._changing: set[int] = set()
        self._fixed: set[int] = set()
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        recorder = current()
        if recorder.capture is not None:
            return self._function(*args, **kwargs)
        tensors: list[Any] = []
        floats: list[float] = []
        objects: list[Any] = []
        structure = flatten((args, kwargs), tensors, floats, objects)
        key = (structure, self._float_key(floats), MODE.enabled)
        with recorder.lock:
            reason = None
            for entry in self._entries.get(key, ()):
                reason = entry.failure()
                if reason is None:
                    return self._replay(recorder, entry, tensors, floats)
            if reason is not None:
                FRONT.recompiles += 1
                _report(f"{self._name}: captured again because {reason}")
            elif self._entries and key not in self._captures:
                FRONT.recompiles += 1
                _report(f"{self._name}: captured again because its arguments differ from those before")
            if self._captures.get(key, 0) >= MOST_CAPTURES or self._failures.get(key, 0) >= MOST_FAILURES:
                return self._function(*args, **kwargs)
            return self._capture(recorder, key, (args, kwargs), tensors, floats, objects)

    def _float_key(self, floats: list[float]) -> tuple[Any, ...]:
        """Float arguments are constants until one is seen to change; then it is read at run time."""
        key: list[Any] = []
        for place, value in enumerate(floats):
            if place in self._changing:
                key.append("changes")
                continue
            if place not in self._fixed and self._floats.setdefault(place, value) != value:
                self._changing.add(place)
                key.append("changes")
                continue
            key.append(value.hex())
        return tuple(key)

    # capturing

    def _capture(
        self,
        recorder: Recorder,
        key: Any,
        call: Any,
        tensors: list[Any],
        floats: list[float],
        objects: list[Any],
    ) -> Any:
        FRONT.captures += 1
        recorder.flush("")
        try:
            guards = Guards()
            guards.add_root(self._function, self._name)
            for value in objects:
                guards.add_root(value, "an argument")
        except Unguardable as reason:
            FRONT.capture_breaks += 1
            self._failures[key] = MOST_FAILURES
            _report(f"{self._name}: run plainly, as it depends on {reason}, which cannot be guarded")
            return self._function(*call[0], **call[1])
        stand_ins = [stand_in_for(t) for t in tensors]
        numbers = [runtime_scalar(v) if p in self._changing else v for p, v in enumerate(floats)]
        args, kwargs = rebuild(call, list(stand_ins), list(numbers))
        capture = recorder.capture = Capture(next_serial())
        try:
            result = self._function(*args, **kwargs)
        except BaseException:
            recorder.capture = None
            raise
        made: _Entry | None = None
        try:
            if not capture.broken:
                made = self._entry(recorder, capture, guards, tensors, stand_ins, numbers, result)
        finally:
            recorder.capture = None
        if made is None:
            return self._give_up(recorder, key, capture, call, tensors, stand_ins, result)
        self._failures.pop(key, None)
        self._captures[key] = self._captures.get(key, 0) + 1
        self._entries.setdefault(key, []).insert(0, made)
        del self._entries[key][MOST_CAPTURES:]
        return originals(result, tensors, stand_ins)

    def _give_up(
        self,
        recorder: Recorder,
        key: Any,
        capture: Capture,
        call: Any,
        tensors: list[Any],
        stand_ins: list[Any],
        result: Any,
    ) -> Any:
        FRONT.capture_breaks += 1
        if self._failures.get(key, 0) == 0:
            _report(f"{self._name}: this call was not captured because of {capture.broken}")
        self._failures[key] = self._failures.get(key, 0) + 1
        for place in self._changing:
            self._fixed.add(place)
        self._changing.clear()
        for tensor, stand_in in zip(tensors, stand_ins, strict=True):
            if stand_in is not tensor and stand_in._storage.version:
                tensor.copy_(stand_in)
        if self._fullgraph and not capture.broken.startswith("new state"):
            raise RuntimeError(f"{self._name} cannot be captured as a whole: {capture.broken}")
        return originals(result, tensors, stand_ins)

    def _entry(
        self,
        recorder: Recorder,
        capture: Capture,
        guards: Guards,
        tensors: list[Any],
        stand_ins: list[Any],
        numbers: list[Any],
        result: Any,
    ) -> _Entry | None:
        """Run what the call recorded, and keep it for replays. None, with the reason in `capture`, when it cannot be
        replayed.
        """
        for compute, expected in capture.guards:
            guards.add_call(compute, expected)
        fresh = self._fresh_storages(recorder, capture, result)
        if fresh is None:
            return None
        places = {id(storage): place for place, storage in enumerate(fresh)}
        arguments = {id(t._storage): ("arg", i) for i, t in enumerate(stand_ins)}
        arguments |= {id(n._storage): ("number", i) for i, n in enumerate(numbers) if isinstance(n, TensorBase)}
        recipe = Recipes(capture, places, {id(t): i for i, t in enumerate(stand_ins)})
        returned = recipe.of(result)
        new_grads = [(note.tensor, recipe.of(note.tensor._grad)) for note in capture.grads.values()]
        if capture.broken:
            return None
        storages, nodes = recorder.outputs()
        written = [(s, s.value.node) for s in storages if s.serial < capture.serial and s.value is not None]
        made = [(s.type, s.value.node if s.value is not None else None) for s in fresh]
        checks = list(recorder.checks)
        grads_read = {
            id(note.before._storage): ("grad", note.tensor)
            for note in capture.grads.values()
            if note.before is not None and note.before is not False
        }
        program = recorder.program(nodes) if nodes else ()
        sources = self._sources(recorder, program, capture, (s for s in storages), arguments, grads_read)
        if sources is None:
            return None
        outputs = [n for _, n in written] + [n for _, n in made if n is not None]
        for node in outputs:
            if node in recorder.bound and node not in sources:
                source = _source_of(recorder, node, capture, arguments, grads_read)
                if source is None:
                    return None
                sources[node] = source
        draws = [(generator, key.node if key is not None else None) for generator, key in capture.draws]
        argument_storages = {id(t._storage): i for i, t in enumerate(stand_ins)}
        written_args = [(argument_storages[id(s)], n) for s, n in written if id(s) in argument_storages]
        if any(stand_ins[i] is not tensors[i] for i, _ in written_args):
            capture.give_up("a write to an argument that is a view of a larger tensor")
            return None
        entry = _Entry(
            guards,
            [
                (n.tensor, None if n.before is None else n.before._type)
                for n in capture.grads.values()
                if n.before is not False
            ],
            program,
            sources,
            draws,
            [(s, n) for s, n in written if id(s) not in argument_storages],
            [(type, node) for type, node in made if node is not None],
            new_grads,
            returned,
            [(node, error) for node, _, error in checks],
            written_args,
        )
        recorder.flush_captured()
        return entry

    def _fresh_storages(self, recorder: Recorder, capture: Capture, result: Any) -> list[Storage] | None:
        """Storages made by the call that it returns or leaves in `.grad`; None when others survive it too."""
        wanted: dict[int, Storage] = {}
        for tensor in tensors_in(result):
            wanted[id(tensor._storage)] = tensor._storage
        for note in capture.grads.values():
            if note.tensor._grad is not None:
                wanted[id(note.tensor._grad._storage)] = note.tensor._grad._storage
        for attempt in range(2):
            storages, _ = recorder.outputs()
            others = [s for s in storages if s.serial > capture.serial and id(s) not in wanted]
            if not others:
                break
            del storages
            if attempt:
                capture.give_up("new state that the call leaves behind (such as an optimizer's, at the first step)")
                return None
            del others
            gc.collect()
        fresh = [s for s in wanted.values() if s.serial > capture.serial]
        if any(s.value is None for s in fresh):
            capture.give_up("a tensor made from host data inside the function")
            return None
        return fresh

    def _sources(
        self, recorder: Recorder, program: programs.Program, capture: Capture, storages: Any, arguments: Any, grads: Any
    ) -> dict[Node, Any] | None:
        """Where each leaf that the program reads comes from at a replay."""
        sources: dict[Node, Any] = {}
        given: set[Node] = set()
        for segment in program:
            for node in segment.inputs:
                if node in given or node in sources:
                    continue
                source = _source_of(recorder, node, capture, arguments, grads)
                if source is None:
                    return None
                sources[node] = source
            given.update(segment.outputs)
        return sources

    # replaying

    def _replay(self, recorder: Recorder, entry: _Entry, tensors: list[Any], floats: list[float]) -> Any:
        FRONT.replays += 1
        if recorder.pending:
            recorder.flush("")
        bound: dict[Node, Buffer] = {}
        for generator, node in entry.draws:
            if node is None or node not in entry.sources:
                generator.skip()
            else:
                bound[node] = key_buffer(generator)
        for node, (kind, what) in entry.sources.items():
            if kind == "storage":
                bound[node] = what.realise()
            elif kind == "arg":
                bound[node] = argument_buffer(tensors[what])
            elif kind == "grad":
                bound[node] = argument_buffer(what._grad)
            elif kind == "call":
                bound[node] = Buffer.from_array(np.array(what(), np.float64))
            elif kind == "number":
                bound[node] = Buffer.from_array(np.array(floats[what], np.float64))
        results = programs.run(entry.program, bound)
        used: set[int] = set()

        def take(node: Node) -> Buffer:
            buffer = results.get(node)
            if buffer is None:
                return fill(node) if node.op == "constant" else copy_buffer(bound[node])
            if id(buffer) in used:
                return copy_buffer(buffer)
            used.add(id(buffer))
            return buffer

        for storage, node in entry.written:
            storage.version += 1
            storage.set_buffer(take(node))
        for place, node in entry.written_args:
            tensors[place]._storage.version += 1
            tensors[place]._storage.set_buffer(take(node))
        storages = [Storage(recorder, type, None, take(node)) for type, node in entry.fresh]
        for tensor, made in entry.new_grads:
            tensor._grad = None if made is None else restore(made, storages, tensors)
        raise_checks([(node, None, error) for node, error in entry.checks], results)  # type: ignore[list-item]
        return restore(entry.result, storages, tensors)


def _source_of(recorder: Recorder, node: Node, capture: Capture, arguments: Any, grads: Any) -> Any:
    binding = recorder.binding_of(node)
    source = None if binding is None else binding.source
    if isinstance(source, Storage):
        if id(source) in arguments:
            return arguments[id(source)]
        if id(source) in grads:
            return grads[id(source)]
        if source.origin is not None:
            return ("call", source.origin)
        if source.serial > capture.serial:
            return ("storage", source) if not source.version else None
        return ("storage", source)
    if any(key is not None and key.node is node for _, key in capture.draws):
        return ("key", None)
    capture.give_up("a value computed before the call that is not stored in a tensor")
    return None


class CompiledModule:
    """A module whose call is compiled; everything else is the module's."""

    def __init__(self, module: Any, fullgraph: bool) -> None:
        self.__dict__["_orig_mod"] = module
        self.__dict__["_compiled"] = Compiled(module.__call__, type(module).__name__, fullgraph)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._orig_mod, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._orig_mod, name, value)

    def __repr__(self) -> str:
        return f"Compiled({self._orig_mod!r})"


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
) -> Any:
    """Compile a function or a module: the first call is captured, later ones with the same kinds of arguments are
    replayed.

    A replay does not run Python code. It reads the current contents of captured tensors, the current hyper-parameters
    of optimizers and
    draws fresh random numbers, writes parameters, gradients and optimizer state, and returns new result tensors.
    Python values that the
    function reads are guarded: when one changed, the call is captured again (`explain_recompiles` says why). A
    function that looks at
    values (prints, `item`, `if` on a tensor) runs as ordinary code; with `fullgraph=True` that is a RuntimeError.
    `dynamic`, `backend`
    and `mode` are accepted for PyTorch's sake and have no effect. Usable as a decorator, with or without arguments.
    """
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph)
    if hasattr(model, "forward") and hasattr(model, "parameters"):
        return CompiledModule(model, fullgraph)
    if not callable(model):
        raise TypeError(f"graphc.compile wants a function or a module, not {type(model).__name__}")
    return Compiled(model, getattr(model, "__qualname__", type(model).__name__), fullgraph)
