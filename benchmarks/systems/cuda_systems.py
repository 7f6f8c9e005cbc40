"""The systems on a CUDA device: PyTorch and graphc by the same code, JAX, CuPy.

Float32 is exact in all of them but in workloads of dtype "tf32": convolutions too, which PyTorch would run in TF32.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import numpy as np

from benchmarks.systems.base import Prepared, System, several
from benchmarks.systems.jax_system import Jax
from benchmarks.systems.jax_system import Lib as JaxLib
from benchmarks.systems.torch_like import CHANNELS_LAST, TorchLike, array_of
from benchmarks.workload import HALVES, Arrays, Workload

REDUCED = "reduce-overhead"
WARM_UP = 3


class TorchLikeCuda(TorchLike):
    """`package` is "torch" or "graphc"; with `graphs`, calls are captured as one CUDA graph and replayed."""

    device = "cuda"

    def __init__(self, package: str, compiled: bool, graphs: bool) -> None:
        super().__init__(package, compiled)
        self.graphs = graphs
        self.net: Any = None
        self.optimizer: Any = None

    def start(self, threads: int) -> str:
        version = super().start(threads)
        if not self.lib.torch.cuda.is_available():
            raise ModuleNotFoundError(f"{self.package} finds no CUDA device")
        return version

    def peak_bytes(self) -> int | None:
        return self.lib.torch.cuda.max_memory_allocated()

    def settings(self, workload: Workload) -> list[str]:
        self._precision(workload)
        if self.package == "graphc":
            wgmma = importlib.import_module("graphc.options").WGMMA
            return [f"wgmma {wgmma.get()}" if workload.dtype in HALVES else ""]
        layout = [CHANNELS_LAST] if workload.images and self._channels_last_is_faster(workload) else []
        return [" ".join([*layout, *mode]) for mode in ([[REDUCED], []] if self.compiled else [[]])]

    def _precision(self, workload: Workload) -> None:
        torch, loose = self.lib.torch, workload.dtype == "tf32"
        torch.set_float32_matmul_precision("high" if loose else "highest")
        torch.backends.cudnn.allow_tf32 = loose

    def prepare(self, workload: Workload, form: Any, setting: str, compiled: bool | None = None) -> Prepared:
        prepared = super().prepare(workload, form, setting, compiled)
        return self._captured(prepared) if self.graphs else prepared

    def _tensor(self, array: np.ndarray, words: list[str]) -> Any:
        return super()._tensor(array, words).to("cuda")

    def _placed(self, net: Any) -> Any:
        return net.to("cuda")

    def _rule_options(self, network: Any) -> dict[str, Any]:
        if self.package == "graphc":
            return {}
        return {"fused": True, "capturable": True} if self.graphs and network.optimizer == "adamw" else {"fused": True}

    def _compiler(self, words: list[str]) -> Callable[[Any], Any]:
        torch = self.lib.torch
        if self.package == "graphc":
            return torch.compile
        return lambda function: torch.compile(function, mode=REDUCED if REDUCED in words else None)

    def _prepared(
        self,
        call: Callable[[], Any],
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        weights: Callable[[], Arrays] | None = None,
        observe: bool = True,
    ) -> Prepared:
        synchronize = self.lib.torch.cuda.synchronize

        def touch(results: Any) -> None:
            # graphc starts what is asked for; nobody waits for it.
            if observe and self.package == "graphc":
                for tensor in several(results):
                    tensor.data_ptr()

        def wait(results: Any) -> None:
            touch(results)
            synchronize()

        return Prepared(call, wait, lambda results: [array_of(t) for t in several(results)], weights, context, touch)

    def _captured(self, prepared: Prepared) -> Prepared:
        """The call as one CUDA graph, with the weights and the optimizer as they were before it was captured."""
        torch, held = self.lib.torch, []
        if self.net is not None:
            held = [(tensor, tensor.detach().clone()) for tensor in self.net.state_dict().values()]

        def restore() -> None:
            with torch.no_grad():
                for tensor, before in held:
                    tensor.copy_(before)
                for state in self.optimizer.state.values() if self.optimizer is not None else ():
                    for value in state.values():
                        if isinstance(value, torch.Tensor):
                            value.zero_()

        with prepared.context():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    prepared.call()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                results = prepared.call()
        restore()

        def replay() -> Any:
            graph.replay()
            return results

        return Prepared(replay, prepared.wait, prepared.arrays, prepared.weights, prepared.context, prepared.touch)


class JaxCuda(Jax):
    """JAX on its GPU back end."""

    def start(self, threads: int) -> str:
        os.environ["JAX_PLATFORMS"] = "cuda"
        self.lib = JaxLib()
        try:
            self.device = self.lib.jax.devices()[0]
        except RuntimeError as error:
            raise ModuleNotFoundError(f"jax finds no CUDA device: {error}") from error
        return self.lib.jax.__version__

    def peak_bytes(self) -> int | None:
        return (self.device.memory_stats() or {}).get("peak_bytes_in_use")

    def prepare(self, workload: Workload, form: Any, setting: str) -> Prepared:
        loose = workload.dtype == "tf32"
        self.lib.jax.config.update("jax_default_matmul_precision", "tensorfloat32" if loose else "highest")
        return super().prepare(workload, form, setting)

    def _prepared(self, call: Any, weights: Any = None) -> Prepared:
        made = super()._prepared(call, weights)
        # What was started runs without being asked for.
        return Prepared(made.call, made.wait, made.arrays, made.weights, made.context, lambda results: None)


class Cupy(System):
    """CuPy, function by function."""

    def start(self, threads: int) -> str:
        self.cupy: Any = importlib.import_module("cupy")
        try:
            self.cupy.cuda.Device().use()
        except self.cupy.cuda.runtime.CUDARuntimeError as error:
            raise ModuleNotFoundError(f"cupy finds no CUDA device: {error}") from error
        return self.cupy.__version__

    def peak_bytes(self) -> int | None:
        return self.cupy.get_default_memory_pool().total_bytes()

    def prepare(self, workload: Workload, form: Any, setting: str) -> Prepared:
        cupy = self.cupy
        with suppress(AttributeError):
            linalg = cupy._core._routines_linalg
            kind = "COMPUTE_TYPE_TF32" if workload.dtype == "tf32" else "COMPUTE_TYPE_DEFAULT"
            linalg.set_compute_type(np.dtype(np.float32), getattr(linalg, kind))
        given = workload.operands()[0].values()
        half = np.float16 if workload.dtype == "f16" else None
        operands = [cupy.asarray(a.astype(half) if half and a.dtype == np.float32 else a) for a in given]

        def wait(results: Any) -> None:
            cupy.cuda.Device().synchronize()

        def arrays(results: Any) -> list[np.ndarray]:
            found = [cupy.asnumpy(r) for r in several(results)]
            return [a.astype(np.float32) if a.dtype.itemsize == 2 else a for a in found]

        return Prepared(lambda: form(cupy, *operands), wait, arrays, touch=lambda results: None)
