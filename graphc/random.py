"""Random tensors from a counter-based generator: each draw has a key (seed, offset), read at run time, and the offset
counts draws.

So the numbers depend on the seed and on the order of draws alone, not on when the work runs, and a drawing program is
compiled once.
"""

from __future__ import annotations

import math
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.errors import DTypeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, boolean, f32, f64, i32, i64
from graphc.recording import current
from graphc.source import user_location
from graphc.storage import Binding
from graphc.tensors.arguments import finished
from graphc.tensors.core import TensorBase, finish, from_array, read
from graphc.tensors.shaping import ints
from graphc.tensors.writing import write
from graphc_runtime.buffer import Buffer

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

KEY = TensorType(i64, (2,))


class Generator:
    """A source of random numbers: a seed and a count of draws."""

    def __init__(self, device: object = "cpu") -> None:
        self._lock = threading.Lock()
        self._seed = 67280421310721  # PyTorch's seed of a generator that was never seeded
        self._offset = 0

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed` (any integer of 64 bits, negative ones count from the top)."""
        if not -(2**63) <= seed < 2**64:
            raise RuntimeError(f"Overflow when unpacking long long: the seed {seed} does not fit 64 bits")
        _not_in_capture("a random generator was seeded")
        with self._lock:
            self._seed, self._offset = seed % 2**64, 0
        return self

    def initial_seed(self) -> int:
        """The seed that it started from."""
        return self._seed

    def seed(self) -> int:
        """Start again from a seed of the system's, which is returned."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
        return self._seed

    def draw(self) -> tuple[int, int]:
        """The key of the next draw."""
        with self._lock:
            offset = self._offset
            self._offset += 1
            return self._seed, offset

    def get_offset(self) -> int:
        """How many draws there were since the seed."""
        return self._offset

    def set_offset(self, offset: int) -> None:
        """Go on as after `offset` draws."""
        self._offset = offset

    def skip(self) -> None:
        """Count one draw without using it."""
        with self._lock:
            self._offset += 1

    def get_state(self) -> Tensor:
        """Seed and offset, for `set_state`."""
        return from_array(np.array([self._seed, self._offset], np.uint64).view(np.int64), i64)

    def set_state(self, new_state: Tensor) -> Generator:
        """Go on from a state that `get_state` gave."""
        _not_in_capture("the state of a random generator was set")
        seed, offset = new_state._array().view(np.uint64).tolist()
        with self._lock:
            self._seed, self._offset = seed, offset
        return self


def _not_in_capture(what: str) -> None:
    recorder = current()
    if recorder.capture is not None:
        recorder.capture.give_up(what, user_location())


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Let the default generator start again from `seed`."""
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Let the default generator start again from a seed of the system's."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """State of the default generator."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Let the default generator go on from a state."""
    default_generator.set_state(new_state)


def key_buffer(generator: Generator) -> Buffer:
    """The key of the next draw of `generator` as i64[2]."""
    seed, offset = generator.draw()
    return Buffer.from_array(np.array([seed, offset], np.uint64).view(np.int64))


def draw_key(generator: Generator | None) -> Binding:
    """A leaf with the key of the next draw; `graphc.compile` draws again at each call."""
    source = generator or default_generator
    recorder = current()
    key = recorder.bind(key_buffer(source), KEY, source)
    if recorder.capture is not None:
        recorder.capture.draws.append((source, key))
    return key


# nodes


def uniform_node(b: Builder, key: Node, type: TensorType) -> Node:
    """Uniform numbers in [0, 1): 24 random bits for f32, 53 for f64, as many as the significand holds for others."""
    if type.dtype is f64:
        high = _bits(b, key, type, 0, 26)
        low = _bits(b, key, type, 1, 27)
        return b.mul(b.add(b.mul(b.cast(high, f64), float(2**27)), b.cast(low, f64)), 2.0**-53)
    bits = 24 if type.dtype is f32 else 11 if type.dtype.name == "f16" else 8
    return b.cast(b.mul(b.cast(_bits(b, key, type, 0, bits), f32), 2.0**-bits), type.dtype)


def _bits(b: Builder, key: Node, type: TensorType, stream: int, count: int) -> Node:
    """`count` random bits per element as i32; streams of one key are independent."""
    shape = (*type.shape, 2)
    both = b.random_bits(key, TensorType(i32, shape))
    part = b.slice(both, (*(0,) * type.rank, stream), (*type.shape, 1), (1,) * (type.rank + 1))
    words = b.reshape(part, type.shape)
    return b.apply("shift_right_logical", (words, b.constant(32 - count, words.type)))


def normal_node(b: Builder, key: Node, type: TensorType) -> Node:
    """Normal numbers by Box and Muller's transform of two uniform ones."""
    work = type.with_dtype(f64 if type.dtype is f64 else f32)
    u = b.add(b.mul(b.cast(_bits(b, key, type, 0, 24), work.dtype), 2.0**-24), 2.0**-25)
    v = b.mul(b.cast(_bits(b, key, type, 1, 24), work.dtype), 2.0**-24 * 2 * math.pi)
    radius = b.apply("sqrt", (b.mul(b.log(u), -2.0),))
    return b.cast(b.mul(radius, b.apply("cos", (v,))), type.dtype)


def randint_node(b: Builder, key: Node, type: TensorType, low: int, high: int) -> Node:
    """Whole numbers in [low, high): the high bits of 48 random bits times the range, so the bias is below 2**-16 of a
    step.
    """
    span = high - low
    wide = type.with_dtype(i64)
    top = b.cast(_bits(b, key, type, 0, 24), i64)
    bottom = b.cast(_bits(b, key, type, 1, 24), i64)
    if span < 2**15:
        whole = b.add(b.mul(top, 2**24), bottom)
        picked = b.apply("shift_right_logical", (b.mul(whole, span), b.constant(48, wide)))
    else:
        whole = b.add(b.mul(top, 2**24), bottom)
        picked = b.apply("remainder", (whole, b.constant(span, wide)))
    return b.cast(b.add(picked, low), type.dtype)


# functions


def _draw(type: TensorType, generator: Generator | None, emit: Any) -> Tensor:
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        key = draw_key(generator)
        return finish(recorder, emit(b, key.node, type), (key,), "", False)


def _shape(size: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    return ints((kwargs["size"],) if "size" in kwargs else size)


def _float_type(dtype: Any) -> DType:
    found = dtypes.default_ir() if dtype is None else dtypes.to_ir(dtype)
    if not found.is_float:
        raise DTypeError(f"random floats are not implemented for {dtypes.public(found)}")
    return found


def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    type = TensorType(_float_type(dtype), _shape(size, kwargs))
    return finished(_draw(type, generator, uniform_node), requires_grad, device)


def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Normal numbers with mean 0 and variance 1."""
    type = TensorType(_float_type(dtype), _shape(size, kwargs))
    return finished(_draw(type, generator, normal_node), requires_grad, device)


def rand_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform numbers in [0, 1) in the shape of `input`."""
    return rand(input._type.shape, dtype=input.dtype if dtype is None else dtype, requires_grad=requires_grad)


def randn_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Normal numbers in the shape of `input`."""
    return randn(input._type.shape, dtype=input.dtype if dtype is None else dtype, requires_grad=requires_grad)


def randint(
    *args: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Whole numbers: `randint(high, size)` in [0, high), `randint(low, high, size)` in [low, high)."""
    if len(args) == 2:
        low, high, size = 0, args[0], args[1]
    else:
        low, high, size = args
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    type = TensorType(i64 if dtype is None else dtypes.to_ir(dtype), ints((size,)))
    return finished(
        _draw(type, generator, lambda b, k, t: randint_node(b, k, t, int(low), int(high))), requires_grad, device
    )


def host_generator(generator: Generator | None = None) -> np.random.Generator:
    """NumPy's generator keyed by the next draw: for what is drawn on the host (permutations)."""
    _not_in_capture("random numbers were drawn on the host")
    seed, offset = (generator or default_generator).draw()
    return np.random.Generator(np.random.Philox(key=np.array([seed, offset], np.uint64)))


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """The numbers 0 to n - 1 in random order; drawn on the host."""
    return from_array(host_generator(generator).permutation(n), i64 if dtype is None else dtypes.to_ir(dtype))


def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that each element says, else 0."""
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        p, keep = read(recorder, input, False)
        key = draw_key(generator)
        drawn = b.cast(b.apply("lt", (uniform_node(b, key.node, p.type), p)), p.dtype)
        return finish(recorder, drawn, (keep, key), "BernoulliBackward0", False)


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None) -> Tensor:
    """Normal numbers with mean and standard deviation given as numbers (then `size` too) or tensors."""
    if size is None:
        like = mean if isinstance(mean, TensorBase) else std
        size = like._type.shape
    return randn(size, generator=generator) * std + mean


# in place


def _fill(input: Tensor, generator: Generator | None, emit: Any) -> Tensor:
    write(input, _draw(TensorType(input._type.dtype, input._type.shape), generator, emit))
    return input


def uniform_(input: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with uniform numbers in [a, b)."""
    low, high = float(a), float(b)
    if low > high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low} > to={high}")
    return _fill(
        input, generator, lambda builder, k, t: builder.add(builder.mul(uniform_node(builder, k, t), high - low), low)
    )


def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with normal numbers."""
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    return _fill(input, generator, lambda b, k, t: b.add(b.mul(normal_node(b, k, t), float(std)), float(mean)))


def bernoulli_(input: Tensor, p: float = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 1 with probability p, else 0."""

    def emit(b: Builder, key: Node, type: TensorType) -> Node:
        drawn = uniform_node(b, key, type.with_dtype(f32))
        return b.cast(b.apply("lt", (drawn, b.constant(float(p), drawn.type))), type.dtype)

    return _fill(input, generator, emit)


def random_(input: Tensor, low: int = 0, high: int | None = None, *, generator: Generator | None = None) -> Tensor:
    """Fill with whole numbers in [low, high)."""
    dtype = input._type.dtype
    widest = 2 if dtype is boolean else 2 ** (24 if dtype.is_float else min(dtype.bits - 1, 40))
    limit = widest if high is None else high
    return _fill(input, generator, lambda b, k, t: randint_node(b, k, t, low, limit))
