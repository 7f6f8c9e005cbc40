"""Calls that backward runs again instead of keeping what they computed (`graphc.utils.checkpoint`)."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from graphc.backward import backward, pull, walk
from graphc.custom_function import Function
from graphc.errors import UsageError
from graphc.gates import Gate, Grads, Run
from graphc.grad_mode import MODE, set_grad_enabled
from graphc.random import Draws, noting_draws, repeating_draws
from graphc.recording import Recorder, current
from graphc.storage import Lineage, Value
from graphc.substitute import substitute
from graphc.tensors.casting import STATE, casting_as
from graphc.tensors.core import TensorBase, alias, contents, new, read
from graphc.tensors.variables import fresh_variable
from graphc.transforms import Level
from graphc.trees import flatten, rebuild


class _Call:
    """One call that is run again: the function, its arguments, and the random numbers it drew."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any, preserve: bool) -> None:
        self.function = function
        self.leaves, self.structure = flatten((args, kwargs))
        self.places = [i for i, v in enumerate(self.leaves) if isinstance(v, TensorBase) and v.requires_grad]
        self.preserve = preserve
        self.draws: Draws | None = None
        self.casting = STATE.key

    def run(self, level: Level, contexts: Any) -> Any:
        """Call the function with the level's variables in place of the arguments that require gradients."""
        given = list(self.leaves)
        for place, variable in zip(self.places, level.variables, strict=True):
            given[place] = variable
        args, kwargs = rebuild(self.structure, given)
        with contexts, set_grad_enabled(True), casting_as(self.casting):
            return self.function(*args, **kwargs)

    def level(self, recorder: Recorder) -> Level:
        return Level(recorder, [self.leaves[i] for i in self.places])


def again(
    function: Callable[..., Any], args: Any, kwargs: Any, preserve: bool, context_fn: Callable[[], tuple[Any, Any]]
) -> Any:
    """`function(*args, **kwargs)`, of which backward keeps the arguments only; it is called again there."""
    recorder = current()
    first, second = context_fn()
    if not MODE.enabled:
        with first:
            return function(*args, **kwargs)
    call = _Call(function, args, kwargs, preserve)
    with recorder.lock:
        recorder.begin()
        level = call.level(recorder)
        with noting_draws() as call.draws:
            output = call.run(level, first)
        outs, shape = flatten(output)
        places = [i for i, o in enumerate(outs) if isinstance(o, TensorBase) and o.requires_grad]
        pairs = [read(recorder, outs[i], True) for i in places]
        found = walk([k for _, k in pairs if isinstance(k, Value)])
        captured = [v for v in found.leaves if v not in level.values]
        parents = [*level.keeps, *captured]
        entries = [*level.outer, *(v.node for v in captured)]

        def body(run: Run, grads: Grads) -> Grads:
            return _recompute(call, run, grads, places, second, captured)

        gate = Gate(entries, len(places), body)
        for slot, (place, (node, keep)) in enumerate(zip(places, pairs, strict=True)):
            outs[place] = _behind(recorder, level, outs[place], node, keep, (gate, slot), parents)
        for value in level.values:
            value.grad = False
        return rebuild(shape, outs)


def _behind(
    recorder: Recorder, level: Level, tensor: Any, node: Any, keep: Any, gate: tuple[Gate, int], parents: list[Any]
) -> Any:
    """The output `tensor` as a variable whose gradient goes to the gate."""
    (outer,) = substitute(recorder.b, [node], dict(zip(level.nodes, level.outer, strict=True)))
    value = fresh_variable(recorder, outer, keep)
    value.name = tensor.grad_fn_name()
    value.parents = (contents(keep), *parents)
    value.gate = gate
    lineage = Lineage(len(tensor._chain), value, False, tensor._storage.version)
    value.lineage = weakref.ref(lineage)
    value.counter = tensor._counter
    value.version = tensor._counter[0] if tensor._counter is not None else 0
    made = new(tensor._storage, tensor._type, lineage, tensor._chain, tensor._strides, tensor._offset)
    made._counter = tensor._counter
    return made


def _recompute(call: _Call, run: Run, grads: Grads, places: list[int], context: Any, captured: list[Value]) -> Grads:
    recorder = run.recorder
    level = call.level(recorder)
    with repeating_draws(call.draws if call.preserve else None):
        output = call.run(level, context)
    outs, _ = flatten(output)
    live = [(outs[place], g) for place, g in zip(places, grads, strict=True) if g is not None]
    pairs = [read(recorder, o, True) for o, _ in live]
    keeps: list[Any] = [*run.keeps, *(k for _, k in pairs)]
    wrt = [*level.nodes, *(v.node for v in captured)]
    found = walk([k for _, k in pairs if isinstance(k, Value)])
    if found.gates:
        level.open()
    inner = Run(recorder, keeps, run.create_graph)
    with set_grad_enabled(True):
        made = pull(inner, found, [n for n, _ in pairs], [g for _, g in live if g is not None], wrt)
    run.keeps.extend(keeps)
    if level.is_open:
        return made
    known = [m for m in made if m is not None]
    back = iter(substitute(recorder.b, known, dict(zip(level.nodes, level.outer, strict=True))))
    for value in level.values:
        value.grad = False
    return [None if m is None else next(back) for m in made]


class CheckpointFunction(Function):
    """The reentrant form: forward without gradients, backward calls the function again and `backward` on the result."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        """Calls the function without recording for gradients."""
        ctx.call = function, args, preserve
        ctx.casting = STATE.key
        with noting_draws() as ctx.draws:
            return function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Calls it again, with gradients."""
        if ctx._partial:
            raise UsageError(
                "When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad() or passing an `inputs` "
                "parameter to .backward(). To resolve this error, you can either set use_reentrant=False, or call "
                ".backward() without passing the `inputs` argument."
            )
        function, args, preserve = ctx.call
        inner: list[Any] = [alias(a).requires_grad_(a.requires_grad) if isinstance(a, TensorBase) else a for a in args]
        with repeating_draws(ctx.draws if preserve else None), set_grad_enabled(True), casting_as(ctx.casting):
            made = function(*inner)
        outs = [made] if isinstance(made, TensorBase) else list(made)
        live = [(o, g) for o, g in zip(outs, grads, strict=True) if isinstance(o, TensorBase) and o.requires_grad]
        if not live:
            raise UsageError("none of output has requires_grad=True, this checkpoint() is not necessary")
        backward([o for o, _ in live], [g for _, g in live])
        return (None, None, *(a._grad if isinstance(a, TensorBase) else None for a in inner))
