"""`autograd.Function`: operations whose forward and backward are Python functions.

The outputs are variables of their own, so gradients stop there; the backward is the body of a gate (`graphc.gates`).
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import CheckError, KindError, UnsupportedError, UsageError
from graphc.gates import Gate, Grads, Run
from graphc.grad_mode import MODE, set_grad_enabled
from graphc.gradient_nodes import Node as GradientNode
from graphc.gradient_nodes import edges
from graphc.hooks import RemovableHandle, add
from graphc.ir.node import Node
from graphc.packing import packed, unpacked
from graphc.recording import Recorder, current
from graphc.saved import written_text
from graphc.storage import Lineage, Seen, Value
from graphc.tensors.core import TensorBase, alias, new, new_from_value, read, read_all
from graphc.tensors.literals import tensor as make_tensor
from graphc.tensors.variables import fresh_variable
from graphc.tensors.views import write_chain
from graphc.tensors.writing import type_name
from graphc.warned import warn

FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors "
    "after calling backward."
)


class _PackedTensor:
    """One tensor that forward saved while there were hooks of saved tensors: what the pack function made of it.

    Its history is kept by the value alone, as the tensor may be gone.
    """

    def __init__(self, tensor: Any, output: Value | None) -> None:
        self.unpack_hook = MODE.packing[-1][1]
        self.item = packed(tensor if output is None else alias(tensor))
        self.history = None if output is None else weakref.ref(output)
        self.tensor = tensor if output is None and tensor.requires_grad else None

    def unpack(self, name: str) -> Any:
        """The tensor that the unpack function gives, with the gradients of the one that was saved."""
        made = unpacked(self.unpack_hook, self.item)
        if not MODE.enabled:
            return made
        source = self.tensor
        if self.history is not None and (value := self.history()) is not None:
            source = new_from_value(current(), value)
        return made if source is None else made + (source - alias(source))


class _Saved:
    """One tensor that forward saved. An output is kept without its history, which would lead back here."""

    def __init__(self, tensor: Any, output: Value | None) -> None:
        self.tensor = tensor if output is None else alias(tensor)
        self.output = None if output is None else weakref.ref(output)
        self.version = tensor._counter[0] if tensor._counter is not None else 0

    def unpack(self, name: str) -> Any:
        """The tensor; RuntimeError when it was overwritten since."""
        counter = self.tensor._counter
        if counter is not None and counter[0] != self.version:
            type = self.tensor._type
            shape = ", ".join(map(str, type.shape))
            maker = name if self.output is not None else self.tensor.requires_grad and not self.tensor.is_leaf
            if maker is True:
                maker = self.tensor.grad_fn_name()
            text = written_text(
                f"torch.{type_name(type.dtype)}Tensor [{shape}]",
                maker.partition("Backward")[0] if maker else "",
                counter[0],
                self.version,
            )
            raise UsageError(text)
        if self.output is None:
            return self.tensor
        made = alias(self.tensor)
        value = self.output()
        if value is not None:
            made._lineage = Lineage(len(made._chain), value, False, made._storage.version)
        return made


class FunctionCtx:
    """What forward leaves for backward."""

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self.materialize_grads = True
        self.to_save: tuple[Any, ...] = ()
        self.dirty_tensors: tuple[Any, ...] = ()
        self.non_differentiable: tuple[Any, ...] = ()
        self._saved: list[_Saved | _PackedTensor | None] = []
        self._is_freed = False

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep input and output tensors (and None) for `saved_tensors`."""
        self.to_save = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Accepted for PyTorch's sake: forward mode needs nothing saved."""
        for tensor in tensors:
            if not isinstance(tensor, TensorBase) and tensor is not None:
                raise CheckError("save_for_forward expects all arguments to be tensors")

    def mark_dirty(self, *args: Any) -> None:
        """Say which inputs forward wrote in place; they must be outputs too."""
        self.dirty_tensors = args

    def mark_non_differentiable(self, *args: Any) -> None:
        """Say which outputs have no gradient."""
        self.non_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros instead of None for outputs without gradient."""
        self.materialize_grads = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved, as tensors with their history."""
        if self._is_freed:
            raise UsageError(FREED)
        name = type(self).__name__
        return tuple(None if s is None else s.unpack(name) for s in self._saved)


class BackwardCFunction(FunctionCtx):
    """The gradient node of one call of a custom function; it is the `ctx` of forward and backward."""

    _forward_cls: type[Function]

    def __init__(self) -> None:
        super().__init__()
        self._parents: tuple[Any, ...] = ()
        self._through: tuple[Sequence[Node], Sequence[Seen]] | None = None
        self._tensors: list[bool] = []
        self._wanted: list[bool] = []
        self._partial = False
        self._outputs: list[tuple[Any, bool] | None] = []
        self._gate: weakref.ref[Gate] | None = None
        self.metadata: dict[Any, Any] = {}

    def name(self) -> str:
        """The name of the function's class with "Backward"."""
        return type(self).__name__

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The gradient nodes of the tensors among the arguments."""
        return edges(self._parents, self._through)

    def register_hook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call `fn(grad_inputs, grad_outputs)` after backward."""
        return add(self._alive().after, fn)

    def register_prehook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call `fn(grad_outputs)` before backward."""
        return add(self._alive().before, fn)

    def _alive(self) -> Gate:
        gate = self._gate() if self._gate is not None else None
        if gate is None:
            raise UsageError(f"{self.name()}: the outputs of this call are gone")
        return gate

    def _release(self) -> None:
        self._is_freed = bool(self._saved)
        self._saved = []

    def __repr__(self) -> str:
        return f"<torch.autograd.function.{self.name()} object at {hex(id(self))}>"

    # backward

    def _run(self, run: Run, grads: Grads) -> Grads:
        function = self._forward_cls
        given = [self._gradient(run, slot, node) for slot, node in self._spread(grads)]
        user = function.vjp if function.vjp is not Function.vjp else function.backward
        if user is not function.backward and function.backward is not Function.backward:
            raise UsageError(
                "Implementing both 'backward' and 'vjp' for a custom Function is not allowed. You should only "
                "implement one of them."
            )
        self._partial = run.partial
        with set_grad_enabled(run.create_graph):
            made = user(self, *given)
        return self._checked(run, made if isinstance(made, tuple) else (made,))

    def _spread(self, grads: Grads) -> list[tuple[int, Node | None]]:
        """Gradients for all outputs of forward, also those that have none."""
        found = iter(grads)
        return [(i, next(found) if o is not None and o[1] else None) for i, o in enumerate(self._outputs)]

    def _gradient(self, run: Run, place: int, node: Node | None) -> Any:
        output = self._outputs[place]
        if node is not None:
            return run.tensor(node)
        if output is None or not self.materialize_grads:
            return None
        return run.tensor(run.recorder.b.constant(0, output[0]))

    def _checked(self, run: Run, made: tuple[Any, ...]) -> Grads:
        count = len(self._tensors)
        while len(made) > count and made[-1] is None:
            made = made[:-1]
        if len(made) != count:
            raise UsageError(
                f"function {self.name()} returned an incorrect number of gradients (expected {count}, got {len(made)})"
            )
        result: Grads = []
        wanted = iter(self._wanted)
        for place, (gradient, is_tensor) in enumerate(zip(made, self._tensors, strict=True)):
            if not is_tensor:
                if gradient is not None:
                    raise UsageError(
                        f"function {self.name()} returned a gradient different than None at position {place + 1}, but "
                        "the corresponding forward input was not a Variable"
                    )
                continue
            if gradient is not None and not isinstance(gradient, TensorBase):
                raise UsageError(f"expected Variable or None (got {type(gradient).__name__})")
            if next(wanted):
                result.append(None if gradient is None else self._fitted(run, place, gradient, self._types[place]))
        return result

    _types: tuple[Any, ...] = ()

    def _fitted(self, run: Run, place: int, gradient: Any, wanted: Any) -> Node:
        """A gradient summed over the dimensions that broadcasting would repeat, in the dtype of the input."""
        b, node = run.recorder.b, run.node(gradient)
        if node.shape != wanted.shape:
            extra = node.type.rank - wanted.rank
            if extra < 0 or any(w not in (1, n) for w, n in zip(wanted.shape, node.shape[extra:], strict=True)):
                raise UsageError(
                    f"Function {self.name()} returned an invalid gradient at index {place} - got "
                    f"{list(node.shape)} but expected shape compatible with {list(wanted.shape)}"
                )
            axes = tuple(i for i, n in enumerate(node.shape) if i < extra or wanted.shape[i - extra] == 1 != n)
            node = b.reshape(b.reduce_sum(node, axes), wanted.shape)
        return b.cast(node, wanted.dtype)


GradientNode.register(BackwardCFunction)


class _Meta(type):
    def __init__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> None:
        super().__init__(name, bases, attrs)
        cls._backward_cls = type(f"{name}Backward", (BackwardCFunction,), {"_forward_cls": cls})  # type: ignore[attr-defined]


class Function(metaclass=_Meta):
    """Base of custom operations: static `forward` and `backward`, used by `apply`.

    `forward(ctx, *args)`, or `forward(*args)` with `setup_context(ctx, inputs, output)`; `backward(ctx, *grads)` gives
    one gradient (or None) for each argument of forward.
    """

    _backward_cls: type[BackwardCFunction]
    generate_vmap_rule = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warn(
            f"{type(self)} should not be instantiated. Methods on autograd functions are all static, so you should "
            "invoke them on the class itself. Instantiating an autograd function will raise an error in a future "
            "version of PyTorch.",
            DeprecationWarning,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise UsageError(
            "Legacy autograd function with non-static forward method is deprecated. Please use new-style autograd "
            "function with static forward method. (Example: "
            "https://pytorch.org/docs/stable/autograd.html#torch.autograd.Function)"
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs. To be overridden."""
        raise UnsupportedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Saves what backward needs, where forward takes no ctx."""
        raise UnsupportedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Computes the gradients of the arguments. To be overridden."""
        raise UnsupportedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward mode AD."
        )

    vjp = backward

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """Forward mode; graphc derives it from backward."""
        raise UnsupportedError(
            "You must implement the jvp function for custom autograd.Function to use it with forward mode AD."
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """The batched operation."""
        raise UnsupportedError(
            "To use autograd.Function with vmap, you must either override the vmap staticmethod or set "
            "generate_vmap_rule=True."
        )

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run forward, with gradients going through backward."""
        recorder = current()
        split = cls.setup_context is not Function.setup_context
        if kwargs and not split:
            raise KindError(f"apply() takes no keyword arguments: {', '.join(kwargs)}")
        ctx = cls._backward_cls()
        ctx.needs_input_grad = tuple(isinstance(a, TensorBase) and a.requires_grad for a in args)
        ctx._tensors = [isinstance(a, TensorBase) for a in args]
        ctx._types = tuple(a._type if isinstance(a, TensorBase) else None for a in args)
        flows = MODE.enabled and any(ctx.needs_input_grad)
        with recorder.lock:
            recorder.begin()
            reads: list[tuple[Node, Any]] = []
            if flows:
                reads = read_all(recorder, [a for a in args if isinstance(a, TensorBase)], True)
            with set_grad_enabled(False):
                if split:
                    output = cls.forward(*args, **kwargs)
                    cls.setup_context(ctx, args, output)
                else:
                    output = cls.forward(ctx, *args)
            return _finish(recorder, ctx, args, reads, output, flows)


def _finish(
    recorder: Recorder, ctx: BackwardCFunction, args: tuple[Any, ...], reads: Sequence[Any], output: Any, flows: bool
) -> Any:
    """The outputs with their history."""
    is_tuple = isinstance(output, tuple)
    outputs: list[Any] = list(output) if is_tuple else [output]
    if not is_tuple and not isinstance(output, TensorBase):
        raise KindError(
            f"{type(ctx)._forward_cls.__name__}.forward: expected to return a Tensor or tuple of Tensors, got "
            f"{type(output).__name__}"
        )
    _check_marks(ctx, args, outputs)
    for tensor in ctx.dirty_tensors:
        if tensor._counter is not None:
            tensor._counter[0] += 1
    values: dict[int, Value] = {}
    if flows:
        ctx._parents = tuple(keep for _, keep in reads)
        ctx._through = [node for node, _ in reads], tuple(recorder.seen)  # what reads the outputs may add to it
        ctx._wanted = [type(keep) is Value and keep.grad for _, keep in reads]
        entries = [node for (node, _), wanted in zip(reads, ctx._wanted, strict=True) if wanted]
        marked = {id(t) for t in ctx.non_differentiable}
        differentiable = [isinstance(o, TensorBase) and o._type.dtype.is_float and id(o) not in marked for o in outputs]
        ctx._outputs = [
            (o._type, d) if isinstance(o, TensorBase) else None for o, d in zip(outputs, differentiable, strict=True)
        ]
        gate = Gate(entries, sum(differentiable), ctx._run, ctx)
        gate.outlives = not ctx.to_save
        gate.always = isinstance(ctx, _DelayedError._backward_cls)
        ctx._gate = weakref.ref(gate)
        slot = 0
        for place, result in enumerate(outputs):
            if not isinstance(result, TensorBase):
                continue
            outputs[place] = made = _own(result, args, ctx)
            if differentiable[place]:
                value = _give_history(recorder, ctx, made, (gate, slot))
                values[id(result)] = values[id(made)] = value
                slot += 1
    else:
        outputs = [_own(o, args, ctx) if isinstance(o, TensorBase) else o for o in outputs]
    for place, tensor in enumerate(ctx.to_save):
        if tensor is not None and not isinstance(tensor, TensorBase):
            kind = type(tensor).__name__
            raise KindError(f"save_for_backward can only save variables, but argument {place} is of type {kind}")
    if flows:
        kind = _PackedTensor if MODE.packing else _Saved
        ctx._saved = [None if t is None else kind(t, values.get(id(t))) for t in ctx.to_save]
    ctx.to_save = ctx.dirty_tensors = ctx.non_differentiable = ()
    return tuple(outputs) if is_tuple else outputs[0]


def _check_marks(ctx: BackwardCFunction, args: tuple[Any, ...], outputs: Sequence[Any]) -> None:
    for place, tensor in enumerate(ctx.dirty_tensors):
        if not isinstance(tensor, TensorBase):
            raise KindError(
                f"mark_dirty can only accept variables, but argument {place} is of type {type(tensor).__name__}"
            )
        if MODE.enabled and tensor._lineage.requires_grad:
            raise UsageError("a leaf Variable that requires grad has been used in an in-place operation.")
        if not any(tensor is o for o in outputs):
            raise UsageError(
                "Some elements marked as dirty during the forward method were not returned as output. The inputs that "
                "are modified inplace must all be outputs of the Function."
            )
    for place, tensor in enumerate(ctx.non_differentiable):
        if not isinstance(tensor, TensorBase):
            raise KindError(
                f"mark_non_differentiable only accepts variable arguments, but got {type(tensor).__name__}"
                f" at place {place}"
            )


def _own(result: Any, args: tuple[Any, ...], ctx: BackwardCFunction) -> Any:
    """An output that is an argument unchanged becomes a view of it."""
    is_argument = any(result is a for a in args)
    return alias(result) if is_argument and not any(result is d for d in ctx.dirty_tensors) else result


def _give_history(recorder: Recorder, ctx: BackwardCFunction, tensor: Any, gate: tuple[Gate, int]) -> Value:
    """Let gradients of `tensor` go to the gate: its contents become a variable."""
    storage = tensor._storage
    node, keep = read(recorder, tensor, False)
    value = fresh_variable(recorder, node, keep)
    value.name = ctx.name()
    value.parents = (keep, *ctx._parents)
    value.gate = gate
    if type(keep) is Value and not keep.grad and keep.gate is None:
        keep.gate = gate  # so that the contents are kept when they are computed
    depth = len(tensor._chain)
    shared = tensor._lineage
    if shared.hist is not None and shared.depth < depth and any(tensor is d for d in ctx.dirty_tensors):
        # A view that forward wrote: what it shows of its base has this history.
        base = recorder.read(storage)
        inner = write_chain(recorder.b, base[0], tensor._chain[shared.depth :], value.node)
        whole = Value(inner, (value, shared.hist, base[1]), "CopySlices", True)
        whole.counter, whole.version = tensor._counter, storage.version
        shared.hist, shared.version = whole, storage.version
        whole.lineage = weakref.ref(shared)
        return value
    if shared.hist is not None and shared.depth == depth:
        shared.hist, shared.version = value, storage.version  # other views of what forward wrote see it too
    else:
        tensor._lineage = Lineage(depth, value, False, storage.version)
    value.lineage = weakref.ref(tensor._lineage)
    value.counter = tensor._counter
    value.version = tensor._counter[0] if tensor._counter is not None else 0
    return value


class _DelayedError(Function):
    """Gives its arguments; an error as soon as gradients are asked for."""

    @staticmethod
    def forward(ctx: Any, message: str, *tensors: Any) -> Any:
        ctx.message = message
        return tuple(new(t._storage, t._type, Lineage(), t._chain, t._strides, t._offset) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise UsageError(ctx.message)


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A backward whose own operations are not differentiated: the second time is a RuntimeError."""

    @functools.wraps(fn)
    def wrapper(ctx: Any, *args: Any) -> Any:
        with set_grad_enabled(False):
            outputs = fn(ctx, *args)
        if not MODE.enabled or not any(isinstance(a, TensorBase) and a.requires_grad for a in args):
            return outputs
        single = not isinstance(outputs, tuple)
        listed = [outputs] if single else list(outputs)
        places = [i for i, o in enumerate(listed) if o is not None]
        trigger = make_tensor(0.0, requires_grad=True)
        marked = _DelayedError.apply(
            "trying to differentiate twice a function that was marked with @once_differentiable",
            *(listed[i] for i in places),
            trigger,
        )
        for i, made in zip(places, marked[:-1], strict=True):
            listed[i] = made
        return listed[0] if single else tuple(listed)

    return wrapper
