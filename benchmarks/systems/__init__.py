"""The systems that are compared, each behind the same few methods."""

from __future__ import annotations

from benchmarks.systems.base import System
from benchmarks.systems.by_hand import ByHand
from benchmarks.systems.cuda_systems import Cupy, JaxCuda, TorchLikeCuda
from benchmarks.systems.jax_system import Jax
from benchmarks.systems.numpy_systems import Numexpr, NumPy
from benchmarks.systems.tinygrad_system import Tinygrad
from benchmarks.systems.torch_like import TorchLike


def system(name: str, device: str = "cpu") -> System:
    """The system with that name (see `benchmarks.workload.SYSTEMS`) on a device; nothing is imported yet."""
    if device == "cuda":
        return _on_cuda(name)
    if name in ("graphc", "graphc-compiled"):
        return TorchLike("graphc", compiled=name == "graphc-compiled")
    if name in ("torch", "torch-compile"):
        return TorchLike("torch", compiled=name == "torch-compile")
    return {"jax": Jax, "tinygrad": Tinygrad, "numpy": NumPy, "numexpr": Numexpr, "by-hand": ByHand}[name]()


def _on_cuda(name: str) -> System:
    if name in ("jax", "cupy"):
        return JaxCuda() if name == "jax" else Cupy()
    package = "graphc" if name.startswith("graphc") else "torch"
    return TorchLikeCuda(package, compiled=name in ("graphc-compiled", "torch-compile"), graphs=name == "torch-graphs")


__all__ = ["System", "system"]
