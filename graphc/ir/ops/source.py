"""Operators without computed operands: inputs, constants, indices, and random bits and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.ir.node import Node
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import given
from graphc.ir.ops.composites import Arrays
from graphc.ir.sugar import OpMethods
from graphc.ir.types import DType, TensorType, i32, i64

if TYPE_CHECKING:
    from graphc.ir.builder import Builder


def _evaluate_input(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    raise ValueError(f"input {attrs['index']} has no value of its own; the evaluator takes it from its arguments")


def _evaluate_constant(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    value = attrs["value"]
    if type.dtype.is_integer:
        bits = int(value) & ((1 << type.dtype.bits) - 1)
        if type.dtype.kind == "int" and bits >> (type.dtype.bits - 1):
            bits -= 1 << type.dtype.bits
        value = bits
    made = np.empty(type.shape, type.dtype.numpy)
    made.fill(value)  # as `np.full`, in half the time
    return made


def _evaluate_iota(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    axis = attrs["axis"]
    index = np.arange(type.shape[axis]).astype(type.dtype.numpy)
    shape = tuple(-1 if i == axis else 1 for i in range(type.rank))
    return np.broadcast_to(index.reshape(shape), type.shape).copy()


DRAWS = frozenset({"random_bits", "random_normal"})  # from a key, by the row-major index of each element
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
BLOCK = 16  # elements with the first words of so many counters, then as many with the second: what vectors can share
IN_TURN = 2  # in place of the number of a word: both serve, in such blocks
_PARITY = 0x1BD11BDA
_SPREAD = 0x9E3779B9  # an odd number without pattern, so that small high halves do not meet each other


def threefry2x32(key: tuple[int, int], c0: np.ndarray, c1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Threefry-2x32 with 20 rounds: two u32 words for each counter (c0, c1) under `key`.

    Source: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11, section 4.
    """
    keys = [np.uint32(key[0]), np.uint32(key[1]), np.uint32(key[0] ^ key[1] ^ _PARITY)]
    x0 = c0.astype(np.uint32) + keys[0]
    x1 = c1.astype(np.uint32) + keys[1]
    for group in range(5):
        for count in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(count)) | (x1 >> np.uint32(32 - count))
            x1 = x1 ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


def _evaluate_random_bits(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    seed, offset = (int(word) & 0xFFFF_FFFF_FFFF_FFFF for word in arrays[0])
    low = 0xFFFF_FFFF
    in_turn = attrs["word"] == IN_TURN
    index = np.arange(blocks(type) * BLOCK if in_turn else type.size, dtype=np.uint64).astype(np.uint32)
    second = np.full_like(index, ((seed >> 32) + (offset >> 32) * _SPREAD) & low)
    words = threefry2x32((seed & low, offset & low), index, second)
    if in_turn:
        bits = np.stack([word.reshape(-1, BLOCK) for word in words], 1).reshape(-1)[: type.size]
    else:
        bits = words[attrs["word"]]
    return bits.view(np.int32).reshape(type.shape)


def blocks(type: TensorType) -> int:
    """How many blocks of counters serve all elements, two for each counter."""
    return -(-type.size // (2 * BLOCK))


def _in_turn(b: OpMethods, type: TensorType, pair: Callable[[TensorType], Sequence[Node]]) -> Node:
    """A value of `type` made of the two that `pair` gives for a type of half the size (or a little more).

    BLOCK elements of the first are followed by as many of the second, and so on.
    """
    half, both = (type.with_shape((blocks(type), count, BLOCK)) for count in (1, 2))
    first, second = (b.broadcast(b.reshape(part, half.shape), both.shape) for part in pair(half))
    which = b.iota(1, both.with_dtype(i32))
    made = b.select(b.elementwise("eq", which, 0), first, second)
    flat = b.reshape(made, (both.size,))
    return b.reshape(b.slice(flat, (0,), (type.size,), (1,)), type.shape)


def row_major_index(b: Builder, type: TensorType, axes: Sequence[int]) -> Node:
    """The row-major index among `axes` at each element, an integer tensor of `type`."""
    index = b.constant(0, type)
    for place, axis in enumerate(axes):
        if type.shape[axis] != 1:
            stride = math.prod(type.shape[a] for a in axes[place + 1 :])
            step = b.mul(b.iota(axis, type), stride) if stride != 1 else b.iota(axis, type)
            index = step if index.op == "constant" else b.add(index, step)
    return index


def _decompose_random_bits(b: Builder, node: Node) -> Node:
    (key,), word = node.inputs, node.integer("word")
    if word == IN_TURN:
        return _in_turn(b, node.type, lambda half: [_word_at(b, key, _places(b, half), each) for each in (0, 1)])
    return _word_at(b, key, _places(b, node.type), word)


def _places(b: Builder, type: TensorType) -> Node:
    return row_major_index(b, type, range(type.rank))


def bits_at(b: Builder, key: Node, place: Node, word: int) -> Node:
    """What `random_bits` gives at places in row-major order, i32."""
    if word != IN_TURN:
        return _word_at(b, key, place, word)
    counter, is_first = _turn_at(b, place)
    return b.select(is_first, _word_at(b, key, counter, 0), _word_at(b, key, counter, 1))


def _turn_at(b: Builder, place: Node) -> tuple[Node, Node]:
    """The counters from which `_in_turn` has what is at some places, and whether it is the first of their values."""
    block = b.elementwise("shift_right_logical", place, (2 * BLOCK).bit_length() - 1)
    counter = b.add(b.mul(block, BLOCK), b.elementwise("bitwise_and", place, BLOCK - 1))
    return counter, b.elementwise("eq", b.elementwise("bitwise_and", place, BLOCK), 0)


def _word_at(b: Builder, key: Node, place: Node, number: int) -> Node:
    """A word for each counter: Threefry-2x32 over i32 operators; see the record for the words of key and counter."""
    type = place.type
    scalar = TensorType(i32, (), type.device)

    def word(entry: int, high: bool) -> Node:
        value = b.slice(key, (entry,), (1,), (1,))
        if high:
            value = b.elementwise("shift_right_logical", value, 32)
        return b.reshape(b.cast(value, i32), ())

    k0, k1 = word(0, False), word(1, False)
    k2 = b.elementwise("bitwise_xor", b.elementwise("bitwise_xor", k0, k1), b.constant(_PARITY, scalar))
    keys = (k0, k1, k2)
    x0 = b.add(place, b.broadcast(k0, type.shape))
    second = b.add(word(0, True), b.mul(word(1, True), _SPREAD - (1 << 32)))
    x1 = b.broadcast(b.add(second, k1), type.shape)
    for group in range(5):
        for count in _ROTATIONS[group % 2]:
            x0 = b.add(x0, x1)
            left = b.elementwise("shift_left", x1, count)
            right = b.elementwise("shift_right_logical", x1, 32 - count)
            x1 = b.elementwise("bitwise_xor", b.elementwise("bitwise_or", left, right), x0)
        x0 = b.add(x0, b.broadcast(keys[(group + 1) % 3], type.shape))
        x1 = b.add(x1, b.broadcast(b.add(keys[(group + 2) % 3], group + 1), type.shape))
    return x1 if number else x0


def top(b: OpMethods, words: Node, count: int) -> Node:
    """The upper `count` bits of each word."""
    return b.elementwise("shift_right_logical", words, 32 - count)


def _normal_pair(b: OpMethods, words: Sequence[Node], dtype: DType) -> tuple[Node, Node]:
    """Two normal numbers from the two words of each counter."""
    first, second = (b.cast(top(b, word, 24), dtype) for word in words)
    u = b.add(b.mul(first, 2.0**-24), 2.0**-25)
    v = b.mul(second, 2.0**-24 * 2 * math.pi)
    radius = b.elementwise("sqrt", b.mul(b.log(u), -2.0))
    return b.mul(radius, b.elementwise("cos", v)), b.mul(radius, b.elementwise("sin", v))


def _normal(b: OpMethods, key: Node, type: TensorType) -> Node:
    def pair(half: TensorType) -> tuple[Node, Node]:
        counters = half.with_dtype(i32)
        return _normal_pair(b, [b.random_bits(key, counters, word) for word in (0, 1)], half.dtype)

    return _in_turn(b, type, pair)


def _evaluate_random_normal(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    b = Arrays()
    return b.arrays[_normal(b, b.given(arrays[0], TensorType(i64, (2,), type.device)), type)]


def _decompose_random_normal(b: Builder, node: Node) -> Node:
    return _normal(b, node.inputs[0], node.type)


def normal_at(b: Builder, key: Node, place: Node, dtype: DType) -> Node:
    """What `random_normal` gives at places in row-major order, i32."""
    counter, is_first = _turn_at(b, place)
    return b.select(is_first, *_normal_pair(b, [_word_at(b, key, counter, word) for word in (0, 1)], dtype))


INPUT = register(
    OpDef(
        name="input",
        kind="source",
        arity=0,
        doc="Argument number `index` of the graph, any type; `name` is a hint for printing.",
        infer=given("input"),
        evaluate=_evaluate_input,
        attrs=(Attr("index", "int"), Attr("name", "str")),
        why_no_vjp="zero: it has no operands",
    )
)
CONSTANT = register(
    OpDef(
        name="constant",
        kind="source",
        arity=0,
        doc="A tensor of any type with every element `value`.",
        infer=given("constant"),
        evaluate=_evaluate_constant,
        attrs=(Attr("value", "scalar"),),
        why_no_vjp="zero: it has no operands",
    )
)
IOTA = register(
    OpDef(
        name="iota",
        kind="source",
        arity=0,
        doc="The index along `axis` at each element; any float or integer dtype, any shape of rank 1 or more.",
        infer=given("iota"),
        evaluate=_evaluate_iota,
        attrs=(Attr("axis", "int"),),
        why_no_vjp="zero: it has no operands",
    )
)
RANDOM_BITS = register(
    OpDef(
        name="random_bits",
        kind="composite",
        arity=1,
        doc=(
            "i32 random bits of any shape from `key`, i64[2] = (seed, offset): word number `word` (0 or 1, or 2 for "
            "both in turn: the first ones of 16 counters, then their second ones) of "
            "Threefry-2x32 (20 rounds; Salmon et al., SC11). Key words: the low halves of seed and offset. Counter "
            "words: the row-major index (for both words, the number of the counter); the high half of the seed plus "
            "0x9E3779B9 times that of the offset; all modulo 2**32."
        ),
        infer=given("random_bits"),
        attrs=(Attr("word", "int"),),
        evaluate=_evaluate_random_bits,
        why_no_vjp="zero: it gives integers",
        decompose=_decompose_random_bits,
    )
)
RANDOM_NORMAL = register(
    OpDef(
        name="random_normal",
        kind="composite",
        arity=1,
        doc=(
            "f32 or f64 normal numbers of any shape, with mean 0 and variance 1, from a `key` as of `random_bits`: for "
            "each counter sqrt(-2 log u) times cos v and sin v (Box and Muller's transform), where the upper 24 bits "
            "of its first word give u, between 0 and 1, and those of its second word v, in [0, 2 pi). The cosines of "
            "16 counters, then their sines, and so on."
        ),
        infer=given("random_normal"),
        evaluate=_evaluate_random_normal,
        why_no_vjp="zero: it has no operands but the key",
        decompose=_decompose_random_normal,
    )
)
