"""Functions on functions: `grad`, `value_and_grad`, `vjp`, nested as one likes, and `trace`.

An argument to differentiate by becomes a *variable*: its value behind an even number of `detach` nodes, distinct from
everything else that reads the same memory. The gradient with respect to it is symbolic; then the variable is replaced
by the value itself, so that outer transformations see through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphc.backward import pull, walk
from graphc.errors import InputError, UsageError
from graphc.gates import OF_GRADIENTS, Gate, Run
from graphc.grad_mode import MODE, set_grad_enabled
from graphc.ir.node import Node
from graphc.recording import Recorder, current
from graphc.storage import Value
from graphc.substitute import substitute
from graphc.tensors.core import TensorBase, finish, new_from_value, read
from graphc.tensors.variables import fresh_variable
from graphc.trees import flatten, rebuild, structure_text

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


class Level:
    """One application of a transformation: variables for some tensors, and the way back from them."""

    def __init__(self, recorder: Recorder, tensors: Sequence[Any]) -> None:
        self.recorder = recorder
        self.outer: list[Node] = []
        self.variables: list[Tensor] = []
        self.values: list[Value] = []
        self.keeps: list[Any] = []
        self.is_open = False  # results are over the variables, which pass gradients on
        for tensor in tensors:
            if not isinstance(tensor, TensorBase):
                raise InputError(f"Thing passed to transform API must be Tensor, got {type(tensor)}")
        self.outer_grad = MODE.enabled and any(t.requires_grad for t in tensors)
        for tensor in tensors:
            if not tensor._type.dtype.is_float:
                raise UsageError("only Tensors of floating point dtype can require gradients")
            node, keep = read(recorder, tensor, MODE.enabled)
            self.outer.append(node)
            self.keeps.append(keep)
            value = fresh_variable(recorder, node, keep)
            self.values.append(value)
            self.variables.append(new_from_value(recorder, value))

    @property
    def nodes(self) -> list[Node]:
        return [value.node for value in self.values]

    def gradients(
        self, nodes: Sequence[Node], seeds: Sequence[Node], wrt: Sequence[Node], keeps: list[Any]
    ) -> list[Node]:
        """The gradients by `wrt`, zeros where there is none. Through Python code they stay over the variables."""
        run = Run(self.recorder, keeps, True)
        found = walk([k for k in keeps if type(k) is Value and k.grad])
        if found.gates and not self.is_open:
            self.open()
        made = pull(run, found, nodes, seeds, wrt)
        return [self.recorder.b.constant(0, n.type) if g is None else g for g, n in zip(made, wrt, strict=True)]

    def open(self) -> None:
        """What Python code gave is not known as a graph, so variables cannot be replaced: they pass gradients on."""
        self.is_open = True
        for value, outer, keep in zip(self.values, self.outer, self.keeps, strict=True):
            value.name, value.parents = "AliasBackward0", (keep,)
            value.gate = Gate([outer], 1, None), 0

    def leave(self, nodes: Sequence[Node], keeps: Sequence[Any]) -> list[Tensor]:
        """Results over the outer values, as tensors."""
        parents = (*self.keeps, *keeps)
        if self.is_open:
            roots = [p for p in parents if type(p) is Value and p.grad]
            flows = MODE.enabled and bool(walk(roots).leaves)
            return [finish(self.recorder, node, parents, OF_GRADIENTS, flows) for node in nodes]
        outer = substitute(self.recorder.b, nodes, dict(zip(self.nodes, self.outer, strict=True)))
        flows = self._flows(parents)
        made = [finish(self.recorder, node, parents, OF_GRADIENTS, flows) for node in outer]
        for value in self.values:
            value.grad = False  # replaced by the outer values: no leaf of anybody's gradient
        return made

    def _flows(self, parents: Sequence[Any]) -> bool:
        """Whether an outer transformation or `backward` may ask for gradients of the results."""
        if not MODE.enabled or self.outer_grad:
            return self.outer_grad
        roots = [p for p in parents if type(p) is Value and p.grad]
        return any(leaf not in self.values for leaf in walk(roots).leaves)


def _chosen(argnums: int | Sequence[int], args: tuple[Any, ...]) -> list[int]:
    if not isinstance(argnums, int | tuple | list):
        raise UsageError(f"argnums must be int or Tuple[int, ...], got: {type(argnums)}")
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise UsageError(f"Got argnum={number}, but only {len(args)} positional inputs")
    return [n % len(args) for n in numbers]


def _with_aux(name: str, output: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return output, None
    if not (isinstance(output, tuple) and len(output) == 2):
        raise UsageError(f"{name}: output of function f should be a tuple: (output, aux) if has_aux is True")
    return output


def _inner(args: tuple[Any, ...], numbers: Sequence[int], level: Callable[[list[Any]], Level]) -> tuple[Any, Any, Any]:
    """The level for the arguments numbered, all arguments with its variables, and the structure of those numbered."""
    picked = [args[n] for n in numbers]
    leaves, structure = flatten(picked)
    made = level(leaves)
    inner = list(args)
    for number, part in zip(numbers, rebuild(structure, made.variables), strict=True):
        inner[number] = part
    return made, inner, structure


def value_and_grad(
    func: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives `func`'s value and its gradient with respect to the arguments numbered `argnums`.

    `func` must give a float tensor of no dimensions (with `has_aux`, a pair of that and anything). Arguments may be
    nested lists, tuples and dictionaries of tensors. The result is (value, gradient), or ((value, aux), gradient).
    """

    def transformed(*args: Any, **kwargs: Any) -> Any:
        numbers = _chosen(argnums, args)
        recorder = current()
        with recorder.lock:
            recorder.begin()
            level, inner, structure = _inner(args, numbers, lambda leaves: Level(recorder, leaves))
            with set_grad_enabled(True):
                output, aux = _with_aux("grad_and_value(f)(*args)", func(*inner, **kwargs), has_aux)
                _check_scalar(output)
                node, keep = read(recorder, output, True)
                keeps = [keep]
                found = level.gradients([node], [recorder.b.constant(1, node.type)], level.nodes, keeps)
            value, *grads = level.leave([node, *found], keeps)
            shaped = tuple(rebuild(structure, grads))
            gradient = shaped[0] if isinstance(argnums, int) else shaped
            return ((value, aux) if has_aux else value), gradient

    return transformed


def grad_and_value(
    func: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """`value_and_grad` with the results the other way round: (gradient, value), as PyTorch has it."""
    both = value_and_grad(func, argnums, has_aux)

    def transformed(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return gradient, value

    return transformed


def _check_scalar(output: Any) -> None:
    prefix = "grad_and_value(f)(*args): Expected f(*args) to return a"
    if not isinstance(output, TensorBase):
        raise UsageError(f"{prefix} Tensor, got {type(output)}")
    if output.ndim:
        raise UsageError(
            f"{prefix} scalar Tensor, got tensor with {output.ndim} dims. Maybe you wanted to use the vjp or jacrev "
            "APIs instead?"
        )
    if not output._type.dtype.is_float:
        raise UsageError(f"{prefix} float Tensor, got {output._type}")


def grad(func: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of `func` (see `value_and_grad`); with `has_aux`, (gradient, aux)."""
    both = value_and_grad(func, argnums, has_aux)

    def transformed(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return transformed


def _only_tensors(name: str, output: Any) -> tuple[list[Any], Any]:
    outs, shape = flatten(output)
    for out in outs:
        if not isinstance(out, TensorBase):
            raise UsageError(f"{name}: expected f(*primals) to return only tensors, got unsupported type {type(out)}")
    return outs, shape


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """`func(*primals)` and a function from cotangents, shaped as the output, to the gradients of the primals.

    The gradients are a tuple shaped as `primals`; with `has_aux` the aux comes third.
    """
    recorder = current()
    with recorder.lock:
        recorder.begin()
        leaves, structure = flatten(primals)
        level = Level(recorder, leaves)
        with set_grad_enabled(True):
            output, aux = _with_aux("vjp(f, *primals)", func(*rebuild(structure, level.variables)), has_aux)
            outs, shape = _only_tensors("vjp(f, *primals)", output)
            pairs = [read(recorder, o, True) for o in outs]
        nodes = [n for n, _ in pairs]
        keeps = [k for _, k in pairs]
        if walk([k for k in keeps if type(k) is Value and k.grad]).gates:
            level.open()
        results = level.leave(nodes, keeps)

    def pulled(*cotangents: Any) -> Any:
        given, _ = flatten(cotangents)
        if len(given) != len(nodes):
            raise UsageError(f"Expected {len(nodes)} cotangents, one for each output of f, got {len(given)}")
        for place, (cotangent, node) in enumerate(zip(given, nodes, strict=True)):
            if tuple(cotangent.shape) != node.shape:
                raise UsageError(
                    f"Mismatch in shape: grad_output[{place}] has a shape of torch.Size({list(cotangent.shape)}) and "
                    f"output[{place}] has a shape of torch.Size({list(node.shape)})."
                )
        with recorder.lock:
            recorder.begin()
            for value in level.values:
                value.grad = True
            seeds = [read(recorder, c, MODE.enabled) for c in given]
            all_keeps = [*keeps, *(k for _, k in seeds)]
            cast = [recorder.b.cast(s, n.dtype) for (s, _), n in zip(seeds, nodes, strict=True)]
            with set_grad_enabled(True):
                found = level.gradients(nodes, cast, level.nodes, all_keeps)
            return rebuild(structure, level.leave(found, all_keeps))

    made = rebuild(shape, results)
    return (made, pulled, aux) if has_aux else (made, pulled)


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """`func(*primals)` and the derivative of it in the direction `tangents`.

    By differentiating the gradient, which is linear in the cotangent, by the cotangent.
    """
    name = "jvp(f, primals, tangents)"
    if not isinstance(primals, tuple):
        raise UsageError(f"{name}: Expected primals to be a tuple. E.g. it should be valid to call f(*primals).")
    leaves, structure = flatten(primals)
    directions, other = flatten(tangents)
    if structure != other:
        raise UsageError(
            f"{name}: Expected primals and tangents to have the same python structure. For example, if primals is a "
            f"tuple of 3 tensors, tangents also must be. Got primals with structure {structure_text(primals)} and "
            f"tangents with structure {structure_text(tangents)}"
        )
    if not leaves:
        raise UsageError(f"{name}: Expected primals to contain at least one Tensor.")
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        for x, t in zip(leaves, directions, strict=True):
            if tuple(x.shape) != tuple(t.shape):
                raise UsageError(
                    "Trying to set a forward gradient that has a different size than that of the original Tensor, "
                    f"this is not supported. Tensor is of size {list(x.shape)} while the given forward gradient is "
                    f"of size {list(t.shape)}."
                )
        level = Level(recorder, leaves)
        with set_grad_enabled(True):
            output, aux = _with_aux(name, func(*rebuild(structure, level.variables)), has_aux)
            outs, shape = _only_tensors(name, output)
            pairs = [read(recorder, o, True) for o in outs]
            nodes = [n for n, _ in pairs]
            keeps: list[Any] = [k for _, k in pairs]
            seeds = [read(recorder, t, True) for t in directions]
            keeps += [k for _, k in seeds]
            floats = [n for n in nodes if n.dtype.is_float]
            cotangents = [fresh_variable(recorder, b.constant(0, n.type), Value(n, ())) for n in floats]
            wrt = [c.node for c in cotangents]
            keeps += cotangents
            slopes = level.gradients(floats, wrt, level.nodes, keeps)
            cast = [b.cast(s, n.dtype) for (s, _), n in zip(seeds, level.nodes, strict=True)]
            pushed = iter(level.gradients(slopes, cast, wrt, keeps))
            made = [next(pushed) if n.dtype.is_float else b.constant(0, n.type) for n in nodes]
        for value in cotangents:
            value.grad = False  # the derivative does not depend on them
        results = level.leave([*nodes, *substitute(b, made, {c: b.constant(0, c.type) for c in wrt})], keeps)
        values, moved = rebuild(shape, results[: len(nodes)]), rebuild(shape, results[len(nodes) :])
        return (values, moved, aux) if has_aux else (values, moved)
