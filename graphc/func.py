"""`torch.func`: transformations of functions, and modules called as functions of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from graphc.errors import InputError, UsageError
from graphc.tensors.core import TensorBase
from graphc.tensors.creation import eye, zeros_like
from graphc.tensors.joining import stack
from graphc.transforms import grad, grad_and_value, jvp, vjp
from graphc.trees import flatten, rebuild, structure_text
from graphc.vmapping import vmap

__all__ = [
    "functional_call",
    "functionalize",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "replace_all_batch_norm_modules_",
    "stack_module_state",
    "vjp",
    "vmap",
]


def _basis(tensors: Sequence[Any]) -> list[Any]:
    """For each tensor a batch of as many of its shape as all have elements: together they are the unit vectors."""
    total = sum(t.numel() for t in tensors)
    whole = eye(total, device=tensors[0].device if tensors else None)
    made, start = [], 0
    for tensor in tensors:
        rows = whole.narrow(1, start, tensor.numel()).to(tensor.device, tensor.dtype)
        made.append(rows.reshape(total, *tensor.shape))
        start += tensor.numel()
    return made


def _numbers(argnums: Any, count: int) -> list[int]:
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    for number in numbers:
        if not -count <= number < count:
            raise UsageError(f"Got argnum={number}, but only {count} positional inputs")
    return [n % count for n in numbers]


def _of_chosen(func: Callable[..., Any], args: tuple[Any, ...], numbers: Sequence[int], kwargs: Any) -> Any:
    """`func` as a function of the arguments numbered."""

    def called(*chosen: Any) -> Any:
        given = list(args)
        for number, value in zip(numbers, chosen, strict=True):
            given[number] = value
        return func(*given, **kwargs)

    return called


def jacrev(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """The Jacobian of `func` by reverse mode: for each output and each argument numbered, of both their dimensions."""

    def jacobian(*args: Any, **kwargs: Any) -> Any:
        numbers = _numbers(argnums, len(args))
        found = vjp(_of_chosen(func, args, numbers, kwargs), *(args[n] for n in numbers), has_aux=has_aux)
        output, pull = found[0], found[1]
        outs, shape = flatten(output)
        picked, structure = flatten(tuple(args[n] for n in numbers))

        def rows(*cotangents: Any) -> Any:
            made = pull(rebuild(shape, cotangents))
            return tuple(flatten(made)[0])

        stacked = vmap(rows, chunk_size=chunk_size)(*_basis(outs))
        parts: list[Any] = []
        start = 0
        for out in outs:
            size = out.numel()
            one = [j.narrow(0, start, size).reshape(*out.shape, *x.shape) for j, x in zip(stacked, picked, strict=True)]
            start += size
            whole = rebuild(structure, one)
            parts.append(whole[0] if isinstance(argnums, int) else whole)
        made = rebuild(shape, parts)
        return (made, found[2]) if has_aux else made

    return jacobian


def jacfwd(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    *,
    randomness: str = "error",
) -> Callable[..., Any]:
    """The Jacobian of `func` by forward mode; the same result as `jacrev`."""

    def jacobian(*args: Any, **kwargs: Any) -> Any:
        numbers = _numbers(argnums, len(args))
        called = _of_chosen(func, args, numbers, kwargs)
        primals = tuple(args[n] for n in numbers)
        picked, structure = flatten(primals)
        found: dict[str, Any] = {}

        def column(*directions: Any) -> Any:
            made = jvp(called, primals, rebuild(structure, directions), has_aux=has_aux)
            found["aux"] = made[2] if has_aux else None
            outs, found["shape"] = flatten(made[1])
            return tuple(outs)

        stacked = vmap(column, out_dims=-1, randomness=randomness)(*_basis(picked))
        parts: list[Any] = []
        for columns in stacked:
            one: list[Any] = []
            start = 0
            for x in picked:
                size = x.numel()
                one.append(columns.narrow(-1, start, size).reshape(*columns.shape[:-1], *x.shape))
                start += size
            whole = rebuild(structure, one)
            parts.append(whole[0] if isinstance(argnums, int) else whole)
        made = rebuild(found["shape"], parts)
        return (made, found["aux"]) if has_aux else made

    return jacobian


def hessian(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The matrix of second derivatives, forward over reverse."""
    return jacfwd(jacrev(func, argnums), argnums)


def functional_call(
    module: Any,
    parameter_and_buffer_dicts: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call `module` with other parameters and buffers, by their dotted names; the module is as before afterwards."""
    if isinstance(parameter_and_buffer_dicts, Mapping):
        given = dict(parameter_and_buffer_dicts)
    elif isinstance(parameter_and_buffer_dicts, Sequence):
        given = {}
        for part in parameter_and_buffer_dicts:
            repeated = [key for key in part if key in given]
            if repeated:
                raise InputError(
                    f"{repeated} appeared in multiple dictionaries; behavior of functional call is ambiguous"
                )
            given |= part
    else:
        raise InputError(
            "Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got "
            f"{type(parameter_and_buffer_dicts)}"
        )
    positional = () if args is None else args if isinstance(args, tuple) else (args,)
    return _swapped(module, given, tie_weights, strict, positional, dict(kwargs or {}))


def _swapped(
    module: Any, given: dict[str, Any], tie: bool, strict: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    places: dict[str, tuple[dict[str, Any], str]] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        for table in (part._parameters, part._buffers):
            for key in table:
                places[f"{prefix}.{key}" if prefix else key] = table, key
    unexpected = [name for name in given if name not in places]
    missing = [name for name in places if name not in given]
    if strict and (missing or unexpected):
        texts = [f"Missing key(s): {', '.join(map(repr, missing))}."] if missing else []
        texts += [f"Unexpected key(s): {', '.join(map(repr, unexpected))}."] if unexpected else []
        raise UsageError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t" + "\n\t".join(texts))
    if unexpected:
        raise KeyError(f"{type(module).__name__} has no parameter or buffer {unexpected[0]!r}")
    by_identity = {id(places[name][0][places[name][1]]): value for name, value in given.items()} if tie else {}
    saved: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for name, (table, key) in places.items():
            held = table[key]
            if name in given or (held is not None and id(held) in by_identity):
                saved.append((table, key, held))
                table[key] = given[name] if name in given else by_identity[id(held)]
        return module(*args, **kwargs)
    finally:
        for table, key, held in reversed(saved):
            table[key] = held


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and buffers of several modules of one class stacked along a new first dimension, for `vmap`."""
    if len(models) == 0:
        raise UsageError("stack_module_state: Expected at least one model, got 0.")
    if not (all(m.training for m in models) or all(not m.training for m in models)):
        raise UsageError("stack_module_state: Expected all models to have the same training/eval mode.")
    if not all(type(m) is type(models[0]) for m in models):
        raise UsageError("stack_module_state: Expected all models to be of the same class.")
    parameters = [dict(m.named_parameters()) for m in models]
    buffers = [dict(m.named_buffers()) for m in models]
    return (
        {name: _stacked([p[name] for p in parameters]) for name in parameters[0]},
        {name: _stacked([p[name] for p in buffers]) for name in buffers[0]},
    )


def _stacked(tensors: Sequence[TensorBase]) -> Any:
    made = stack([t.detach() for t in tensors])  # type: ignore[attr-defined]
    return made.requires_grad_(tensors[0].requires_grad)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """`func(*primals)` and the function from tangents to the derivative in their direction; `func` is called once."""
    output, pull = vjp(func, *primals)
    outs, shape = flatten(output)
    _, transposed = vjp(lambda *cotangents: pull(rebuild(shape, cotangents)), *(zeros_like(o) for o in outs))
    leaves, structure = flatten(primals)

    def pushed(*tangents: Any) -> Any:
        given, other = flatten(tangents)
        if other != structure:
            raise UsageError(
                f"Expected the tangents {structure_text(tangents)} to have the same argspec as the primals "
                f"{structure_text(primals)}"
            )
        for place, (tangent, primal) in enumerate(zip(given, leaves, strict=True)):
            for what in ("shape", "device", "dtype"):
                got, wanted = getattr(tangent, what), getattr(primal, what)
                if got != wanted:
                    raise UsageError(
                        f"tangent:{place} with {what} {got} in flattened pytree doesn't match the {what} {wanted} of "
                        "the corresponding primal."
                    )
        return rebuild(shape, transposed(tangents))

    return output, pushed


def functionalize(func: Callable[..., Any], *, remove: str = "mutations") -> Callable[..., Any]:
    """`func` itself: writes in place are recorded as new values in any case."""
    if remove not in ("mutations", "mutations_and_views"):
        raise UsageError(
            f"functionalize(f, remove='mutations'): received invalid argument for remove={remove}."
            " Valid options are:\n"
            "     remove='mutations': all inplace and out= operators will be removed from the program, and replaced"
            " with their out-of-place equivalents.\n"
            "     remove='mutations_and_views': In addition to the above, all aliasing operators {view} will be"
            " replaced with their non-aliasing counterparts, {view}_copy.\n"
        )
    return wraps(func)(lambda *args, **kwargs: func(*args, **kwargs))


def replace_all_batch_norm_modules_(root: Any) -> Any:
    """Let the batch normalisations below `root` keep no running moments, in place; gives `root`."""
    for module in root.modules():
        if any(kind.__name__ == "_BatchNorm" for kind in type(module).__mro__):
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root
