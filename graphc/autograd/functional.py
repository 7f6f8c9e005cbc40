"""Jacobians, Hessians and their products with vectors, of functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc import Tensor, enable_grad, eye, is_grad_enabled, ones_like, stack, zeros, zeros_like
from graphc.autograd.gradient import grad
from graphc.errors import InputError, KindError, UsageError

Function = Callable[..., Any]


def _as_tuple(value: Any, argument: str | None, name: str) -> tuple[bool, tuple[Any, ...]]:
    """Whether a tuple was given, and the tuple."""
    listed = value if isinstance(value, tuple) else (value,)
    for place, element in enumerate(listed):
        if isinstance(element, Tensor):
            continue
        if argument is None:
            subject = "The outputs of the user-provided function"
            start = f"{subject} given to {name} must be either a Tensor or a tuple of Tensors"
            given = "the given outputs of the user-provided function"
        else:
            start = f"The {argument} given to {name} must be either a Tensor or a tuple of Tensors"
            given = f"the given {argument}"
        if isinstance(value, tuple):
            raise KindError(f"{start} but the value at index {place} has type {type(element)}.")
        raise KindError(f"{start} but {given} has type {type(element)}.")
    return isinstance(value, tuple), listed


def _inputs(inputs: tuple[Any, ...], create_graph: bool) -> tuple[Any, ...]:
    """The inputs as the function sees them: connected to those given when the result is to be differentiated."""
    if create_graph:
        return tuple(x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in inputs)
    return tuple(x.detach().requires_grad_() for x in inputs)


def _vectors(v: Any, others: Sequence[Any], name: str, missing: str, is_tuple: bool) -> tuple[Any, ...]:
    """The vectors to multiply by, of the shapes of `others`; 1 when None and there is one number."""
    if v is None:
        if len(others) != 1 or others[0].numel() != 1:
            raise UsageError(f"The vector v can only be None if {missing}.")
        return tuple(ones_like(o) for o in others)
    _, listed = _as_tuple(v, "v", name)
    if len(listed) != len(others):
        raise UsageError(f"v is a tuple of invalid length: should be {len(others)} but got {len(listed)}.")
    for place, (vector, other) in enumerate(zip(listed, others, strict=True)):
        if vector.shape != other.shape:
            entry = f"Entry {place} in " if is_tuple else ""
            raise UsageError(f"{entry}v has invalid size: should be {other.shape} but got {vector.shape}.")
    return tuple(vector.detach() if not vector.requires_grad else vector for vector in listed)


def _strictly(outputs: Sequence[Any], what: str) -> None:
    for place, output in enumerate(outputs):
        if not output.requires_grad:
            raise UsageError(
                f"{what} {place} of the user-provided function does not require gradients. The outputs must be "
                "computed in a differentiable manner from the input when running in strict mode."
            )


def _pull(
    outputs: Sequence[Any], inputs: Sequence[Any], seeds: Sequence[Any], create_graph: bool, strict: bool
) -> tuple[Any, ...]:
    """The gradients, zeros where an input was not used (with `strict` an error)."""
    live = [(o, s) for o, s in zip(outputs, seeds, strict=True) if o.requires_grad]
    found: Sequence[Any] = (None,) * len(inputs)
    if live:
        found = grad([o for o, _ in live], inputs, [s for _, s in live], True, create_graph, allow_unused=True)
    if strict and any(g is None for g in found):
        place = [g is None for g in found].index(True)
        raise UsageError(
            f"The output of the user-provided function is independent of input {place}. This is not allowed in strict "
            "mode."
        )
    return tuple(zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True))


def _given(results: tuple[Any, ...], is_tuple: bool, create_graph: bool) -> Any:
    made = results if create_graph else tuple(r.detach() for r in results)
    return made if is_tuple else made[0]


def jacobian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of `func` at `inputs`: of the output's and the input's dimensions, for each output and input."""
    if strategy not in ("reverse-mode", "forward-mode"):
        raise InputError(
            'Expected strategy to be either "forward-mode" or "reverse-mode". Hint: If your function has more outputs '
            'than inputs, "forward-mode" tends to be more performant. Otherwise, prefer to use "reverse-mode".'
        )
    with enable_grad():
        many_in, given = _as_tuple(inputs, "inputs", "jacobian")
        given = _inputs(given, create_graph)
        many_out, outputs = _as_tuple(func(*given), None, "jacobian")
        if strict:
            _strictly(outputs, "Output")
        rows = []
        for output in outputs:
            columns = _rows(output, given, create_graph, strict)
            if not create_graph:
                columns = tuple(c.detach() for c in columns)
            rows.append(columns if many_in else columns[0])
    return tuple(rows) if many_out else rows[0]


def _rows(output: Any, inputs: tuple[Any, ...], create_graph: bool, strict: bool) -> tuple[Any, ...]:
    shapes = [(*output.shape, *x.shape) for x in inputs]
    if not output.requires_grad or not output.numel():
        return tuple(zeros(s, dtype=x.dtype, device=x.device) for s, x in zip(shapes, inputs, strict=True))
    seeds = eye(output.numel(), dtype=output.dtype, device=output.device).reshape(output.numel(), *output.shape)
    if create_graph or strict:
        made = [_pull([output], inputs, [seeds[i]], create_graph, strict) for i in range(output.numel())]
        parts: list[Any] = [stack(list(column)) for column in zip(*made, strict=True)]
    else:
        parts = list(grad(output, inputs, seeds, True, allow_unused=True, is_grads_batched=True))
    return tuple(
        zeros(s, dtype=x.dtype, device=x.device) if part is None else part.reshape(s)
        for part, s, x in zip(parts, shapes, inputs, strict=True)
    )


def _scalar(name: str, made: Any) -> Any:
    many, outputs = _as_tuple(made, None, name)
    if many or outputs[0].numel() != 1:
        if many:
            raise UsageError(f"The function given to {name} should return a single Tensor")
        raise UsageError(f"The Tensor returned by the function given to {name} should contain a single element")
    return outputs[0].reshape(())


def hessian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of `func`, which gives one number, for each pair of inputs."""
    many, given = _as_tuple(inputs, "inputs", "hessian")
    if outer_jacobian_strategy not in ("reverse-mode", "forward-mode"):
        raise InputError('Expected strategy to be either "forward-mode" or "reverse-mode".')

    def slope(*args: Any) -> Any:
        return jacobian(lambda *x: _scalar("hessian", func(*x)), args if many else args[0], create_graph=True)

    return jacobian(slope, given if many else given[0], create_graph, strict, vectorize, outer_jacobian_strategy)


def vjp(func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """`func(*inputs)` and the product of `v` with the Jacobian."""
    with enable_grad():
        many_in, given = _as_tuple(inputs, "inputs", "vjp")
        given = _inputs(given, create_graph)
        many_out, outputs = _as_tuple(func(*given), None, "vjp")
        if strict:
            _strictly(outputs, "Output")
        missing = "the user-provided function returns a single Tensor with a single element"
        vectors = _vectors(v, outputs, "vjp", missing, many_out)
        found = _pull(outputs, given, vectors, create_graph and is_grad_enabled(), strict)
    return _given(outputs, many_out, create_graph), _given(found, many_in, create_graph)


def jvp(func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """`func(*inputs)` and the product of the Jacobian with `v`, by differentiating the gradient by its cotangent."""
    with enable_grad():
        many_in, given = _as_tuple(inputs, "inputs", "jvp")
        given = _inputs(given, create_graph)
        missing = "the input to the user-provided function is a single Tensor with a single element"
        vectors = _vectors(v, given, "jvp", missing, many_in)
        many_out, outputs = _as_tuple(func(*given), None, "jvp")
        if strict:
            _strictly(outputs, "Output")
        cotangents = [zeros_like(o).requires_grad_() for o in outputs]
        slopes = _pull(outputs, given, cotangents, True, strict)
        found = _pull(slopes, cotangents, vectors, create_graph, False)
    return _given(outputs, many_out, create_graph), _given(found, many_out, create_graph)


def vhp(func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """The value of `func` and the product of `v` with its Hessian."""
    return _second("vhp", func, inputs, v, create_graph, strict)


def hvp(func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """The value of `func` and the product of its Hessian with `v`; the same as `vhp`, as the Hessian is symmetric."""
    return _second("hvp", func, inputs, v, create_graph, strict)


def _second(name: str, func: Function, inputs: Any, v: Any, create_graph: bool, strict: bool) -> Any:
    with enable_grad():
        many, given = _as_tuple(inputs, "inputs", name)
        given = _inputs(given, create_graph)
        missing = "the input to the user-provided function is a single Tensor with a single element"
        vectors = _vectors(v, given, name, missing, many)
        output = _scalar(name, func(*given))
        if strict:
            _strictly([output], "Output")
        slopes = _pull([output], given, [ones_like(output)], True, strict)
        found = _pull(slopes, given, vectors, create_graph, strict)
    return _given((output,), False, create_graph), _given(found, many, create_graph)
