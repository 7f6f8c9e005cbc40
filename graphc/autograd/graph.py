"""Gradient nodes, the edges between them, and hooks of several tensors and of what operations save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from graphc import Tensor
from graphc.errors import InputError, UsageError
from graphc.gradients import (
    Node,
    RemovableHandle,
    at_end,
    increment_version,
    mutation_allowed,
    pop_hooks,
    push_hooks,
    refuse_hooks,
)


class GradientEdge(NamedTuple):
    """One output of a gradient node."""

    node: Any
    output_nr: int


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The gradient node that a tensor comes from; of a leaf, the one that adds to its `.grad`."""
    if not tensor.requires_grad:
        raise UsageError(
            "It is not possible to get the gradient edge for a Tensor that does not require gradients",
        )
    if tensor.grad_fn is not None:
        return GradientEdge(tensor.grad_fn, tensor.output_nr)
    node, number = tensor.view_as(tensor).grad_fn.next_functions[0]
    return GradientEdge(node, number)


class saved_tensors_hooks:
    """Inside, what operations save for backward goes through `pack_hook(tensor)`, and backward reads what
    `unpack_hook` makes of its result."""

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        self.pack_hook = pack_hook
        self.unpack_hook = unpack_hook

    def __enter__(self) -> None:
        push_hooks(self.pack_hook, self.unpack_hook)

    def __exit__(self, *args: object) -> None:
        pop_hooks()


class save_on_cpu(saved_tensors_hooks):
    """Inside, what operations save is moved to the CPU, and back in backward."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        def pack(tensor: Tensor) -> tuple[Any, Tensor]:
            return tensor.device, tensor.cpu()

        def unpack(packed: tuple[Any, Tensor]) -> Tensor:
            device, tensor = packed
            return tensor.to(device, non_blocking=pin_memory)

        super().__init__(pack, unpack)


@contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Inside, hooks of saved tensors are refused: RuntimeError with this message."""
    before = refuse_hooks(error_message)
    try:
        yield
    finally:
        refuse_hooks(before)


class _AllowMutationOnSavedContext:
    """What `allow_mutation_on_saved_tensors` gives; values that backward reads are kept in any case."""

    def clear(self) -> None:
        """Nothing to do."""


@contextmanager
def allow_mutation_on_saved_tensors() -> Iterator[_AllowMutationOnSavedContext]:
    """Inside, tensors that operations saved may be written in place: backward reads what they held."""
    with mutation_allowed():
        yield _AllowMutationOnSavedContext()


class _MultiHandle(RemovableHandle):
    """Removes the hooks of several tensors."""

    def __init__(self, handles: Sequence[RemovableHandle]) -> None:
        self.handles = tuple(handles)

    def remove(self) -> None:
        """None of the hooks is called any more."""
        for handle in self.handles:
            handle.remove()


def register_multi_grad_hook(
    tensors: Sequence[Tensor], fn: Callable[..., None], *, mode: str = "all"
) -> RemovableHandle:
    """Call `fn` once in each backward: with the gradients of all tensors, None for those that have none (mode "all", at
    the end), or with the first one that is known (mode "any")."""
    if mode not in ("all", "any"):
        raise InputError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    key = object()
    if mode == "any":

        def first(grad: Tensor) -> None:
            if at_end(key, lambda: None):
                fn(grad)

        return _MultiHandle([t.register_hook(first) for t in tensors if t.requires_grad])
    found: dict[int, Tensor] = {}

    def finish() -> None:
        grads = [found.get(place) for place in range(len(tensors))]
        found.clear()
        fn(grads)

    def collect(place: int) -> Callable[[Tensor], None]:
        def hook(grad: Tensor) -> None:
            at_end(key, finish)
            found[place] = grad

        return hook

    return _MultiHandle([t.register_hook(collect(place)) for place, t in enumerate(tensors)])


__all__ = [
    "GradientEdge",
    "Node",
    "allow_mutation_on_saved_tensors",
    "disable_saved_tensors_hooks",
    "get_gradient_edge",
    "increment_version",
    "register_multi_grad_hook",
    "save_on_cpu",
    "saved_tensors_hooks",
]
