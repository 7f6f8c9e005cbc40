"""The compiler's options, declared with the runtime's `Option`. `GRAPHC_<NAME>` in the environment sets one.

Options that change generated code enter every cache key by themselves (`code_key`).
"""

from __future__ import annotations

from graphc_runtime.options import (
    CACHE,
    CACHE_BYTES,
    CACHE_DIR,
    IDLE_BYTES,
    NATIVE_CALLS,
    POISON,
    THREADS,
    Option,
    code_key,
    declare,
    option,
    options,
    scope,
)

MINIMAL_FILTERING = declare(
    "minimal_filtering",
    True,
    "compute convolutions over many channels with fewer multiplications, in which an infinity or NaN spreads to its "
    "neighbours",
    affects_code=True,
)

BF16_PAIRS = declare(
    "bf16_pairs",
    True,
    "multiply bf16 two at a time where the processor has an instruction for it, to which subnormal numbers count as 0",
    affects_code=True,
)

INTERPRET = declare(
    "interpret",
    True,
    "run small programs like several others, which differ in shapes or numbers, with NumPy until they have run often",
)

WGMMA = declare(
    "wgmma",
    "auto",
    "multiply large matrices of 16-bit floats by the instructions that only Hopper GPUs (sm_90a) have; auto = where a "
    "trial on the device found them right and quicker",
    affects_code=True,
    choices=("auto", "1", "0"),
)

MATMUL_PRECISION = declare(
    "matmul_precision",
    "highest",
    "how exact products and convolutions of float32 are on GPUs: not less than float32, or (high, medium) TF32",
    affects_code=True,
    choices=("highest", "high", "medium"),
)

TARGET = declare(
    "target",
    "",
    "the level of x86-64 that code is made for, at most what this machine has; empty = this machine",
    affects_code=True,
    choices=("", "x86-64-v2", "x86-64-v3", "x86-64-v4"),
)

__all__ = [
    "CACHE",
    "CACHE_BYTES",
    "CACHE_DIR",
    "IDLE_BYTES",
    "INTERPRET",
    "MATMUL_PRECISION",
    "MINIMAL_FILTERING",
    "NATIVE_CALLS",
    "POISON",
    "TARGET",
    "THREADS",
    "TUNE",
    "WGMMA",
    "Option",
    "code_key",
    "declare",
    "option",
    "options",
    "scope",
]

TUNE = declare(
    "tune", 0.0, "seconds for which schedules of a new program's kernels are searched, 0 = not", affects_code=True
)
