"""Gradient nodes and the edges between them."""

from __future__ import annotations

from typing import Any, NamedTuple

from graphc import Tensor
from graphc.gradients import Node


class GradientEdge(NamedTuple):
    """One output of a gradient node."""

    node: Any
    output_nr: int


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The gradient node that a tensor comes from; of a leaf, the one that adds to its `.grad`."""
    if not tensor.requires_grad:
        raise RuntimeError(
            "It is not possible to get the gradient edge for a Tensor that does not require gradients",
        )
    if tensor.grad_fn is not None:
        return GradientEdge(tensor.grad_fn, tensor.output_nr)
    node, number = tensor.view_as(tensor).grad_fn.next_functions[0]
    return GradientEdge(node, number)


__all__ = ["GradientEdge", "Node", "get_gradient_edge"]
