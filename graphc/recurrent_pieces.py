"""Recurrent layers over sequences of ever new lengths.

A sequence is cut into pieces of a few lengths, and what a piece gives, and its gradient, is a program that all lengths
share. The gradient of a piece begins with the states that it began with, and computes the piece again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import graphc
from graphc.backward import grad
from graphc.call_places import moves
from graphc.custom_function import Function
from graphc.grad_mode import MODE
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.memory import AnyBuffer, filled, from_host, values_of
from graphc.options import INTERPRET, code_key
from graphc.passes.autodiff import vjp
from graphc.recording import current
from graphc.recurrent_layers import KINDS, Kind, emitted, layer
from graphc.tensors.core import from_array, from_buffer, wants_grad
from graphc.tensors.export import seen

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

MOST_LENGTHS = 2  # of sequences, before a layer is cut into pieces
PIECES = (64, 16, 4, 1)  # steps: a program each
MOST_PROGRAMS = 256  # that are kept; the least recently used are forgotten


def is_any_length(kind: Kind, input: Tensor, steps: int, hx: Sequence[Tensor]) -> bool:
    """Whether a layer sees sequences of ever new lengths."""
    recorder = current()
    if recorder.capture is not None or recorder.example_since is not None or not INTERPRET.get():
        return False
    about = "length", kind.name, input._type.shape[-1], hx[0]._type.shape
    return input._type.device == "cpu" and moves(about, steps, MOST_LENGTHS)


def in_pieces(
    name: str,
    input: Tensor,
    hx: Sequence[Tensor],
    place: int,
    weights: Sequence[Tensor],
    biased: bool,
    batch_first: bool,
    reverse: bool,
    mask: Tensor | None,
) -> tuple[Tensor, ...]:
    """What `layer` gives, computed piece by piece."""
    form = _Form(name, biased, batch_first, reverse, mask is not None)
    if MODE.enabled and wants_grad((input, *hx, *weights)):
        return _Sequence.apply(form, place, mask, input, *hx, *weights)
    return _run(form, place, mask, input, hx, weights)[0]


class _Form(NamedTuple):
    """What a layer is besides its operands."""

    name: str
    biased: bool
    batch_first: bool
    reverse: bool
    masked: bool

    @property
    def states(self) -> int:
        return KINDS[self.name].states

    def emitted(self, b: Builder, nodes: Sequence[Node]) -> list[Node]:
        """The outputs and last states of a piece, of its input, states, weights and mask."""
        return emitted(b, KINDS[self.name], nodes, 0, self.biased, self.batch_first, self.reverse, self.masked)


@lru_cache(MOST_PROGRAMS)
def _compiled(form: _Form, types: tuple[TensorType, ...], others: tuple[TensorType, ...], code: object) -> Any:
    """What runs a piece with operands of `types`, compiled under the options of `code`. With `others`, of the gradients
    of its outputs and last states and of the weights so far, what gives the gradients of input, states and weights.
    """
    b = Builder()
    nodes = tuple(b.input(i, type) for i, type in enumerate((*types, *others)))
    operands, rest = nodes[: len(types)], nodes[len(types) :]
    made = form.emitted(b, operands)
    if others:
        seeds, before = rest[: len(made)], rest[len(made) :]
        wanted = operands[: len(types) - form.masked]
        pairs = zip(wanted, vjp(b, made, seeds, wanted), strict=True)
        slopes = [b.zeros_like(x) if slope is None else slope for x, slope in pairs]
        first = len(wanted) - len(before)
        made = [*slopes[:first], *(b.add(*pair) for pair in zip(before, slopes[first:], strict=True))]
    return graphc.compiled.compile_graph(Graph(nodes, tuple(made)))


def _program(form: _Form, types: Sequence[TensorType], others: Sequence[TensorType] = ()) -> Any:
    return _compiled(form, tuple(types), tuple(others), code_key())


def _array(tensor: Tensor) -> np.ndarray:
    """The elements of a tensor of the CPU's memory, computed now if they are pending."""
    return seen(tensor._storage.realise(), tensor._type, tensor._strides, tensor._offset)


def _buffer(array: np.ndarray) -> AnyBuffer:
    return from_host(np.ascontiguousarray(array), "cpu")


def _cut(array: np.ndarray, axis: int, first: int, size: int) -> AnyBuffer:
    return _buffer(array[:, first : first + size] if axis else array[first : first + size])


class _Operands(NamedTuple):
    """What the pieces of a sequence read: the whole input and mask, and for a piece of each length all types."""

    x: np.ndarray
    mask: list[np.ndarray]
    weights: list[AnyBuffer]
    types: Sequence[TensorType]  # of input, states, weights, mask

    def of(self, form: _Form, first: int, size: int, start: Sequence[AnyBuffer]) -> list[AnyBuffer]:
        """The operands of a piece that begins with some states."""
        mask = [_cut(mask, 0, first, size) for mask in self.mask]
        return [_cut(self.x, int(form.batch_first), first, size), *start, *self.weights, *mask]

    def types_of(self, form: _Form, size: int) -> list[TensorType]:
        x, *rest = self.types
        shape = (x.shape[0], size, x.shape[2]) if form.batch_first else (size, *x.shape[1:])
        if form.masked:
            rest[-1] = rest[-1].with_shape((size, *rest[-1].shape[1:]))
        return [x.with_shape(shape), *rest]


def _operands(
    form: _Form, mask: Tensor | None, input: Tensor, hx: Sequence[Tensor], weights: Sequence[Tensor]
) -> _Operands:
    masks = [mask] if mask is not None else []
    states = [h._type.with_shape((1, *h._type.shape[1:])) for h in hx]
    types = [input._type, *states, *(tensor._type for tensor in (*weights, *masks))]
    return _Operands(_array(input), list(map(_array, masks)), [_buffer(_array(w)) for w in weights], types)


def _run(
    form: _Form,
    place: int,
    mask: Tensor | None,
    input: Tensor,
    hx: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], list[list[AnyBuffer]]]:
    """The outputs and last states, and the states with which each piece began."""
    with current().lock:
        operands = _operands(form, mask, input, hx, weights)
        outputs: list[np.ndarray] = []
        starts = [[_buffer(_array(h)[place : place + 1]) for h in hx]]
        rows = hx[0]._type.shape[1:]
        for first, size in pieces(operands.x.shape[int(form.batch_first)], form.reverse):
            program = _program(form, operands.types_of(form, size))
            output, *states = program.run(operands.of(form, first, size, starts[-1]))
            outputs.append(values_of(output, hx[0]._type.with_shape((size, *rows))))
            starts.append(states)
        whole = from_array(np.concatenate(outputs[::-1] if form.reverse else outputs), hx[0]._type.dtype)
        ends = [from_buffer(end, h._type.with_shape(h._type.shape[1:])) for end, h in zip(starts[-1], hx, strict=True)]
        return (whole, *ends), starts


class _Sequence(Function):
    """A layer in pieces, and its gradient in pieces."""

    @staticmethod
    def forward(
        ctx: Any, form: _Form, place: int, mask: Tensor | None, input: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        made, ctx.starts = _run(form, place, mask, input, others[: form.states], others[form.states :])
        ctx.about = form, place, mask
        ctx.save_for_backward(input, *others)
        return made

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        (form, place, mask), (input, *others) = ctx.about, ctx.saved_tensors
        hx, weights = others[: form.states], others[form.states :]
        if MODE.enabled:  # for gradients of gradients
            made = layer(form.name, input, hx, place, weights, form.biased, form.batch_first, form.reverse, mask)
            wanted = [x for x in (input, *others) if x.requires_grad]
            found = iter(grad(made, wanted, cotangents, create_graph=True, allow_unused=True))
            return None, None, None, *(next(found) if x.requires_grad else None for x in (input, *others))
        with current().lock:
            return None, None, None, *_gradients(form, place, mask, input, hx, weights, ctx.starts, cotangents)


def _gradients(
    form: _Form,
    place: int,
    mask: Tensor | None,
    input: Tensor,
    hx: Sequence[Tensor],
    weights: Sequence[Tensor],
    starts: Sequence[Sequence[AnyBuffer]],
    cotangents: Sequence[Tensor],
) -> list[Tensor]:
    """The gradients of input, states and weights, piece by piece from the last one on."""
    operands = _operands(form, mask, input, hx, weights)
    axis = int(form.batch_first)
    d_output, *d_states = map(_array, cotangents)
    d_type, *rest = cotangents[0]._type, *cotangents[1:]
    seeds: list[AnyBuffer] = list(map(_buffer, d_states))
    totals: list[AnyBuffer] = [filled(0.0, w._type) for w in weights]
    parts: list[np.ndarray] = []
    for start, (first, size) in zip(
        starts[-2::-1], reversed(pieces(operands.x.shape[axis], form.reverse)), strict=True
    ):
        types = operands.types_of(form, size)
        shape = (size, *d_output.shape[1:])
        others = [d_type.with_shape(shape), *(d._type for d in (*rest, *weights))]
        program = _program(form, types, others)
        given = [*operands.of(form, first, size, start), _cut(d_output, 0, first, size), *seeds, *totals]
        d_x, *found = program.run(given)
        seeds, totals = found[: form.states], found[form.states :]
        parts.append(values_of(d_x, types[0]))
    d_input = from_array(np.concatenate(parts if form.reverse else parts[::-1], axis), input._type.dtype)
    d_hx = [_placed(h, d, place) for h, d in zip(hx, seeds, strict=True)]
    return [d_input, *d_hx, *(from_buffer(total, w._type) for total, w in zip(totals, weights, strict=True))]


def _placed(h: Tensor, buffer: AnyBuffer, place: int) -> Tensor:
    """The gradient of all states, of which those at `place` were read."""
    made = np.zeros(h._type.shape, h._type.dtype.numpy)
    made[place : place + 1] = values_of(buffer, h._type.with_shape((1, *h._type.shape[1:])))
    return from_array(made, h._type.dtype)


def pieces(steps: int, reverse: bool) -> list[tuple[int, int]]:
    """Where pieces of so many steps begin, and how long they are, in the order in which they are run."""
    made: list[tuple[int, int]] = []
    first = 0
    for size in PIECES:
        for _ in range((steps - first) // size):
            made.append((first, size))
            first += size
    return made[::-1] if reverse else made
