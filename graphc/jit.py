"""`graphc.compile`: a call captured once with its state, then replayed without running its Python code.

A capture is an ordinary recorded call, watched: what it reads becomes the program's inputs (arguments, captured tensors
by reference, numbers of optimizers, keys of random draws), what it leaves behind becomes the outputs (returned tensors,
tensors written in place, `.grad`). Python values it depends on are guarded (`guards`). A call that looks at a value, or
does something else that a replay cannot repeat, is simply an ordinary call.
"""

from __future__ import annotations

import functools
import gc
import math
import sys
import threading
import types
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from graphc.capture import Capture
from graphc.counting import FRONT
from graphc.errors import InputError, KindError, UsageError
from graphc.float_arguments import FloatArguments, with_floats
from graphc.grad_mode import MODE
from graphc.guards import Guards, Unguardable
from graphc.ir.node import Node
from graphc.many_shapes import MOST_SHAPES, ManyShapes
from graphc.native import readers
from graphc.native.entering import CALL
from graphc.native.library import library
from graphc.native.ready import Ready
from graphc.native.recent import Recent
from graphc.options import TUNE, code_key, scope
from graphc.recompiles import report
from graphc.recorder import runtime_scalar
from graphc.recording import Recorder, current
from graphc.replay import Recorded, Replay, Source, is_lent
from graphc.signatures import (
    Plain,
    Recipes,
    aliasing,
    flatten,
    obstacle,
    rebuild,
    same_objects,
    stand_in_for,
    tensors_in,
)
from graphc.storage import Binding, Storage, next_serial
from graphc.tensors.casting import OPEN, STATE, Key
from graphc.tensors.core import TensorBase
from graphc.tensors.learning import MISSED
from graphc_runtime.counters import COUNTERS

# Captures of one signature that may fail a guard before the function is run plainly for good.
MOST_CAPTURES = 8
# Calls in a row that could not be captured before it is tried no more.
MOST_FAILURES = 4
# Of a class with a compiled method, whose captures are kept, and with them the instances: as many as a deep network has
# layers of one class, or each of its steps would capture all again.
MOST_INSTANCES = 64
MOST_SIGNATURES = 1_024  # whose captures are kept; objects among arguments, which they keep, may be others at each call
# What a first call may do that makes its state, also where the whole must be captured.
_STATE = ("new state", "a change to what it depends on")

_BINDING = threading.Lock()


def _is_inside(recorder: Recorder) -> bool:
    """Whether another captured call, or `vmap`, goes on: what is compiled is a part of it."""
    return recorder.capture is not None or recorder.example_since is not None


class Compiled(Ready):
    """A function compiled by `graphc.compile`; call it as the function."""

    __slots__ = ("__dict__", "__weakref__")

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        fullgraph: bool = False,
        tune: float | None = None,
        shapes: int = MOST_SHAPES,
    ) -> None:
        self._function = function
        self._name = name
        self._fullgraph = fullgraph
        self._options = {} if tune is None else {TUNE.name: tune}
        self._entries: dict[Any, list[Replay]] = {}
        self._recent: Recent | None = None
        self._ready = None  # of `_recent`
        self._captures: dict[Any, int] = {}
        self._shapes = ManyShapes(shapes)
        self._failures: dict[Any, int] = {}
        self._floats = FloatArguments(self._looks_at_numbers)
        # Under autocast it is another function; captures of each state are kept apart.
        self._casting: Key | None = None
        self._under: dict[Key | None, Compiled] = {}
        self._bound: dict[int, Compiled] = {}
        functools.update_wrapper(self, function, updated=())

    def __get__(self, instance: Any, owner: type | None = None) -> Compiled:
        """The method of an instance, when the compiled function stands in a class."""
        if instance is None:
            return self
        found = self._bound.get(id(instance))  # which holds the instance: no other has its identity
        if found is not None:
            return found
        made = self._like(types.MethodType(self._function, instance))
        with _BINDING:
            while len(self._bound) >= MOST_INSTANCES:
                del self._bound[next(iter(self._bound))]
            return self._bound.setdefault(id(instance), made)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies begin without captures: those belong to what this function has captured."""
        tune = self._options.get(TUNE.name)
        return Compiled, (self._function, self._name, self._fullgraph, tune, self._shapes.most)

    def _like(self, function: Callable[..., Any]) -> Compiled:
        """Another function, compiled in the same way."""
        made = Compiled(function, self._name, self._fullgraph, shapes=self._shapes.most)
        made._options = self._options
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if OPEN and STATE.key != self._casting:
            return self._for(STATE.key)(*args, **kwargs)
        recent = self._recent
        if recent is not None and (call := recent.call) is not None and tuple(kwargs) == recent.plain.names:
            result = call(*args, *kwargs.values()) if kwargs else call(*args)
            if result is not MISSED:
                return result
            recorder = current()
            if (recorder.pending or recorder.kept) and not _is_inside(recorder):
                recorder.before_replay()
                result = call(*args, *kwargs.values())
                if result is not MISSED:
                    return result
        recorder = current()
        if _is_inside(recorder):
            return self._function(*args, **kwargs)
        with recorder.lock:
            recent = self._recent
            if (
                recent is not None
                and recent.entry.code is code_key()
                and (tensors := recent.plain.fits(args, kwargs)) is not None
            ):
                # The same kinds of arguments as the last time.
                entry = recent.entry
                if entry.failure(tensors) is None:
                    self._ready = recent.again()
                    if self._ready is not None:
                        _answer_natively()
                    FRONT.replays += 1
                    if recorder.pending or recorder.kept:
                        recorder.before_replay()
                    return entry.run(recorder, tensors, ())
                self._recent = self._ready = None
            return self._call(recorder, args, kwargs)

    def _for(self, casting: Key | None) -> Compiled:
        """The same function under another state of autocast."""
        found = self._under.get(casting)
        if found is None:
            found = self._under[casting] = self._like(self._function)
            found._casting, found._under = casting, self._under
        return found

    def _call(self, recorder: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if MODE.anomaly or MODE.packing:  # which ask for Python at each operation
            return self._function(*args, **kwargs)
        tensors: list[Any] = []
        floats: list[float] = []
        objects: list[Any] = []
        structure = flatten((args, tuple(kwargs.items())), tensors, floats, objects)
        key = (structure, aliasing(tensors), self._floats.key(floats), (MODE.enabled, MODE.inference), code_key())
        reason = None
        for entry in self._entries.get(key, ()):
            reason = entry.failure(tensors)
            if reason is None:
                constant = not floats or "changes" not in key[2]
                self._ready = None
                self._recent = Recent(Plain(args, kwargs), entry) if constant and Plain.suits(args, kwargs) else None
                return self._replay(recorder, entry, tensors, floats)
        if reason is not None:
            FRONT.recompiles += 1
            report(f"{self._name}: captured again because {reason}")
        elif self._entries and key not in self._captures:
            if self._shapes.is_left(key):
                return self._function(*args, **kwargs)
            FRONT.recompiles += 1
            known = any(before[:-1] == key[:-1] for before in self._captures)
            what = "the options of generated code" if known else "its arguments"
            report(f"{self._name}: captured again because {what} differ from those before")
        worn = self._captures.get(key, 0) >= MOST_CAPTURES or self._failures.get(key, 0) >= MOST_FAILURES
        if worn or not self._floats.captures(key[2]):
            return self._function(*args, **kwargs)
        return self._capture(recorder, key, (args, kwargs), tensors, floats, objects)

    def _replay(self, recorder: Recorder, entry: Replay, tensors: Sequence[Any], floats: Sequence[float]) -> Any:
        FRONT.replays += 1
        if recorder.pending or recorder.kept:
            recorder.before_replay()
        return entry.run(recorder, tensors, floats)

    def _looks_at_numbers(self) -> bool:
        """Whether float arguments are to stay Python's own."""
        guards = Guards()
        try:
            guards.add_root(self._function, self._name)
        except Unguardable:
            return True
        return guards.looks_at_numbers()

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
        COUNTERS.add("traces")
        recorder.flush("")
        try:
            guards = Guards()
            guards.add_root(self._function, self._name)
            for value in objects:
                guards.add_root(value, "an argument")
        except Unguardable as reason:
            FRONT.capture_breaks += 1
            if reason.lasts:
                self._failures[key] = MOST_FAILURES
            report(f"{self._name}: run plainly, as it depends on {reason}, which cannot be guarded")
            return self._function(*call[0], **call[1])
        stand_ins = [stand_in_for(t) for t in tensors]
        numbers = [runtime_scalar(v) if p in self._floats.changing else v for p, v in enumerate(floats)]
        args, named = rebuild((call[0], tuple(call[1].items())), list(numbers))
        capture = Capture(next_serial())
        problem = obstacle(tensors, guards.storages())
        if problem:
            capture.give_up(problem)
        for tensor, stand_in in zip(tensors, stand_ins, strict=True):
            if stand_in is not tensor:
                leaf = recorder.leaf(stand_in._storage)
                capture.parts.setdefault(tensor._storage, []).append((tensor._chain, leaf))
        recorder.capture = capture
        modes = MODE.enabled, MODE.inference, STATE.key
        try:
            result = self._function(*args, **dict(named))
        except BaseException:
            recorder.capture = None
            raise
        made: Replay | None = None
        try:
            now: list[Any] = []
            if flatten((call[0], tuple(call[1].items())), now, [], []) != key[0] or not same_objects(now, tensors):
                capture.give_up("a change to an argument")
            if modes != (MODE.enabled, MODE.inference, STATE.key):
                capture.give_up("a mode that it leaves switched")
            if not capture.broken:
                made = self._entry(recorder, capture, guards, call, tensors, stand_ins, numbers, result)
        finally:
            recorder.capture = None
        if made is None:
            stood = {id(n): v for n, v in zip(numbers, floats, strict=True) if n is not v}
            return self._give_up(key, capture, with_floats(result, stood) if stood else result)
        self._failures.pop(key, None)
        self._captures[key] = self._captures.get(key, 0) + 1
        self._shapes.captured(key)
        while len(self._entries) >= MOST_SIGNATURES:
            self._entries.pop(next(iter(self._entries)))
        self._entries.setdefault(key, []).insert(0, made)
        del self._entries[key][MOST_CAPTURES:]
        return result

    def _give_up(self, key: Any, capture: Capture, result: Any) -> Any:
        FRONT.capture_breaks += 1
        if self._failures.get(key, 0) == 0:
            report(f"{self._name}: this call was not captured because of {capture.broken}")
        self._failures[key] = self._failures.get(key, 0) + 1
        self._floats.fix()
        once = capture.broken.startswith(_STATE) and self._failures[key] == 1
        if self._fullgraph and not once:
            raise UsageError(f"{self._name} cannot be captured as a whole: {capture.broken}")
        return result

    def _entry(
        self,
        recorder: Recorder,
        capture: Capture,
        guards: Guards,
        call: Any,
        tensors: list[Any],
        stand_ins: list[Any],
        numbers: list[Any],
        result: Any,
    ) -> Replay | None:
        """Run what the call recorded, and keep it for replays. None, with the reason in `capture`, when it cannot be
        replayed.
        """
        changed = guards.changed()
        if changed is not None:
            capture.give_up(f"a change to what it depends on: {changed}")
            return None
        for compute, expected in capture.guards:
            guards.add_call(compute, expected)
        try:
            guards.add_states()
        except Unguardable as reason:
            capture.give_up(f"state that depends on {reason}")
            return None
        fresh = self._fresh_storages(recorder, capture, result)
        if fresh is None:
            return None
        recipe = Recipes(capture, {id(s): i for i, s in enumerate(fresh)}, tensors, guards.holds, call)
        returned = recipe.of(result)
        notes = list(capture.grads.values())
        # A gradient that was there before and still is, is written in place.
        read_first = [n for n in notes if isinstance(n.before, TensorBase)]
        kept = [n for n in read_first if n.tensor._grad is n.before]
        if any(t._chain for t in stand_ins) or any(n.before._chain for n in read_first):
            capture.give_up("an argument or gradient that is a view of a larger tensor")
        new_gradients = [(n.tensor, recipe.of(n.tensor._grad)) for n in notes if n not in kept]
        if capture.broken:
            return None
        storages, nodes = recorder.outputs()
        written = [(s, s.value.node) for s in storages if s.serial < capture.serial and s.value is not None]
        guarded = guards.storages()
        arguments = {id(t._storage): i for i, t in enumerate(stand_ins) if id(t._storage) not in guarded}
        gradients = {id(n.before._storage): n.tensor for n in kept}
        known = {id(n.before._storage): Source("gradient", n.tensor) for n in read_first}
        if any(id(s) in known.keys() - gradients.keys() for s, _ in written):
            capture.give_up("a gradient that was written and then replaced")
            return None
        known |= {id(n._storage): Source("number", i) for i, n in enumerate(numbers) if isinstance(n, TensorBase)}
        known |= {i: Source("argument", place) for i, place in arguments.items()}
        if any(s in capture.parts for s, _ in written):
            capture.give_up("a write to an argument that is a view of a larger tensor")
            return None
        bindings = {b.node: b for b in recorder.held}
        own = {id(s) for s, _ in written} - known.keys()
        made = [(s.type, s.value.node) for s in fresh if s.value is not None]
        handed_on = {n for _, n in (*written, *made)}  # a leaf among them is copied when the program has run
        donated = frozenset(
            n for n, b in bindings.items() if id(b.source) in own and n not in handed_on and is_lent(n.type)
        )
        with scope(**self._options):
            program = recorder.program(nodes, donated) if nodes else ()
        read = dict.fromkeys(n for segment in program for n in segment.inputs)
        for segment in program:
            for node in segment.outputs:
                read.pop(node, None)
        read |= dict.fromkeys(n for _, n in (*written, *made) if n in recorder.bound)
        sources: dict[Node, Source] = {}
        for node in read:
            source = _source_of(node, bindings, capture, known)
            if source is None:
                return None
            sources[node] = source
        recorded = Recorded(
            program,
            sources,
            [(s, n) for s, n in written if id(s) not in arguments and id(s) not in gradients],
            [(gradients[id(s)], n) for s, n in written if id(s) in gradients],
            [(arguments[id(s)], n) for s, n in written if id(s) in arguments],
            made,
            new_gradients,
            returned,
            [(node, error) for node, _, error in recorder.checks],
            [(generator, key.node if key is not None else None) for generator, key in capture.draws],
            [(i, t) for i, t in enumerate(tensors) if id(t) in capture.grads or guards.holds(t)],
        )
        before = [(n.tensor, None if n.before is None else n.before._type) for n in notes if n.before is not False]
        shared = [t._storage if id(t._storage) in guarded else None for t in stand_ins]
        replay = Replay(guards, before, shared, recorded)
        recorder.flush_captured(program)
        return replay

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


@cache
def _answer_natively() -> None:
    """Let calls of compiled functions enter native code first."""
    native = library()
    if native is not None:
        setattr(Compiled, "__call__", native.method(Compiled, "__call__", CALL, "$self, /, *args, **kwargs"))  # noqa: B010
        readers.read_natively(native)


def _source_of(node: Node, bindings: dict[Node, Binding], capture: Capture, known: dict[int, Source]) -> Source | None:
    """Where the leaf `node` comes from at a replay; None, with the reason in `capture`, when it cannot be had."""
    binding = bindings.get(node)
    source = None if binding is None else binding.source
    if isinstance(source, Storage):
        if source in capture.parts:
            capture.give_up("memory that an argument is a view of, read beside the argument")
            return None
        if id(source) in known:
            return known[id(source)]
        if source.origin is not None:
            return Source("call", source.origin)
        if source.serial < capture.serial or not source.version:
            return Source("storage", source)
    elif any(key is not None and key.node is node for _, key in capture.draws):
        return Source("key", None)
    capture.give_up("a value computed before the call that is not stored in a tensor")
    return None


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
    tune: float | None = None,
) -> Any:
    """Compile a function or a module: the first call is captured, later ones with the same kinds of arguments are
    replayed.

    A replay does not run Python code. It reads the current contents of captured tensors, the current hyper-parameters
    of optimizers and draws fresh random numbers, writes parameters, gradients and optimizer state, and returns new
    result tensors. Python values that the function reads are guarded: when one changed, the call is captured again
    (`explain_recompiles` says why). Float arguments that change are read at run time, by a tensor in their place; in a
    function that does with numbers what tensors cannot (`isinstance`, `math`, formatting) a few of their values are
    captured, and with others it runs as ordinary code. A function that looks at values (prints, `item`, `if` on a
    tensor) runs as ordinary code; with `fullgraph=True` that is a RuntimeError. With `disable=True` the model is given
    back as it is. `backend`, `mode` and `options` are accepted for PyTorch's sake and have no effect. Usable as a
    decorator, with or without arguments.

    Calls with tensors of four different shapes are captured when they come first. After that others run as ordinary
    code, whose programs are compiled once for all sizes, and are captured when they came 256 times. With `dynamic=True`
    this begins after the first shape, with `dynamic=False` all are captured.

    `tune` is a number of seconds. When a program is compiled for the first time, schedules of its expensive kernels
    are then compiled and timed on this machine for at most that long, with the number of threads of that moment, and
    the fastest are kept, here and in the kernel cache. A schedule replaces the cost model's only when it is clearly
    faster. 0 is no search, and so is None unless the environment variable GRAPHC_TUNE names seconds.
    """
    seconds = None if tune is None else _seconds(tune)
    shapes = MOST_SHAPES if dynamic is None else 1 if dynamic else sys.maxsize
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph, dynamic=dynamic, disable=disable, tune=seconds)
    if disable:
        return model
    if (optimized := getattr(type(model), "_optimized", None)) is not None:  # a module
        call = Compiled(model.__call__, type(model).__name__, fullgraph, seconds, shapes)
        return optimized(model, call, {"fullgraph": fullgraph, "dynamic": dynamic, "tune": seconds})
    if not callable(model):
        raise KindError(f"graphc.compile wants a function or a module, not {type(model).__name__}")
    return Compiled(model, getattr(model, "__qualname__", type(model).__name__), fullgraph, seconds, shapes)


def _seconds(tune: object) -> float:
    """`tune` as seconds; KindError or InputError when it is no such number."""
    if isinstance(tune, bool) or not isinstance(tune, (int, float)):
        raise KindError(f"graphc.compile: tune is a number of seconds, or None, not {tune!r}")
    if not 0 <= tune < math.inf:
        raise InputError(f"graphc.compile: tune is a number of seconds from 0 on, not {tune!r}")
    return float(tune)
