"""What a CUDA device can do: long copies and large products, by PyTorch or, without it, by CuPy."""

from __future__ import annotations

import importlib
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

COPIED, TINY_COPIED = 1 << 30, 1 << 20
SIDE, TINY_SIDE = 8192, 64
REPEATS = 5


class Card:
    """The device as copies and products see it."""

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny
        self.speed: Any = None
        try:
            self.library: Any = importlib.import_module("torch")
            self.is_torch = True
        except ModuleNotFoundError:
            self.library = importlib.import_module("cupy")
            self.is_torch = False

    def _wait(self) -> None:
        if self.is_torch:
            self.library.cuda.synchronize()
        else:
            self.library.cuda.Device().synchronize()

    def _seconds(self, work: Callable[[], Any]) -> float:
        """Of the fastest of a few batches of calls, one call."""
        work()
        best = float("inf")
        for _ in range(REPEATS):
            self._wait()
            begin = time.perf_counter()
            for _ in range(REPEATS):
                work()
            self._wait()
            best = min(best, (time.perf_counter() - begin) / REPEATS)
        return best

    def copy_speed(self) -> float:
        """Bytes read and written a second by a copy of a gigabyte."""
        if self.speed is None:
            count = (TINY_COPIED if self.tiny else COPIED) // 4
            if self.is_torch:
                source = self.library.ones(count, device="cuda")
                target = self.library.zeros(count, device="cuda")
                seconds = self._seconds(lambda: target.copy_(source))
            else:
                source, target = self.library.ones(count, "float32"), self.library.zeros(count, "float32")
                seconds = self._seconds(lambda: self.library.copyto(target, source))
            self.speed = 8 * count / seconds
        return self.speed

    def flops(self, dtype: str) -> float:
        """Operations a second of a large product in "f32", "tf32", "f16" or "bf16"; 0 where that is not there."""
        n = TINY_SIDE if self.tiny else SIDE
        name = {"f16": "float16", "bf16": "bfloat16"}.get(dtype, "float32")
        if self.is_torch:
            torch = self.library
            torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
            a, b = (torch.randn(n, n, device="cuda", dtype=getattr(torch, name)) for _ in range(2))
        elif dtype in ("f32", "f16"):
            a, b = (self.library.random.standard_normal((n, n), dtype="float32").astype(name) for _ in range(2))
        else:
            return 0.0
        return 2.0 * n**3 / self._seconds(lambda: a @ b)


def facts() -> dict[str, str]:
    """The card and its driver, as `nvidia-smi` tells them."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
    with suppress(OSError, subprocess.CalledProcessError):
        told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
        name, driver, memory, clock = (part.strip() for part in told[0].split(","))
        return {"card": name, "driver": driver, "memory": memory, "clock": clock}
    return {"card": "a card that nvidia-smi does not tell", "driver": "unknown", "memory": "", "clock": ""}
