"""Small convolutional networks and their training steps as graphs, made with the builder alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, f32, i64
from graphc.passes.autodiff import grad_graph

RATE = 0.01


def training_step(
    batch: int,
    picture: int = 12,
    channels: tuple[int, ...] = (1, 3, 4),
    hidden: tuple[int, ...] = (10,),
    classes: int = 5,
    dtype: DType = f32,
    window: int = 3,
    squares: bool = False,
) -> Graph:
    """One step of gradient descent: loss and new parameters from pictures, labels and parameters.

    For each further number of channels: a convolution (`window` by `window`), bias, relu and 2x2 max pooling; then
    linear layers with relu between them, and the mean cross entropy (or with `squares` the sum of squares, which is
    shorter as a text).
    """
    b = Builder()
    x = b.input(0, TensorType(dtype, (batch, channels[0], picture, picture)), "x")
    labels = b.input(1, TensorType(i64, (batch,)), "labels")
    parameters: list[Node] = []

    def parameter(*shape: int) -> Node:
        parameters.append(b.input(2 + len(parameters), TensorType(dtype, shape), f"p{len(parameters)}"))
        return parameters[-1]

    h = x
    for inside, outside in pairwise(channels):
        h = b.contract(h, parameter(outside, inside, window, window), "b c h+r w+s, o c r s -> b o h w")
        h = b.add(h, b.broadcast(b.reshape(parameter(outside), (outside, 1, 1)), h.shape))
        h = b.reduce_max(b.window(_relu(b, h), (2, 3), (2, 2), (2, 2), (1, 1)), (4, 5), "first")
    h = b.reshape(h, (batch, h.type.size // batch))
    for number, width in enumerate((*hidden, classes)):
        h = _relu(b, h) if number else h
        h = b.contract(h, parameter(width, h.shape[1]), "b i, o i -> b o")
        h = b.add(h, b.broadcast(parameter(width), h.shape))
    loss = b.reduce_sum(b.mul(h, h), (0, 1)) if squares else _cross_entropy(b, h, labels)
    inputs = (x, labels, *parameters)
    graph = grad_graph(Graph(inputs, (loss,), "step"), wrt=range(2, len(inputs)))
    b = Builder.of(graph)
    updated = [b.sub(p, b.mul(g, RATE)) for p, g in zip(parameters, graph.outputs[1:], strict=True)]
    return Graph(inputs, (loss, *updated), "step")


def lenet(batch: int) -> Graph:
    """The training step of a LeNet over 32x32 pictures."""
    return training_step(batch, 32, (1, 6, 16), (120, 84), 10)


def arrays_for(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Arrays for the inputs of a training step."""
    rng = np.random.default_rng(seed)
    classes = graph.inputs[-1].shape[0]
    arrays = []
    for node in graph.inputs:
        if node.dtype is i64:
            arrays.append(rng.integers(0, classes, node.shape))
        else:
            scale = 1.0 if node is graph.inputs[0] else 0.3
            arrays.append((rng.standard_normal(node.shape) * scale).astype(node.dtype.numpy))
    return arrays


def _relu(b: Builder, x: Node) -> Node:
    return b.select(b.elementwise("le", x, 0.0), 0.0, x)


def _cross_entropy(b: Builder, scores: Node, labels: Node) -> Node:
    batch, _ = scores.shape
    most = b.apply("detach", (b.reduce_max(scores, (1,)),))
    shifted = b.sub(scores, b.expand_dims(most, (1,), scores.shape))
    total = b.log(b.reduce_sum(b.exp(shifted), (1,)))
    columns = b.iota(1, TensorType(i64, scores.shape))
    hit = b.elementwise("eq", columns, b.broadcast(b.reshape(labels, (batch, 1)), scores.shape))
    picked = b.reduce_sum(b.select(hit, shifted, 0.0), (1,))
    return b.mul(b.reduce_sum(b.sub(total, picked), (0,)), 1.0 / batch)
