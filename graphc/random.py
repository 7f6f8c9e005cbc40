"""Random tensors from a counter-based generator: each draw has a key (seed, offset), read at run time, and the offset
counts draws.

So the numbers depend on the seed and on the order of draws alone, not on when the work runs, and a drawing program is
compiled once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.devices import Device, device_object, use_device
from graphc.errors import InputError, KindError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.ops.source import IN_TURN, top
from graphc.ir.types import TensorType, f32, f64, i32, i64, u8
from graphc.recording import current
from graphc.source import user_location
from graphc.storage import Binding
from graphc.tensors.core import TensorBase, from_array
from graphc_runtime.buffer import Buffer

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

KEY = TensorType(i64, (2,))


class Generator:
    """A source of random numbers: a seed and a count of draws. They are the same on every device."""

    # Slots, as native code reads them; it draws between `enter` and `leave`.
    __slots__ = ("_device", "_lock", "_offset", "_seed", "enter", "leave")

    def __init__(self, device: Any = "cpu") -> None:
        self._device = use_device(device)
        self._lock = threading.Lock()
        self.enter, self.leave = self._lock.acquire, self._lock.release
        self._seed = 67280421310721  # PyTorch's seed of a generator that was never seeded
        self._offset = 0

    @property
    def device(self) -> Device:
        """The device that it was made for."""
        return device_object(self._device)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed` (any integer of 64 bits, negative ones count from the top)."""
        if isinstance(seed, float) or not hasattr(seed, "__index__"):
            raise UsageError(f"manual_seed expected a long, but got {type(seed).__name__}")
        seed = seed.__index__()
        if not -(2**63) <= seed < 2**64:
            raise SeedError(f"Overflow when unpacking long long: the seed {seed} does not fit 64 bits")
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
        """Seed and offset as 16 bytes (uint8), for `set_state`."""
        return from_array(np.array([self._seed, self._offset], np.uint64).view(np.uint8), u8)

    def set_state(self, new_state: Tensor) -> Generator:
        """Go on from a state that `get_state` gave. TypeError or RuntimeError for what is no state."""
        if not isinstance(new_state, TensorBase) or new_state._type.dtype is not u8:
            raise KindError("RNG state must be a torch.ByteTensor")
        if new_state._type.shape != (16,):
            raise UsageError(f"RNG state is wrong size: a state has 16 bytes, not {list(new_state._type.shape)}")
        _not_in_capture("the state of a random generator was set")
        seed, offset = np.ascontiguousarray(new_state._array()).view(np.uint64).tolist()
        with self._lock:
            self._seed, self._offset = seed, offset
        return self

    def clone_state(self) -> Generator:
        """Another generator in the same state."""
        made = Generator(self._device)
        made._seed, made._offset = self._seed, self._offset
        return made


class SeedError(InputError, UsageError):
    """A seed that does not fit 64 bits."""


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


@contextmanager
def fork_rng(devices: object = None, enabled: bool = True, **ignored: object) -> Iterator[None]:
    """Give the default generator its state back at the end of the `with` block. There are no other devices."""
    if not enabled:
        yield
        return
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def key_buffer(generator: Generator) -> Buffer:
    """The key of the next draw of `generator` as i64[2]."""
    seed, offset = generator.draw()
    return Buffer.from_array(np.array([seed, offset], np.uint64).view(np.int64))


def draw_key(generator: Generator | None) -> Binding:
    """A leaf with the key of the next draw; `graphc.compile` draws again at each call."""
    if generator is not None and not isinstance(generator, Generator):
        raise KindError(f"argument 'generator' must be torch.Generator, not {type(generator).__name__}")
    source = generator or default_generator
    recorder = current()
    if recorder.randomness == "error":
        raise UsageError(
            "vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' "
            "randomness flags on vmap or perform the randomness operation out of vmap"
        )
    if recorder.repeated:
        return recorder.repeated.pop(0)
    key = recorder.bind(key_buffer(source), KEY, source)
    if recorder.draws is not None:
        recorder.draws.append(key)
    if recorder.own is not None:
        recorder.own.append((source, key))
    if recorder.capture is not None:
        recorder.capture.draws.append((source, key))
    return key


class Draws:
    """What a call drew: the keys, and where the default generator stood before."""

    def __init__(self) -> None:
        self.keys: list[Binding] = []
        self.offset = default_generator.get_offset()


@contextmanager
def noting_draws() -> Iterator[Draws]:
    """Notes the random draws inside, for `repeating_draws`."""
    recorder = current()
    outer, made = recorder.draws, Draws()
    recorder.draws = made.keys
    try:
        yield made
    finally:
        recorder.draws = outer
        if outer is not None:
            outer.extend(made.keys)


@contextmanager
def repeating_draws(draws: Draws | None) -> Iterator[None]:
    """Inside, random draws give the same numbers as those noted; the generator does not move."""
    if draws is None:
        yield
        return
    recorder = current()
    saved, recorder.repeated = recorder.repeated, list(draws.keys)
    offset = default_generator.get_offset()
    default_generator.set_offset(draws.offset)
    try:
        yield
    finally:
        recorder.repeated = saved
        default_generator.set_offset(offset)


# nodes


def uniform_node(b: Builder, key: Node, type: TensorType) -> Node:
    """Uniform numbers in [0, 1): 24 random bits for f32, 53 for f64, as many as the significand holds for others."""
    if type.dtype is f64:
        high = _bits(b, key, type, 0, 26)
        low = _bits(b, key, type, 1, 27)
        return b.mul(b.add(b.mul(b.cast(high, f64), float(2**27)), b.cast(low, f64)), 2.0**-53)
    bits = 24 if type.dtype is f32 else 11 if type.dtype.name == "f16" else 8
    return b.cast(b.mul(b.cast(top(b, _words(b, key, type), bits), f32), 2.0**-bits), type.dtype)


def _bits(b: Builder, key: Node, type: TensorType, word: int, count: int) -> Node:
    """`count` random bits per element as i32, from word 0 or 1 of the counter that each element has to itself."""
    return top(b, b.random_bits(key, type.with_dtype(i32), word), count)


def _words(b: Builder, key: Node, type: TensorType) -> Node:
    """One word per element as i32; a counter has two, and serves two elements."""
    return b.random_bits(key, type.with_dtype(i32), IN_TURN)


def normal_node(b: Builder, key: Node, type: TensorType) -> Node:
    """Normal numbers with mean 0 and variance 1."""
    work = type.with_dtype(f64 if type.dtype is f64 else f32)
    return b.cast(b.random_normal(key, work), type.dtype)


def open_uniform_node(b: Builder, key: Node, type: TensorType) -> Node:
    """Uniform numbers between 0 and 1, both excluded, in f32 or f64."""
    # Half a step behind the largest of [0, 1) lies between two numbers, and is rounded to 1.
    step = 2.0**-54 if type.dtype is f64 else 2.0**-25
    return b.elementwise("minimum", b.add(uniform_node(b, key, type), step), 1 - 2 * step)


def wide_bits(b: Builder, key: Node, type: TensorType) -> Node:
    """63 random bits an element as i64."""
    high = b.cast(_bits(b, key, type, 0, 31), i64)
    low = b.apply("bitwise_and", (b.cast(_bits(b, key, type, 1, 32), i64), b.constant(2**32 - 1, type)))
    return b.add(b.mul(high, 2**32), low)


def randint_node(b: Builder, key: Node, type: TensorType, low: int, high: int) -> Node:
    """Whole numbers in [low, high): for small ranges the high bits of 48 random bits times the range, so the bias is
    below 2**-16 of a step; for others the rest of 63 random bits.
    """
    span = high - low
    wide = type.with_dtype(i64)
    if span < 2**15:
        top = b.cast(_bits(b, key, type, 0, 24), i64)
        bottom = b.cast(_bits(b, key, type, 1, 24), i64)
        whole = b.add(b.mul(top, 2**24), bottom)
        picked = b.apply("shift_right_logical", (b.mul(whole, span), b.constant(48, wide)))
    elif span < 2**63:
        picked = b.apply("remainder", (wide_bits(b, key, wide), b.constant(span, wide)))
    else:
        picked = wide_bits(b, key, wide)
    return b.cast(b.add(picked, low), type.dtype)
