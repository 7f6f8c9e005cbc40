"""Random numbers on CUDA devices. They come from the generator of the CPU, whose numbers are the same on every device:
seeding it for a device seeds it for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from graphc.cuda.devices import device_count, init, is_available, opened
from graphc.random import default_generator

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def manual_seed(seed: int) -> None:
    """Start again from `seed`; nothing to do where CUDA cannot be used."""
    if is_available():
        default_generator.manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    """`manual_seed`."""
    manual_seed(seed)


def seed() -> None:
    """Start from a seed that the system draws; nothing to do where CUDA cannot be used."""
    if is_available():
        default_generator.seed()


def seed_all() -> None:
    """`seed`."""
    seed()


def initial_seed() -> int:
    """The seed that the numbers started from."""
    init()
    return default_generator.initial_seed()


def get_rng_state(device: Any = "cuda") -> Tensor:
    """The state of the generator, to be set again: 16 bytes on the CPU."""
    opened(device)
    return default_generator.get_state()


def get_rng_state_all() -> list[Tensor]:
    """`get_rng_state` of every device; empty where CUDA cannot be used."""
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Go on from a state; nothing to do where CUDA cannot be used."""
    if is_available():
        opened(device)
        default_generator.set_state(new_state)


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """Go on from the states that `get_rng_state_all` gave, which are all one."""
    for index, state in enumerate(new_states):
        set_rng_state(state, index)
