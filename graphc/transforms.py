"""Functions on functions: `grad`, `value_and_grad`, `vjp`, nested as one likes, and `trace`.

An argument to differentiate by becomes a *variable*: its value behind an even number of `detach` nodes, distinct from
everything else that
reads the same memory. The gradient with respect to it is symbolic; then the variable is replaced by the value itself,
so that outer
transformations see through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphc.backward import gradients, walk
from graphc.errors import AutodiffError
from graphc.grad_mode import MODE, set_grad_enabled
from graphc.ir.node import Node
from graphc.recording import Recorder, current
from graphc.storage import Value
from graphc.substitute import substitute
from graphc.tensors.core import TensorBase, finish, fresh_variable, new_from_value, read

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _tensors(value: Any, found: list[Any]) -> None:
    if isinstance(value, TensorBase):
        found.append(value)
    elif isinstance(value, list | tuple):
        for item in value:
            _tensors(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _tensors(item, found)


def _replace(value: Any, tensors: list[Any]) -> Any:
    """Nested lists, tuples and dictionaries with their tensors replaced, in order."""
    if isinstance(value, TensorBase):
        return tensors.pop(0)
    if isinstance(value, list | tuple):
        return type(value)(_replace(item, tensors) for item in value)
    if isinstance(value, dict):
        return {k: _replace(v, tensors) for k, v in value.items()}
    return value


class _Level:
    """One application of a transformation: variables for some tensors, and the way back from them."""

    def __init__(self, recorder: Recorder, tensors: Sequence[Any]) -> None:
        self.recorder = recorder
        self.outer: list[Node] = []
        self.variables: list[Tensor] = []
        self.keeps: list[Any] = []
        self.outer_grad = MODE.enabled and any(t.requires_grad for t in tensors)
        for tensor in tensors:
            if not tensor._type.dtype.is_float:
                raise AutodiffError(f"only floats have gradients, but an argument is {tensor._type}")
            node, keep = read(recorder, tensor, MODE.enabled)
            self.outer.append(node)
            self.keeps.append(keep)
            value = fresh_variable(recorder, node, keep)
            self.variables.append(new_from_value(recorder, value))

    @property
    def nodes(self) -> list[Node]:
        return [v._lineage.hist.node for v in self.variables if v._lineage.hist is not None]

    def leave(self, nodes: Sequence[Node | None], keeps: Sequence[Any]) -> list[Tensor | None]:
        """Results over the outer values, as tensors."""
        b = self.recorder.b
        known = [n for n in nodes if n is not None]
        outer = iter(substitute(b, known, dict(zip(self.nodes, self.outer, strict=True))))
        parents = (*self.keeps, *keeps)
        made: list[Tensor | None] = []
        flows = self._flows(parents)
        for node in nodes:
            if node is None:
                made.append(None)
            else:
                made.append(finish(self.recorder, next(outer), parents, "GradBackward0", flows))
        for variable in self.variables:
            hist = variable._lineage.hist
            if hist is not None:
                hist.grad = False  # replaced by the outer values: no leaf of anybody's gradient
        return made

    def _flows(self, parents: Sequence[Any]) -> bool:
        """Whether an outer transformation or `backward` may ask for gradients of the results."""
        if not MODE.enabled or self.outer_grad:
            return self.outer_grad
        own = {v._lineage.hist for v in self.variables}
        roots = [p for p in parents if type(p) is Value and p.grad]
        return any(leaf not in own for leaf in walk(roots).leaves)


def _chosen(argnums: int | Sequence[int], args: tuple[Any, ...]) -> list[int]:
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise IndexError(f"argnums {number} for a function called with {len(args)} arguments")
    return [n % len(args) for n in numbers]


def value_and_grad(
    func: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives `func`'s value and its gradient with respect to the arguments numbered `argnums`.

    `func` must give a float tensor of one element (with `has_aux`, a pair of that and anything). Arguments may be
    nested lists, tuples and
    dictionaries of tensors. The result is (gradient, value), or (gradient, (value, aux)), as in
    `torch.func.grad_and_value`, the other
    way round: (value, gradient).
    """

    def transformed(*args: Any, **kwargs: Any) -> Any:
        numbers = _chosen(argnums, args)
        recorder = current()
        with recorder.lock:
            recorder.begin()
            picked: list[Any] = []
            for number in numbers:
                _tensors(args[number], picked)
            level = _Level(recorder, picked)
            inner = list(args)
            supply: list[Any] = list(level.variables)
            for number in numbers:
                inner[number] = _replace(args[number], supply)
            with set_grad_enabled(True):
                output = func(*inner, **kwargs)
                aux = None
                if has_aux:
                    output, aux = output
                _check_scalar(output)
                node, keep = read(recorder, output, True)
                seed = recorder.b.constant(1, node.type)
                found = gradients(recorder, [node], [seed], level.nodes)
            filled = [
                g if g is not None else recorder.b.constant(0, n.type) for g, n in zip(found, level.nodes, strict=True)
            ]
            value, *grads = level.leave([node, *filled], (keep,))
            back: list[Any] = list(grads)
            shaped = tuple(_replace(args[n], back) for n in numbers)
            gradient = shaped[0] if isinstance(argnums, int) else shaped
            return ((value, aux) if has_aux else value), gradient

    return transformed


def _check_scalar(output: Any) -> None:
    if not isinstance(output, TensorBase):
        raise TypeError(f"grad: the function must give a tensor, not {type(output).__name__}")
    if output._type.size != 1 or not output._type.dtype.is_float:
        raise RuntimeError(f"grad: the function must give a float tensor of one element, not {output._type}")


def grad(func: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of `func` (see `value_and_grad`); with `has_aux`, (gradient, aux)."""
    both = value_and_grad(func, argnums, has_aux)

    def transformed(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return transformed


def vjp(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """`func(*primals)` and a function from cotangents, shaped as the output, to the gradients of the primals, as a
    tuple.
    """
    recorder = current()
    with recorder.lock:
        recorder.begin()
        picked: list[Any] = []
        _tensors(primals, picked)
        level = _Level(recorder, picked)
        with set_grad_enabled(True):
            output = func(*_replace(primals, list(level.variables)))
            outs: list[Any] = []
            _tensors(output, outs)
            pairs = [read(recorder, o, True) for o in outs]
        nodes = [n for n, _ in pairs]
        keeps = [k for _, k in pairs]
        results = level.leave(nodes, keeps)

    def pull(*cotangents: Any) -> Any:
        given: list[Any] = []
        _tensors(cotangents, given)
        if [c._type.shape for c in given] != [n.shape for n in nodes]:
            raise RuntimeError(
                f"vjp: the cotangents have shapes {[list(c._type.shape) for c in given]}, the outputs "
                f"{[list(n.shape) for n in nodes]}"
            )
        with recorder.lock:
            recorder.begin()
            seeds = [read(recorder, c, MODE.enabled) for c in given]
            found = gradients(
                recorder,
                nodes,
                [recorder.b.cast(s, n.dtype) for (s, _), n in zip(seeds, nodes, strict=True)],
                level.nodes,
            )
            filled = [
                g if g is not None else recorder.b.constant(0, n.type) for g, n in zip(found, level.nodes, strict=True)
            ]
            back: list[Any] = list(level.leave(filled, (*keeps, *(k for _, k in seeds))))
            return _replace(primals, back)

    return _replace(output, list(results)), pull
