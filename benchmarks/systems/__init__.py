"""The systems that are compared, each behind the same few methods."""

from __future__ import annotations

from benchmarks.systems.base import System
from benchmarks.systems.by_hand import ByHand
from benchmarks.systems.jax_system import Jax
from benchmarks.systems.numpy_systems import Numexpr, NumPy
from benchmarks.systems.tinygrad_system import Tinygrad
from benchmarks.systems.torch_like import TorchLike


def system(name: str) -> System:
    """The system with that name (see `benchmarks.workload.SYSTEMS`); nothing is imported yet."""
    if name in ("graphc", "graphc-compiled"):
        return TorchLike("graphc", compiled=name == "graphc-compiled")
    if name in ("torch", "torch-compile"):
        return TorchLike("torch", compiled=name == "torch-compile")
    return {"jax": Jax, "tinygrad": Tinygrad, "numpy": NumPy, "numexpr": Numexpr, "by-hand": ByHand}[name]()


__all__ = ["System", "system"]
