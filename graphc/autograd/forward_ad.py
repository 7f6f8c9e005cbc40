"""Forward mode: dual tensors carry a tangent, the derivative in one direction.

A dual tensor is a variable; the tangent of what was made of it is found by differentiating its gradient, which is
linear in the cotangent, by the cotangent. So operations must be recorded: `no_grad` ends a tangent.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple

from graphc import Tensor, enable_grad, zeros_like
from graphc.autograd.gradient import grad
from graphc.errors import InputError, UsageError
from graphc.gradients import is_grad_enabled


class UnpackedDualTensor(NamedTuple):
    """A tensor and its tangent, or None."""

    primal: Tensor
    tangent: Tensor | None


class _Levels:
    """The level that is open: its dual tensors with their tangents, and whether each was differentiable before."""

    duals: list[tuple[Tensor, Tensor, bool]] | None = None


def enter_dual_level() -> int:
    """Open the level and give its number. RuntimeError when it is open: levels do not nest."""
    if _Levels.duals is not None:
        raise UsageError("Nested forward mode AD is not supported at the moment")
    _Levels.duals = []
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Close the level: tangents are gone."""
    if _Levels.duals is None and level is None:
        raise UsageError("Dual level must be a positive number.")
    if _Levels.duals is None or level not in (None, 0):
        raise UsageError(
            "Trying to exit a forward AD level that was not the last one that was created. This is not supported."
        )
    _Levels.duals = None


class dual_level:
    """A block in which dual tensors can be made."""

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        exit_dual_level()

    def __call__(self, function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return wrapped


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """`tensor` with a tangent. ValueError unless both are floats, RuntimeError for other shapes or without a level."""
    if _Levels.duals is None or (level is not None and level < 0):
        raise UsageError(
            "Trying to create a dual Tensor for forward AD but no level exists, make sure to enter_dual_level() first."
        )
    for what, given in (("primal", tensor), ("tangent", tangent)):
        if not given.is_floating_point():
            raise InputError(f"Expected {what} to be floating point or complex, but got: {given.dtype}")
    if tensor.shape != tangent.shape:
        raise UsageError(
            "Trying to set a forward gradient that has a different size than that of the original Tensor, this is not "
            f"supported. Tensor is of size {list(tensor.shape)} while the given forward gradient is of size "
            f"{list(tangent.shape)}."
        )
    if tensor.dtype != tangent.dtype:
        raise UsageError(
            "Expected the forward gradient to have the dtype of the original Tensor: "
            f"{tangent.dtype} for a tensor of {tensor.dtype}"
        )
    differentiable = tensor.requires_grad
    with enable_grad():
        dual = tensor.view_as(tensor) if differentiable else tensor.detach().requires_grad_()
    _Levels.duals.append((dual, tangent, differentiable or tangent.requires_grad))
    return dual


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """The tensor without its tangent, and the tangent: None where it depends on no dual tensor."""
    duals = _Levels.duals
    if not duals or not tensor.requires_grad:
        return UnpackedDualTensor(tensor, None)
    lasting = is_grad_enabled() and any(differentiable for _, _, differentiable in duals)
    with enable_grad():
        cotangent = zeros_like(tensor).requires_grad_()
        slopes = grad(tensor, [d for d, _, _ in duals], cotangent, True, True, allow_unused=True)
        used = [(s, t) for s, (_, t, _) in zip(slopes, duals, strict=True) if s is not None]
        if not used:
            return UnpackedDualTensor(tensor, None)
        (tangent,) = grad([s for s, _ in used], cotangent, [t for _, t in used], True, True, allow_unused=True)
    tangent = zeros_like(tensor) if tangent is None else tangent
    if lasting or _has_other_leaves(tensor, duals):
        return UnpackedDualTensor(tensor.view_as(tensor), tangent)
    return UnpackedDualTensor(tensor.detach(), tangent.detach())


def _has_other_leaves(tensor: Tensor, duals: list[tuple[Tensor, Tensor, bool]]) -> bool:
    """Whether gradients of `tensor` go to leaves that were there before."""
    ours = {id(dual) for dual, _, differentiable in duals if not differentiable}
    stack = [tensor.grad_fn]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in ours:
            return True
        stack.extend(parent for parent, _ in node.next_functions)
    return False


__all__ = [
    "UnpackedDualTensor",
    "dual_level",
    "enter_dual_level",
    "exit_dual_level",
    "make_dual",
    "unpack_dual",
]
