"""Gradients against finite differences: `gradcheck` and, for second gradients, `gradgradcheck`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import Tensor, from_numpy, randn, zeros_like
from graphc.errors import CheckError, InputError, UsageError
from graphc.gradients import grad as autograd_grad
from graphc.gradients import is_grad_enabled


class GradcheckError(UsageError):
    """A gradient differs from the finite difference, or breaks another rule of `gradcheck`."""


def _outputs(made: Any) -> list[Any]:
    """The outputs of a function that can have gradients."""
    listed = list(made) if isinstance(made, tuple | list) else [made]
    return [o for o in listed if isinstance(o, Tensor) and o.is_floating_point()]


def _moved(base: np.ndarray, like: Tensor) -> Tensor:
    return from_numpy(base.copy()).to(like.device, like.dtype)


def _jacobians(function: Callable[..., Any], inputs: Sequence[Any], which: int, eps: float) -> list[np.ndarray]:
    """Central differences of all outputs: entry [i, j] is d output.flat[j] / d inputs[which].flat[i]."""
    base = inputs[which].detach().cpu().numpy().astype(np.float64)
    rows: list[list[np.ndarray]] = []
    for place in range(base.size):
        ends: list[list[np.ndarray]] = []
        for step in (eps, -eps):
            moved = base.copy()
            moved.reshape(-1)[place] += step
            given: list[Any] = [x.detach() if isinstance(x, Tensor) else x for x in inputs]
            given[which] = _moved(moved, inputs[which])
            given = [
                g.requires_grad_() if isinstance(x, Tensor) and x.requires_grad and g.is_leaf else g
                for x, g in zip(inputs, given, strict=True)
            ]
            ends.append([o.detach().cpu().numpy().astype(np.float64).reshape(-1) for o in _outputs(function(*given))])
        rows.append([(high - low) / (2 * eps) for high, low in zip(*ends, strict=True)])
    if not rows:
        return [np.zeros((0, o.numel())) for o in _outputs(function(*inputs))]
    return [np.stack([row[k] for row in rows]) for k in range(len(rows[0]))]


def numerical_jacobian(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], which: int, eps: float = 1e-6
) -> np.ndarray:
    """Central differences: entry [i, j] is d output.flat[j] / d inputs[which].flat[i]."""
    return _jacobians(function, inputs, which, eps)[0]


def _analytical(output: Tensor, x: Tensor, check_dtype: bool) -> np.ndarray:
    columns = []
    for place in range(output.numel()):
        seed = np.zeros(output.numel())
        seed[place] = 1
        given = _moved(seed.reshape(tuple(output.shape)), output)
        (found,) = autograd_grad(output, x, given, retain_graph=True, allow_unused=True)
        if found is not None and check_dtype and found.dtype != x.dtype:
            raise GradcheckError("Gradient has dtype mismatch")
        columns.append(
            (zeros_like(x) if found is None else found).detach().cpu().numpy().astype(np.float64).reshape(-1)
        )
    return np.stack(columns, 1) if columns else np.zeros((x.numel(), 0))


def _check_inputs(given: Sequence[Any]) -> None:
    if not any(isinstance(x, Tensor) and x.requires_grad for x in given):
        raise InputError(
            "gradcheck expects at least one input tensor to require gradient, but none of them have requires_grad=True."
        )
    for place, x in enumerate(given):
        if not (isinstance(x, Tensor) and x.requires_grad):
            continue
        if x.element_size() < 8:
            warnings.warn(
                f"Input #{place} requires gradient and is not a double precision floating point or complex. This "
                "check will likely fail if all the inputs are not of double precision floating point or complex. ",
                stacklevel=4,
            )
        if any(step == 0 and extent > 1 for step, extent in zip(x.stride(), x.shape, strict=True)):
            raise UsageError(
                f"The {place}th input has a dimension with stride 0. gradcheck only supports inputs that are "
                "non-overlapping to be able to compute the numerical gradients correctly. You should call "
                ".contiguous on the input before passing it to gradcheck."
            )


def _check(
    func: Callable[..., Any], given: list[Any], eps: float, atol: float, rtol: float, nondet_tol: float, dtypes: bool
) -> None:
    outputs = _outputs(func(*given))
    if not any(o.requires_grad for o in outputs):
        for which, x in enumerate(given):
            wanted = isinstance(x, Tensor) and x.requires_grad
            if wanted and any(np.any(j != 0) for j in _jacobians(func, given, which, eps)):
                raise GradcheckError("Numerical gradient for function expected to be zero")
        return
    for which, x in enumerate(given):
        if not (isinstance(x, Tensor) and x.requires_grad):
            continue
        numerical = _jacobians(func, given, which, eps)
        for number, output in enumerate(outputs):
            if not output.requires_grad:
                if np.any(numerical[number] != 0):
                    raise GradcheckError("Numerical gradient for function expected to be zero")
                continue
            analytical = _analytical(output, x, dtypes)
            if not np.allclose(analytical, numerical[number], atol=atol, rtol=rtol, equal_nan=True):
                raise GradcheckError(
                    f"Jacobian mismatch for output {number} with respect to input {which},\n"
                    f"numerical:{from_numpy(numerical[number])}\nanalytical:{from_numpy(analytical)}\n"
                )
            if np.any(np.abs(_analytical(output, x, dtypes) - analytical) > nondet_tol):
                raise GradcheckError(
                    "Backward is not reentrant, i.e., running backward with same input and grad_output multiple "
                    "times gives different values, although analytical gradient matches numerical gradient."
                    f"The tolerance for nondeterminism was {nondet_tol}."
                )
    _check_undefined(outputs, [x for x in given if isinstance(x, Tensor) and x.requires_grad])


def _check_undefined(outputs: list[Any], inputs: list[Any]) -> None:
    """The gradients are zero where those of the outputs are."""
    live = [o for o in outputs if o.requires_grad]
    found = autograd_grad(live, inputs, [zeros_like(o) for o in live], retain_graph=True, allow_unused=True)
    for gradient, x in zip(found, inputs, strict=True):
        if gradient is None:
            continue
        if np.any(np.nan_to_num(gradient.detach().cpu().numpy()) != 0):
            raise GradcheckError("backward not multiplied by grad_output")
        if gradient.shape != x.shape:
            raise GradcheckError("grad is incorrect size")


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Compare the gradients of `func` by its float64 inputs with central differences.

    GradcheckError where they differ, False instead with `raise_exception=False`. All entries of the Jacobians are
    compared, also with `fast_mode`; forward mode is derived from backward, so it has no check of its own.
    """
    if not (check_forward_ad or check_backward_ad):
        raise CheckError("Expected at least one of check_forward_ad or check_backward_ad to be True")
    if check_batched_grad and not check_backward_ad:
        raise CheckError("Setting check_batched_grad=True requires check_backward_ad to be True")
    if check_batched_forward_grad and not check_forward_ad:
        raise CheckError("Setting check_batched_forward_grad=True requires check_forward_ad to be True")
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    try:
        _check_inputs(given)
        _check(func, given, eps, atol, rtol, nondet_tol, check_grad_dtypes)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """`gradcheck` of the gradient of `func`, by the inputs and by `grad_outputs` (random ones when None)."""
    if not (check_fwd_over_rev or check_rev_over_rev):
        raise CheckError("Expected at least one of check_fwd_over_rev or check_rev_over_rev to be True")
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    outputs = _outputs(func(*given))
    if grad_outputs is None:
        seeds = [randn(o.shape, dtype=o.dtype, device=o.device).requires_grad_() for o in outputs]
    else:
        seeds = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    count = len(seeds)
    places = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]

    def slope(*args: Any) -> Any:
        values, seed = list(args[:-count]), args[-count:]
        for place in places:
            if not values[place].requires_grad:
                values[place] = values[place].requires_grad_()
        wanted = [values[place] for place in places]
        live = [(o, s) for o, s in zip(_outputs(func(*values)), seed, strict=True) if o.requires_grad]
        found = autograd_grad(
            [o for o, _ in live], wanted, [s for _, s in live], create_graph=is_grad_enabled(), allow_unused=True
        )
        return tuple(g for g in found if g is not None)

    return gradcheck(
        slope,
        (*given, *seeds),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_grad_dtypes=check_grad_dtypes,
        fast_mode=fast_mode,
        masked=masked,
    )
