"""What the machine can do: multiply-adds by a loop of vector instructions made with LLVM, and plain copies."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding as llvm
import numpy as np

# A few milliseconds: a CPU that sleeps needs part of one to wake.
LOOPS = 1_000_000
SMALLEST_COPY = 1 << 12


def _width_and_chains() -> tuple[int, int]:
    """Bytes of a vector, and as many independent chains as keep two pipelines busy and fit the registers."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 24
    return (32 if features.get("avx2") else 16), 12


def _has_pairs() -> bool:
    """Whether an instruction adds up two products of bf16 in each lane."""
    return bool(llvm.get_host_cpu_features().get("avx512bf16"))


def _source(type_: str, lanes: int, chains: int, pairs: bool = False) -> str:
    vector, numbers = f"<{lanes} x {type_}>", f"<{2 * lanes} x bfloat>"
    if pairs:
        fma, types = f"@llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}", f"{vector}, {numbers}, {numbers}"
        call = f"call {vector} {fma}({vector} %a{{0}}, {numbers} %p, {numbers} %p)"
    else:
        fma, types = f"@llvm.fma.v{lanes}{'f32' if type_ == 'float' else 'f64'}", f"{vector}, {vector}, {vector}"
        call = f"call {vector} {fma}({vector} %a{{0}}, {vector} %x, {vector} %y)"
    starts = [f"  %a{i} = phi {vector} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in range(chains)]
    steps = [f"  %b{i} = {call.format(i)}" for i in range(chains)]
    sums = [f"  %s{i} = fadd {vector} %{'b0' if i == 1 else f's{i - 1}'}, %b{i}" for i in range(1, chains)]
    lines = [
        f"declare {vector} {fma}({types})",
        "define void @work(ptr %place, i64 %count) {",
        "entry:",
        f"  %x = load {vector}, ptr %place, align 8",
        f"  %y = fadd {vector} %x, %x",
        *([f"  %p = bitcast {vector} %x to {numbers}"] if pairs else []),
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
        *starts,
        *steps,
        "  %next = add i64 %i, 1",
        "  %more = icmp ult i64 %next, %count",
        "  br i1 %more, label %loop, label %exit",
        "exit:",
        *sums,
        f"  store {vector} %s{chains - 1}, ptr %place, align 8",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)


class Machine:
    """The machine as `threads` threads see it."""

    def __init__(self, threads: int) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)
        self.width, self.chains = _width_and_chains()
        self.engines: list[llvm.ExecutionEngine] = []
        self.loops = {"f32": self._build("float", 4), "f64": self._build("double", 8)}
        self.loops["bf16"] = self._build("float", 4, pairs=True) if _has_pairs() else self.loops["f32"]

    def _build(self, type_: str, itemsize: int, pairs: bool = False) -> tuple[Callable[..., None], int]:
        module = llvm.parse_assembly(_source(type_, self.width // itemsize, self.chains, pairs))
        features = llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=2)
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        self.engines.append(engine)
        # ctypes lets other threads run meanwhile.
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
        flops_a_loop = (4 if pairs else 2) * self.chains * self.width // itemsize
        return prototype(engine.get_function_address("work")), flops_a_loop

    def peak_flops(self, dtype: str) -> float:
        """Floating-point operations a second of all threads together, the best of a few short runs."""
        work, flops = self.loops[dtype]
        places = [np.full(64, 1e-3, np.float64 if dtype == "f64" else np.float32) for _ in range(self.threads)]
        best = 0.0
        for _ in range(3):
            begin = time.perf_counter()
            for done in [self.pool.submit(work, place.ctypes.data, LOOPS) for place in places]:
                done.result()
            best = max(best, self.threads * LOOPS * flops / (time.perf_counter() - begin))
        return best

    def copier(self, nbytes: float) -> Callable[[], None]:
        """A plain copy that reads and writes so many bytes together; of one thread where threads cost more than it."""
        elements = max(int(nbytes), SMALLEST_COPY) // 8
        source, target = np.ones(elements, np.float32), np.zeros(elements, np.float32)
        if self.threads == 1 or nbytes < 1 << 20:
            return lambda: np.copyto(target, source)
        pairs = list(zip(np.array_split(target, self.threads), np.array_split(source, self.threads), strict=True))

        def copy() -> None:
            for done in [self.pool.submit(np.copyto, *pair) for pair in pairs]:
                done.result()

        return copy
