"""PyTorch, and graphc by the same code; both plain and compiled.

Settings of PyTorch: its threads, inference mode, fused optimizers, channels_last where a trial finds it faster (images
only); torch.compile with max-autotune, and frozen weights for inference, else its default mode.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from benchmarks.systems.base import Prepared, System, several
from benchmarks.workload import HALVES, Arrays, Workload

LONGEST_TRIAL = 1.0
AUTOTUNED, CHANNELS_LAST, FREEZING = "max-autotune-no-cudagraphs", "channels_last", "freezing"


class Lib:
    """The modules that workloads are written in."""

    def __init__(self, package: str) -> None:
        self.torch: Any = importlib.import_module(package)
        self.nn: Any = importlib.import_module(f"{package}.nn")
        self.F: Any = importlib.import_module(f"{package}.nn.functional")
        self.optim: Any = importlib.import_module(f"{package}.optim")


def array_of(tensor: Any) -> np.ndarray:
    """The elements of a tensor; those of 16 bits in f32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.element_size() == 2 else tensor).numpy()


class TorchLike(System):
    """`package` is "torch" or "graphc"."""

    device = "cpu"

    def __init__(self, package: str, compiled: bool) -> None:
        self.package = package
        self.compiled = compiled
        self.half = ""  # what the operands of a product are converted to

    def start(self, threads: int) -> str:
        self.lib = Lib(self.package)
        self.lib.torch.set_num_threads(threads)
        return self.lib.torch.__version__

    def settings(self, workload: Workload) -> list[str]:
        if self.package == "graphc":
            return [""]
        layout = [CHANNELS_LAST] if workload.images and self._channels_last_is_faster(workload) else []
        modes: list[list[str]] = [[]]
        if self.compiled:
            modes = [[AUTOTUNED], []]
            if workload.network is not None and not workload.training:
                modes.insert(0, [AUTOTUNED, FREEZING])
        return [" ".join(layout + mode) for mode in modes]

    def _channels_last_is_faster(self, workload: Workload) -> bool:
        """Whether PyTorch without compiling is faster in that layout, after one call to warm up."""
        best: dict[str, float] = {}
        for layout in ("", CHANNELS_LAST):
            prepared = TorchLike.prepare(self, workload, workload.form("torch"), layout, compiled=False)
            with prepared.context():
                prepared.wait(prepared.call())
                times: list[float] = []
                while len(times) < 5 and sum(times) < LONGEST_TRIAL:
                    begin = time.perf_counter()
                    prepared.wait(prepared.call())
                    times.append(time.perf_counter() - begin)
            best[layout] = min(times)
        return best[CHANNELS_LAST] < best[""]

    def prepare(self, workload: Workload, form: Any, setting: str, compiled: bool | None = None) -> Prepared:
        words = setting.split()
        self.half = HALVES.get(workload.dtype, "") if workload.network is None else ""
        arrays, cotangent = workload.operands()
        tensors = {name: self._tensor(array, words) for name, array in arrays.items()}
        compile_ = self._compiler(words) if (self.compiled if compiled is None else compiled) else None
        if workload.network is not None:
            return self._network(workload, form, tensors, words, compile_)
        if cotangent is not None:
            return self._gradients(workload, form, tensors, self._tensor(cotangent, words), compile_)
        lib, operands = self.lib, tuple(tensors.values())

        def compute(*operands: Any) -> Any:
            return form(lib, *operands)

        call = partial(form, lib, *operands) if compile_ is None else partial(compile_(compute), *operands)
        return self._prepared(call, lib.torch.inference_mode, observe=workload.observe)

    def _tensor(self, array: np.ndarray, words: list[str]) -> Any:
        tensor = self.lib.torch.tensor(array)
        if self.half and array.dtype == np.float32:
            tensor = tensor.to(getattr(self.lib.torch, self.half))
            tensor.data_ptr()  # a program of its own
        if CHANNELS_LAST in words and array.ndim == 4:
            return tensor.to(memory_format=self.lib.torch.channels_last)
        return tensor

    def _placed(self, net: Any) -> Any:
        """The module where it runs."""
        return net

    def _rule_options(self, network: Any) -> dict[str, Any]:
        """What an optimizer is told besides its rate."""
        return {"fused": True} if self.package == "torch" else {}

    def _compiler(self, words: list[str]) -> Callable[[Any], Any]:
        torch = self.lib.torch
        if self.package == "graphc":
            return torch.compile
        inductor: Any = importlib.import_module("torch._inductor.config")
        inductor.freezing = FREEZING in words
        return lambda function: torch.compile(function, mode=AUTOTUNED if AUTOTUNED in words else None)

    def _prepared(
        self,
        call: Callable[[], Any],
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        weights: Callable[[], Arrays] | None = None,
        observe: bool = True,
    ) -> Prepared:
        def look(results: Any) -> None:
            if isinstance(results, tuple):
                for tensor in results:
                    tensor.data_ptr()
            else:
                results.data_ptr()

        # graphc computes what is looked at; an address is asked for, so that nothing is copied. PyTorch has computed
        # when a call returns.
        wait = look if observe and self.package == "graphc" else lambda results: None
        return Prepared(call, wait, lambda results: [array_of(t) for t in several(results)], weights, context)

    def _gradients(
        self, workload: Workload, form: Any, tensors: dict[str, Any], cotangent: Any, compile_: Any
    ) -> Prepared:
        lib, torch = self.lib, self.lib.torch
        for name in workload.gradients:
            tensors[name].requires_grad_()
        operands = tuple(tensors.values())
        places = [list(tensors).index(name) for name in workload.gradients]

        def forward(*operands: Any) -> Any:
            return form(lib, *operands)

        # PyTorch compiles the backward pass of what it compiles; graphc takes both as one program.
        if compile_ is not None and self.package == "torch":
            forward = compile_(forward)

        def both(*operands: Any) -> Any:
            result = forward(*operands)
            found = torch.autograd.grad(result, [operands[i] for i in places], cotangent)
            return (result.detach(), *found)

        if compile_ is not None and self.package == "graphc":
            both = compile_(both)
        return self._prepared(partial(both, *operands))

    def _network(
        self, workload: Workload, form: Any, tensors: dict[str, Any], words: list[str], compile_: Any
    ) -> Prepared:
        network, lib = workload.network, self.lib
        assert network is not None
        net = form(lib)
        drawn = {name: lib.torch.tensor(array) for name, array in network.weights().items()}
        missing = net.load_state_dict(drawn, strict=False).missing_keys
        assert not set(missing) & set(network.parameters), f"no weights for {missing}"
        net = self._placed(net)
        if CHANNELS_LAST in words:
            net = net.to(memory_format=lib.torch.channels_last)
        x, y = tensors["x"], tensors["y"]
        if not workload.training:
            net.eval()
            function = net if compile_ is None else compile_(net)
            return self._prepared(partial(function, x), lib.torch.inference_mode)
        rule = {"sgd": lib.optim.SGD, "adamw": lib.optim.AdamW}[network.optimizer]
        optimizer = rule(net.parameters(), lr=network.rate, **self._rule_options(network))
        self.net, self.optimizer = net, optimizer

        half, device = HALVES.get(workload.dtype), self.device

        def loss_of(x: Any, y: Any) -> Any:
            dtype = getattr(lib.torch, half) if half else None
            with lib.torch.autocast(device, dtype=dtype, enabled=dtype is not None):
                logits = net(x)
                return lib.F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))

        if compile_ is not None and self.package == "torch":
            loss_of = compile_(loss_of)

        def train(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(x, y)
            loss.backward()
            optimizer.step()
            return loss

        if compile_ is not None and self.package == "graphc":
            train = compile_(train)

        def weights() -> Arrays:
            return {name: p.detach().cpu().numpy().copy() for name, p in net.named_parameters()}

        return self._prepared(partial(train, x, y), weights=weights)
