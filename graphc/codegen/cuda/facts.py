"""Facts of NVIDIA's GPUs: `Target`s by architecture, and what a device says of itself."""

from __future__ import annotations

import re

from graphc.codegen.target import WIDE, Target
from graphc.errors import CompileError
from graphc.ir.record import record

TRIPLE = "nvptx64-nvidia-cuda"
OLDEST = 75


@record
class _Facts:
    """`shared` is the shared memory that a block may ask for, `l2` the cache of the device (bytes), `balance` its
    multiply-adds of f32 in the time of a byte of memory.
    """

    multiprocessors: int
    shared: int
    l2: int
    balance: float
    registers: int = 65536


# By compute capability: a usual device of each. CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability"; multiprocessors, caches and balances (TFLOP/s over twice the TB/s of its datasheet) are those of the
# device named.
_KNOWN = {
    75: _Facts(40, 64 << 10, 4 << 20, 12.7),  # T4
    80: _Facts(108, 163 << 10, 40 << 20, 6.3),  # A100
    86: _Facts(82, 99 << 10, 6 << 20, 19.0),  # RTX 3090
    87: _Facts(16, 163 << 10, 4 << 20, 13.0),  # Orin
    89: _Facts(128, 99 << 10, 72 << 20, 41.0),  # RTX 4090
    90: _Facts(132, 227 << 10, 50 << 20, 10.0),  # H100
}


def cuda_target(
    arch: str = "sm_90",
    *,
    multiprocessors: int | None = None,
    shared_bytes: int | None = None,
    l2_bytes: int | None = None,
    registers: int | None = None,
) -> Target:
    """The target for an architecture (`sm_90`); numbers that a device tells replace those of a usual one.

    `shared_bytes` is the most that a block may ask for, `registers` counts those of a multiprocessor. Later
    architectures than those in the table take the facts of the last one before them. CompileError for earlier ones.
    """
    found = re.fullmatch(r"sm_(\d+)[af]?", arch)
    if found is None:
        raise CompileError(f"{arch!r} is no architecture of a GPU; they are spelt like 'sm_90'")
    capability = int(found[1])
    if capability < OLDEST:
        raise CompileError(f"{arch} is too old: graphc makes code for sm_{OLDEST} and later GPUs")
    facts = _KNOWN[max(known for known in _KNOWN if known <= capability)]
    return Target(
        triple=TRIPLE,
        cpu=arch,
        features="",
        vector_bytes=WIDE,
        registers=registers or facts.registers,
        fma=True,
        l1_bytes=shared_bytes or facts.shared,
        l2_bytes=l2_bytes or facts.l2,
        cores=multiprocessors or facts.multiprocessors,
        device="cuda",
        balance=facts.balance,
    )
