"""Kernels of the recording driver, and programs of them over vectors of four floats."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np

from graphc_runtime import Artifact, Buffer, DeviceBuffer, DeviceStep, Launch, TensorSpec
from graphc_runtime.devices.cuda import CudaDevice
from graphc_runtime.devices.cuda_driver import DriverError
from tests.runtime.recording_driver import ILLEGAL, Kernel

VECTOR = TensorSpec("f32", (4,))
NBYTES = VECTOR.nbytes
Place = tuple[int, int]


def at(address: int) -> np.ndarray:
    """The vector at an address of the host, which is one of the device too."""
    return np.ctypeslib.as_array((ctypes.c_float * 4).from_address(address))


def _add(x: int, y: int, out: int, **shape: int) -> None:
    at(out)[:] = at(x) + at(y)


def _double(x: int, out: int, **shape: int) -> None:
    at(out)[:] = 2 * at(x)


def _increment(x: int, **shape: int) -> None:
    at(x)[:] += 1


def _illegal(x: int, **shape: int) -> None:
    raise DriverError(f"cuStreamSynchronize failed: {ILLEGAL}", sticky=True)


KERNELS: dict[str, Kernel] = {"add": _add, "double": _double, "increment": _increment, "illegal": _illegal}


def kernel(name: str, *places: Place, launch: int = -1, **facts: Any) -> DeviceStep:
    return DeviceStep(name, places, **{"blocks": 1, "threads": 32, **facts}, launch=launch)


def program(
    *steps: DeviceStep,
    inputs: int = 2,
    outputs: int = 1,
    aliases: tuple[int, ...] = (),
    arena: int = 0,
    lines: tuple[str, ...] = (),
    **facts: Any,
) -> Artifact:
    """A program of these steps; the launch of each kernel is its step, from line `lines[i]`."""
    launches = tuple(Launch(s.kernel, lines=lines[i : i + 1]) for i, s in enumerate(steps))
    numbered = tuple(s if s.kernel in ("fill", "copy") else replace(s, launch=i) for i, s in enumerate(steps))
    return Artifact(
        facts.get("name", "program"),
        (VECTOR,) * inputs,
        (VECTOR,) * outputs,
        aliases or (-1,) * outputs,
        arena,
        facts.get("objects", (b"cubin",)),
        "",
        launches,
        {},
        numbered,
    )


def adder(**facts: Any) -> Artifact:
    """out = 2 * (x + y), by way of the arena: inputs 0 and 1, output 2, arena 3."""
    return program(
        DeviceStep("fill", ((3, 0),), nbytes=64, value=0xFF),
        kernel("add", (0, 0), (1, 0), (3, 0)),
        kernel("double", (3, 0), (3, NBYTES)),
        DeviceStep("copy", ((2, 0), (3, NBYTES)), nbytes=NBYTES),
        arena=64,
        lines=("", "user.py:3", "user.py:4", ""),
        **facts,
    )


def vector(device: CudaDevice, *values: float) -> DeviceBuffer:
    return device.upload(Buffer.from_array(np.array(values or (1, 2, 3, 4), np.float32)))


def values(buffer: DeviceBuffer) -> list[float]:
    return buffer.to_host().view(np.float32, (4,)).tolist()
