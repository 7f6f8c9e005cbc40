"""Facts of the machine that this process runs on."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from graphc.codegen.target import Target
from graphc.errors import InputError
from graphc.options import TARGET
from graphc_runtime.machine import cpu_count

L1_ASSUMED, L2_ASSUMED = 32 << 10, 512 << 10  # bytes, where the system does not tell
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


# The choices of the option `target`, levels of the x86-64 psABI: vector bytes, registers, and what each level adds to
# the one before, by LLVM's names.
_LEVELS = {
    "x86-64-v2": (16, 16, "cx16 popcnt sahf sse sse2 sse3 sse4.1 sse4.2 ssse3"),
    "x86-64-v3": (32, 16, "avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave"),
    "x86-64-v4": (64, 32, "avx512f avx512bw avx512cd avx512dq avx512vl"),
}


@cache
def machine() -> Target:
    """The machine of this process, as LLVM names it. Loads llvmlite on first use."""
    # llvmlite takes long to load and only compiling needs it.
    import llvmlite.binding as llvm

    triple = llvm.get_process_triple()
    flags = llvm.get_host_cpu_features()
    features = ",".join(sorted(("+" if on else "-") + name for name, on in flags.items()))
    on = frozenset(name for name, is_on in flags.items() if is_on)
    vector_bytes, registers = _vectors(triple, on)
    return Target(
        triple=triple,
        cpu=llvm.get_host_cpu_name(),
        features=features,
        vector_bytes=vector_bytes,
        registers=registers,
        fma="fma" in on or not triple.startswith(("x86_64", "i386", "i686")),
        l1_bytes=cache_bytes(1) or L1_ASSUMED,
        l2_bytes=cache_bytes(2) or L2_ASSUMED,
        cores=cpu_count(),
        l3_bytes=cache_bytes(3) or 0,
    )


def host_target() -> Target:
    """What code is made for: this machine, or the part of it that the option `target` names. InputError for more than
    the machine has.
    """
    level = TARGET.get()
    return limited(machine(), level) if level else machine()


@cache
def limited(target: Target, level: str) -> Target:
    """`target` with nothing but what a level of x86-64 has. InputError when it has less."""
    vector_bytes, registers, _ = _LEVELS[level]
    names = [name for known, (*_, added) in _LEVELS.items() if known <= level for name in added.split()]
    missing = sorted(set(names) - _on(target))
    if missing or not target.triple.startswith("x86_64"):
        lacks = f"lacks {', '.join(missing)}" if target.triple.startswith("x86_64") else f"is {target.triple}"
        raise InputError(f"option {TARGET.name}: {level} is more than this machine, which {lacks}")
    return replace(
        target,
        cpu=level,
        features=",".join(f"+{name}" for name in sorted(names)),
        vector_bytes=vector_bytes,
        registers=registers,
        fma="fma" in names,
    )


def _on(target: Target) -> frozenset[str]:
    return frozenset(f[1:] for f in target.features.split(",") if f.startswith("+"))


@cache
def library_version() -> str:
    """Versions of llvmlite and of the LLVM in it."""
    # llvmlite takes long to load and only compiling needs it.
    import llvmlite
    import llvmlite.binding as llvm

    return f"llvmlite {llvmlite.__version__}, LLVM {'.'.join(map(str, llvm.llvm_version_info))}"


@cache
def host_features() -> frozenset[str]:
    """Names of the features that this machine has, whatever the option `target` says."""
    return _on(machine())


@cache
def processor() -> str:
    """Model and caches of the processor, as Linux tells them: measured times hold for such a one only."""
    model = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    sizes = "/".join(str(cache_bytes(level) or 0) for level in (1, 2, 3))
    return f"{model or platform.machine()}, caches {sizes}"


def _vectors(triple: str, features: frozenset[str]) -> tuple[int, int]:
    """Bytes of a vector register, and how many there are."""
    if not triple.startswith("x86_64"):
        return 16, 32
    if "avx512f" in features:
        return 64, 32
    return (32, 16) if "avx2" in features else (16, 16)


def cache_bytes(level: int) -> int | None:
    """The size of a core's data cache at `level`, as Linux tells it; None when it does not."""
    try:
        for folder in sorted(_CACHES.glob("index*")):
            if (folder / "level").read_text().strip() != str(level):
                continue
            if (folder / "type").read_text().strip() == "Instruction":
                continue
            found = re.fullmatch(r"(\d+)([KM]?)", (folder / "size").read_text().strip())
            if found:
                return int(found[1]) << {"": 0, "K": 10, "M": 20}[found[2]]
    except OSError:
        pass
    return None
