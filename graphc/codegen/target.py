"""Facts of the machine that code is made for."""

from __future__ import annotations

from graphc.ir.record import record

LINE = 64  # bytes of a cache line
PAGE = 4096  # bytes of memory that addresses are translated for at once
PER_CYCLE = 2  # multiply-adds of vectors, and loads, that costs assume a core to do in a cycle
WARP = 32  # threads of a GPU that run in step
GROUP = 4 * WARP  # threads that multiply matrices together
MATRIX_ARCHITECTURE = 80  # of GPUs, from which on there are copies to shared memory, and matrices of bf16
WIDE = 16  # bytes that one of them loads or stores at once, where memory is aligned to as many
MAX_BLOCK = 1024  # threads of a block, at most
STATIC_SHARED = 48 << 10  # bytes of shared memory that a block may have without asking for more


@record
class Target:
    """What the scheduler and the emitters must know. Part of every cache key.

    `vector_bytes` is the width of a vector register, `registers` how many there are, cache sizes are in bytes per core
    (`l3_bytes` of the last one, which cores share; 0 where there is none or it is not known), `cores` counts the cores
    that this process may use. On a GPU (`device` "cuda") `cpu` is its architecture (`sm_90`; `sm_90a` with what
    only that one has), a core is a
    multiprocessor, `l1_bytes` the shared memory that a block may have, `l2_bytes` the cache of the whole device,
    `registers` those of a multiprocessor (of 4 bytes), `vector_bytes` what one thread loads at once, and `balance` how
    many multiply-adds of f32 it does while its memory moves a byte; with `tf32`, products of f32 may round their
    operands to TF32.
    """

    triple: str
    cpu: str
    features: str  # LLVM's feature string, sorted, every feature spelt with its sign
    vector_bytes: int
    registers: int
    fma: bool
    l1_bytes: int
    l2_bytes: int
    cores: int
    device: str = "cpu"
    tf32: bool = False
    l3_bytes: int = 0
    balance: float = 0.0

    @property
    def capability(self) -> int:
        """The compute capability of a GPU, 90 for `sm_90` and `sm_90a`; 0 for a processor."""
        return int(self.cpu.removeprefix("sm_").rstrip("af")) if self.device == "cuda" else 0

    @property
    def pairs(self) -> bool:
        """Whether one instruction multiplies two pairs of bf16 in each lane and adds up the products."""
        return "+avx512bf16" in self.features.split(",")

    @property
    def masks(self) -> bool:
        """Whether one instruction loads those elements of a vector that a mask names."""
        return any(feature.startswith("+avx") for feature in self.features.split(","))

    def lanes(self, itemsize: int) -> int:
        """Elements of `itemsize` bytes in one vector register."""
        return max(1, self.vector_bytes // itemsize)
