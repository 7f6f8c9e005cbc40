"""`vmap`: a function of one example recorded once, its graph batched (`graphc.passes.batching`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphc.backward import walk
from graphc.custom_function import BackwardCFunction
from graphc.errors import InputError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.visit import topological
from graphc.passes.batching import Batching
from graphc.recording import Recorder, current
from graphc.storage import Lineage, Storage, Value, next_serial
from graphc.tensors.core import TensorBase, finish, new, read, wants_grad, wrap_dim
from graphc.tensors.variables import fresh_variable
from graphc.trees import flatten, rebuild, structure_text


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", repr(func)))


def _spread(dims: Any, tree: Any) -> list[Any] | None:
    """`dims`, one number or a prefix of the structure of `tree`, for each leaf of it; None when it does not fit."""
    found: list[Any] = []
    stack = [(dims, tree)]
    while stack:
        dim, part = stack.pop()
        if not isinstance(dim, list | tuple | dict):
            found.extend([dim] * len(flatten(part)[0]))
        elif type(dim) is not type(part) or len(dim) != len(part):
            return None
        elif isinstance(dim, dict):
            if dim.keys() != part.keys():
                return None
            stack.extend((dim[k], part[k]) for k in reversed(list(part)))
        else:
            stack.extend(reversed(list(zip(dim, part, strict=True))))
    return found


def _in_dims(func: Any, in_dims: Any, args: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """The leaves of the arguments and the dimension of each (None: not batched)."""
    name = _name(func)
    if not isinstance(in_dims, int | tuple | list):
        raise InputError(
            f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): expected `in_dims` to be int or a (potentially nested) "
            f"tuple matching the structure of inputs, got: {type(in_dims)}."
        )
    if not args:
        raise InputError(
            f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a "
            "function with no inputs. The latter is unsupported."
        )
    prefix = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): "
    leaves, _ = flatten(args)
    dims = _spread(in_dims if isinstance(in_dims, int) else tuple(in_dims), args)
    if dims is None:
        raise InputError(
            f"{prefix}in_dims is not compatible with the structure of `inputs`. in_dims has structure "
            f"{structure_text(in_dims)} but inputs has structure {structure_text(args)}."
        )
    for place, (leaf, dim) in enumerate(zip(leaves, dims, strict=True)):
        if dim is None:
            continue
        if not isinstance(dim, int):
            raise InputError(
                f"{prefix}Got in_dim={dim} for an input but in_dim must be either an integer dimension or None."
            )
        if not isinstance(leaf, TensorBase):
            raise InputError(
                f"{prefix}Got in_dim={dim} for an input but the input is of type {type(leaf)}. We cannot vmap over "
                "non-Tensor arguments, please use None as the respective in_dim"
            )
        if not -leaf.ndim <= dim < leaf.ndim:
            raise InputError(
                f"{prefix}Got in_dim={dim} for some input, but that input is a Tensor of dimensionality {leaf.ndim} so "
                f"expected in_dim to satisfy -{leaf.ndim} <= in_dim < {leaf.ndim}."
            )
        dims[place] = dim % leaf.ndim
    return leaves, dims


def _size(leaves: Sequence[Any], dims: Sequence[Any]) -> int:
    sizes = [leaf.shape[dim] for leaf, dim in zip(leaves, dims, strict=True) if dim is not None]
    if not sizes:
        raise InputError("vmap: Expected at least one Tensor to vmap over")
    if any(n != sizes[0] for n in sizes):
        raise InputError(
            f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sizes} for the "
            "mapped dimension"
        )
    return sizes[0]


def _moved(b: Builder, node: Node, source: int, target: int) -> Node:
    order = [i for i in range(len(node.shape)) if i != source]
    order.insert(target, source)
    return b.permute(node, tuple(order))


class _Example:
    """One application of `vmap`: the values of the first example stand for all."""

    def __init__(self, recorder: Recorder, size: int, randomness: str) -> None:
        self.recorder = recorder
        self.size = size
        self.mapping: dict[Node, Node] = {}
        self.keeps: list[Any] = []
        self.flows = False
        self.checks = len(recorder.checks)
        self.before = recorder.example_since, recorder.draws, recorder.randomness
        self.outer = self.before[0]
        self.randomness = randomness
        self.since = 0

    def variable(self, tensor: Any, dim: int) -> Any:
        """The example of `tensor` along `dim`."""
        recorder, b = self.recorder, self.recorder.b
        flows = wants_grad((tensor,))
        node, keep = read(recorder, tensor, flows)
        batched = _moved(b, node, dim, 0)
        shape, rank = batched.shape[1:], len(batched.shape) - 1
        type = batched.type.with_shape(shape)
        if self.size:
            part = b.slice(batched, (0,) * (rank + 1), (1, *shape), (1,) * (rank + 1))
            contents = b.reshape(part, shape)
        else:
            contents = b.constant(0, type)
        value = fresh_variable(recorder, contents, keep)
        value.name, value.grad = "SelectBackward0", flows
        self.mapping[value.node] = batched
        self.keeps.append(keep)
        self.flows |= flows
        lineage = Lineage(0, value if flows else None)
        return new(Storage(recorder, type, value, None), type, lineage)

    def __enter__(self) -> _Example:
        recorder = self.recorder
        self.since = self.since or next_serial()
        if self.outer is None:
            recorder.example_since = self.since
        recorder.randomness = self.randomness
        recorder.draws = []
        return self

    def __exit__(self, *error: object) -> None:
        drawn = self.recorder.draws or []
        self.drawn = list(drawn)
        self.recorder.example_since, self.recorder.draws, self.recorder.randomness = self.before
        if self.recorder.draws is not None:
            self.recorder.draws.extend(drawn)
        if error[0] is not None:
            del self.recorder.checks[self.checks :]

    def leave(self, tensors: Sequence[Any], dims: Sequence[Any], func: Any) -> list[Any]:
        """The results for all examples."""
        recorder, b = self.recorder, self.recorder.b
        flows = wants_grad(tensors)
        pairs = [read(recorder, t, flows) for t in tensors]
        keeps = [keep for _, keep in pairs]
        self._no_gates(keeps)
        draws = frozenset(k.node for k in self.drawn) if self.randomness == "different" else frozenset()
        batching = Batching(b, self.mapping, self.size, draws)
        rewritten = batching.rewrite([node for node, _ in pairs])
        self._checks(batching)
        self._no_outer_writes()
        made: list[Any] = []
        parents = (*self.keeps, *keeps)
        for (node, _), batched, dim in zip(pairs, rewritten, dims, strict=True):
            if dim is None:
                if batched is not None:
                    raise InputError(
                        f"vmap({_name(func)}, ...): `{_name(func)}` can not return a BatchedTensor when out_dim is None"
                    )
                whole = node
            else:
                whole = batching.lift(node) if batched is None else batched
                whole = _moved(b, whole, 0, wrap_dim(dim, len(whole.shape)))
            made.append(finish(recorder, whole, parents, "VmapBackward0", flows))
        return made

    def _no_gates(self, keeps: Sequence[Any]) -> None:
        found = walk([k for k in keeps if type(k) is Value and k.grad])
        for gate, _ in found.gates.values():
            if isinstance(gate.owner, BackwardCFunction):
                name = gate.owner._forward_cls.__name__
                raise UsageError(
                    f"You tried to vmap over {name}, but it does not have vmap support. Please override and implement "
                    "the vmap staticmethod or set generate_vmap_rule=True. graphc has neither: write it with operators."
                )
            raise UsageError("vmap: hooks on tensors inside the function are not supported")

    def _checks(self, batching: Batching) -> None:
        """What is checked when the work runs, such as indices, for all examples."""
        b, checks = self.recorder.b, self.recorder.checks
        nodes = batching.rewrite([node for node, _, _ in checks[self.checks :]])
        for place, batched in enumerate(nodes, self.checks):
            if batched is not None:
                _, keep, error = checks[place]
                any_example = b.apply("reduce_max", (batched,), {"axes": (0,), "ties": "even"})
                checks[place] = any_example, Value(any_example, (keep, *self.keeps)), error

    def _no_outer_writes(self) -> None:
        for reference in list(self.recorder.pending):
            storage = reference()
            if storage is None or storage.serial >= self.since or storage.value is None:
                continue
            if storage.value.serial >= self.since and any(n in self.mapping for n in topological([storage.value.node])):
                raise UsageError(
                    "vmap: inplace arithmetic(self, *extra_args) is not possible because there exists a Tensor `other` "
                    "in extra_args that has more elements than `self`. This happened due to `other` being vmapped over "
                    "but `self` not being vmapped over in a vmap. Please try to use out-of-place operators instead of "
                    "inplace arithmetic."
                )


def _chunks(leaves: Sequence[Any], dims: Sequence[Any], size: int, chunk: int) -> list[list[Any]]:
    return [
        [
            leaf if dim is None else leaf.narrow(dim, start, min(chunk, size - start))
            for leaf, dim in zip(leaves, dims, strict=True)
        ]
        for start in range(0, size, chunk)
    ]


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """`func` over a further dimension: `in_dims` of the arguments (None: the same for all), `out_dims` of the results.

    Arguments and results may be nested lists, tuples and dictionaries. `randomness` tells what random operations do:
    "error", "same" or "different" numbers for each example. With `chunk_size` so many examples at a time.
    """
    if randomness not in ("error", "different", "same"):
        raise UsageError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if chunk_size is not None and not (chunk_size > 0):
        raise InputError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        leaves, dims = _in_dims(func, in_dims, args)
        named, spec = flatten(kwargs)
        given = [*leaves, *named]
        places = [*dims, *(0 if isinstance(v, TensorBase) else None for v in named)]
        size = _size(given, places)

        def once(values: Sequence[Any], count: int) -> Any:
            structure = flatten(args)[1]
            return _apply(func, structure, spec, len(leaves), values, places, count, out_dims, randomness)

        if chunk_size is None or chunk_size >= size:
            return once(given, size)
        parts = [
            once(values, min(chunk_size, size - i * chunk_size))
            for i, values in enumerate(_chunks(given, places, size, chunk_size))
        ]
        flat = [flatten(part)[0] for part in parts]
        spread = _spread(out_dims, parts[0]) or []
        joined = [
            column[0] if dim is None else _joined(column, dim)
            for column, dim in zip(zip(*flat, strict=True), spread, strict=True)
        ]
        return rebuild(flatten(parts[0])[1], joined)

    return wrapped


def _joined(parts: Sequence[Any], dim: int) -> Any:
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        flows = wants_grad(parts)
        pairs = [read(recorder, p, flows) for p in parts]
        node = b.apply("concat", tuple(n for n, _ in pairs), {"axis": wrap_dim(dim, parts[0].ndim)})
        return finish(recorder, node, tuple(k for _, k in pairs), "CatBackward0", flows)


def _apply(
    func: Callable[..., Any],
    structure: Any,
    named: Any,
    count: int,
    values: Sequence[Any],
    dims: Sequence[Any],
    size: int,
    out_dims: Any,
    randomness: str,
) -> Any:
    recorder = current()
    with recorder.lock:
        recorder.begin()
        example = _Example(recorder, size, randomness)
        with example:
            inner = [v if d is None else example.variable(v, d) for v, d in zip(values, dims, strict=True)]
            output = func(*rebuild(structure, inner[:count]), **rebuild(named, inner[count:]))
        results, shape = flatten(output)
        for result in results:
            if not isinstance(result, TensorBase):
                raise InputError(
                    f"vmap({_name(func)}, ...): `{_name(func)}` must only return Tensors, got type {type(result)}. Did "
                    "you mean to set out_dims= to None for output?"
                )
        return rebuild(shape, example.leave(results, _out_dims(func, out_dims, output), func))


def _out_dims(func: Any, out_dims: Any, output: Any) -> list[Any]:
    prefix = f"vmap({_name(func)}, ..., out_dims={out_dims})"
    if not isinstance(out_dims, int | tuple | list | dict) and out_dims is not None:
        raise InputError(
            f"{prefix}: `out_dims` must be an int, None or a python collection of ints representing where in the "
            "outputs the vmapped dimension should appear."
        )
    wanted = tuple(out_dims) if isinstance(out_dims, list) and isinstance(output, tuple) else out_dims
    if isinstance(output, TensorBase) and isinstance(wanted, tuple | list) and len(wanted) == 1:
        wanted = wanted[0]
    found = _spread(wanted, output)
    if found is None:
        raise InputError(
            f"{prefix}(<inputs>): out_dims is not compatible with the structure of `outputs`. out_dims has structure "
            f"{structure_text(out_dims)} but outputs has structure {structure_text(output)}."
        )
    return found
