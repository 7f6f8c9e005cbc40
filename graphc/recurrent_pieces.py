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
from graphc.memory import AnyBuffer, allocate_all, cut, filled, from_host, part, pieces, put, read_pieces
from graphc.options import INTERPRET, code_key
from graphc.passes.autodiff import vjp
from graphc.recording import current
from graphc.recurrent_layers import KINDS, Kind, emitted, layer
from graphc.tensors.core import from_buffer, wants_grad
from graphc.tensors.export import seen
from graphc.tensors.views import is_contiguous

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
    return moves(about, steps, MOST_LENGTHS)


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
    nodes = tuple(b.input(i, type.on("cpu")) for i, type in enumerate((*types, *others)))
    operands, rest = nodes[: len(types)], nodes[len(types) :]
    made = form.emitted(b, operands)
    if others:
        seeds, before = rest[: len(made)], rest[len(made) :]
        wanted = operands[: len(types) - form.masked]
        pairs = zip(wanted, vjp(b, made, seeds, wanted), strict=True)
        slopes = [b.zeros_like(x) if slope is None else slope for x, slope in pairs]
        first = len(wanted) - len(before)
        made = [*slopes[:first], *(b.add(*pair) for pair in zip(before, slopes[first:], strict=True))]
    return graphc.compiled.compile_graph(Graph(nodes, tuple(made)), (), types[0].device)


def _program(form: _Form, types: Sequence[TensorType], others: Sequence[TensorType] = ()) -> Any:
    return _compiled(form, tuple(types), tuple(others), code_key())


def _memory(tensor: Tensor) -> AnyBuffer:
    """Where the elements of a tensor lie one after the other, computed now if they are pending."""
    buffer, type, strides, offset = tensor._storage.realise(), tensor._type, tensor._strides, tensor._offset
    if is_contiguous(type.shape, strides):
        return part(buffer, offset * type.dtype.itemsize, type.nbytes)
    if type.device == "cpu":
        return from_host(np.ascontiguousarray(seen(buffer, type, strides, offset)), "cpu")
    found = pieces(type.shape, strides, offset, type.dtype.itemsize)
    return _memory(tensor.clone()) if found is None else read_pieces(buffer, found, type)


def _joined(parts: Sequence[tuple[int, int, AnyBuffer]], type: TensorType, axis: int) -> Tensor:
    """A tensor of pieces: where they begin along an axis, how long they are, and their memory."""
    (whole,) = allocate_all(type.device, (type,))
    for first, size, buffer in parts:
        put(whole, type, axis, first, buffer, size)
    return from_buffer(whole, type)


class _Operands(NamedTuple):
    """What the pieces of a sequence read: the whole input and mask, and for a piece of each length all types."""

    x: AnyBuffer
    mask: list[AnyBuffer]
    weights: list[AnyBuffer]
    types: Sequence[TensorType]  # of input, states, weights, mask

    def of(self, form: _Form, first: int, size: int, start: Sequence[AnyBuffer]) -> list[AnyBuffer]:
        """The operands of a piece that begins with some states."""
        mask = [cut(mask, self.types[-1], 0, first, size) for mask in self.mask]
        return [cut(self.x, self.types[0], int(form.batch_first), first, size), *start, *self.weights, *mask]

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
    return _Operands(_memory(input), list(map(_memory, masks)), list(map(_memory, weights)), types)


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
        outputs: list[tuple[int, int, AnyBuffer]] = []
        starts = [[cut(_memory(h), h._type, 0, place, 1) for h in hx]]
        steps = input._type.shape[int(form.batch_first)]
        for first, size in pieces_of(steps, form.reverse):
            program = _program(form, operands.types_of(form, size))
            output, *states = program.run(operands.of(form, first, size, starts[-1]))
            outputs.append((first, size, output))
            starts.append(states)
        whole = _joined(outputs, hx[0]._type.with_shape((steps, *hx[0]._type.shape[1:])), 0)
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
    d_output, *seeds = map(_memory, cotangents)
    d_type, *rest = cotangents[0]._type, *cotangents[1:]
    totals: list[AnyBuffer] = [filled(0.0, w._type) for w in weights]
    parts: list[tuple[int, int, AnyBuffer]] = []
    order = pieces_of(input._type.shape[axis], form.reverse)
    for start, (first, size) in zip(starts[-2::-1], reversed(order), strict=True):
        types = operands.types_of(form, size)
        shape = (size, *d_type.shape[1:])
        others = [d_type.with_shape(shape), *(d._type for d in (*rest, *weights))]
        program = _program(form, types, others)
        given = [*operands.of(form, first, size, start), cut(d_output, d_type, 0, first, size), *seeds, *totals]
        d_x, *found = program.run(given)
        seeds, totals = found[: form.states], found[form.states :]
        parts.append((first, size, d_x))
    d_input = _joined(parts, input._type, axis)
    d_hx = [_placed(h, d, place) for h, d in zip(hx, seeds, strict=True)]
    return [d_input, *d_hx, *(from_buffer(total, w._type) for total, w in zip(totals, weights, strict=True))]


def _placed(h: Tensor, buffer: AnyBuffer, place: int) -> Tensor:
    """The gradient of all states, of which those at `place` were read."""
    made = filled(0.0, h._type)
    put(made, h._type, 0, place, buffer, 1)
    return from_buffer(made, h._type)


def pieces_of(steps: int, reverse: bool) -> list[tuple[int, int]]:
    """Where pieces of so many steps begin, and how long they are, in the order in which they are run."""
    made: list[tuple[int, int]] = []
    first = 0
    for size in PIECES:
        for _ in range((steps - first) // size):
            made.append((first, size))
            first += size
    return made[::-1] if reverse else made
