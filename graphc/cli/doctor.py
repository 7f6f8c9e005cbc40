"""`graphc doctor`: what is installed, what this machine offers, and one fix for each problem."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import click

import graphc
from graphc.cli.cache import trouble
from graphc.cli.common import FAILED, json_option, size_text, to_json
from graphc.codegen.cuda.build import compiler_version
from graphc.codegen.llvm.host import cache_bytes, host_target
from graphc.codegen.target import PER_CYCLE, Target
from graphc.codegen.traffic import FAR, NEAR
from graphc.compiled import HOPPER, HOPPER_ONLY, target_of
from graphc.errors import CompileError, GraphcError
from graphc.options import TARGET, WGMMA, options
from graphc.trial import earlier_verdict
from graphc_runtime import default_cache, get_num_threads
from graphc_runtime.artifact import PARALLEL_BYTES, PARALLEL_FLOPS
from graphc_runtime.devices import cuda
from graphc_runtime.errors import OptionError
from graphc_runtime.machine import affinity, core_quota, cpu_count, memory_limit, memory_quota

# Instruction sets worth a line, widest last.
_NOTABLE = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512bf16", "amx-tile", "neon", "sve")


@dataclass(frozen=True)
class Check:
    """One finding. `fix` says what to do.

    `status` is "ok", "problem" (exit code 1) or "absent" (optional and not there).
    """

    name: str
    status: str
    value: str
    fix: str = ""


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _software() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Check("graphc", "ok", _package("graphc") or "running from its source tree")
    for name in ("numpy", "ml_dtypes", "networkx", "safetensors"):
        found = _package(name)
        yield Check(name, "ok", found) if found else Check(name, "problem", "missing", f"pip install {name}")


def _compiler() -> Iterator[Check]:
    try:
        # llvmlite may be missing or broken: that is what is being found out here.
        import llvmlite
        import llvmlite.binding as llvm
    except (ImportError, OSError) as error:
        yield Check("llvmlite", "problem", f"cannot be loaded: {error}", "pip install --force-reinstall llvmlite")
        return
    llvm_version = ".".join(map(str, llvm.llvm_version_info))
    yield Check("llvmlite", "ok", f"{llvmlite.__version__} with LLVM {llvm_version}")
    try:
        target = host_target()
    except GraphcError as error:
        yield Check("cpu", "problem", str(error), f"unset {TARGET.environment}")
        return
    features = set(target.features.split(","))
    notable = " ".join(name for name in _NOTABLE if f"+{name}" in features)
    yield Check("cpu", "ok", f"{target.cpu} ({target.triple}): {notable or 'baseline only'}")
    yield Check("vectors", "ok", f"{target.vector_bytes * 8} bits, {target.registers} registers, fma: {target.fma}")
    yield Check("caches", "ok", ", ".join(_caches(target)))
    yield Check("costs", "ok", _costs(target))
    yield _runs()


def _caches(target: Target) -> Iterator[str]:
    """What the cost model takes the caches of a core to be, and whether the system says so."""
    for level, used in ((1, target.l1_bytes), (2, target.l2_bytes)):
        yield f"L{level} {size_text(used)} per core ({'read' if cache_bytes(level) else 'assumed'})"
    last = cache_bytes(3)
    if last is not None:
        yield f"L3 {size_text(last)} (costs do not use it)"


def _costs(target: Target) -> str:
    """What costs assume: they are cycles counted by rule, nothing is timed."""
    peak = 2 * PER_CYCLE * target.lanes(4)
    return (
        f"cycles are counted, never timed: {PER_CYCLE} vector multiply-adds and loads each (a peak of {peak} f32 "
        f"operations a core), {1 / NEAR:.3g} bytes from L2 or {1 / FAR:.3g} from beyond; several threads work from "
        f"{PARALLEL_FLOPS:,} operations or {size_text(PARALLEL_BYTES)} on, if that proves faster"
    )


def _runs() -> Check:
    try:
        total = (graphc.arange(8, dtype=graphc.float32) * 2.0 + 1.0).sum().item()
    except (GraphcError, RuntimeError, OSError, MemoryError) as error:
        fix = "if this system forbids executable memory (hardened kernel, container), allow it; otherwise report this"
        return Check("native code", "problem", f"a small kernel does not run: {error}", fix)
    if total != 64.0:
        return Check("native code", "problem", f"a small kernel gives {total}, not 64.0", "report this output")
    return Check("native code", "ok", "a small kernel compiles, runs and is right")


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as text: 0-3, 8."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _machine() -> Iterator[Check]:
    cores, threads = cpu_count(), get_num_threads()
    value = f"{threads} of {cores} usable cores ({os.cpu_count()} in the machine)"
    yield Check("affinity", "ok", f"cores {_ranges(affinity())}")
    quota, memory = core_quota(), memory_quota()
    limits = (
        "no limit of cores" if quota is None else f"{quota:.3g} cores",
        "no limit of memory" if memory is None else f"{size_text(memory)} of memory",
    )
    yield Check("control group", "ok", ", ".join(limits))
    yield Check("memory", "ok", f"at most {size_text(memory_limit())} for this process")
    if threads > cores:
        yield Check("threads", "problem", value, f"more threads than cores are slower: GRAPHC_THREADS={cores}")
    else:
        yield Check("threads", "ok", value)


def _cache() -> Iterator[Check]:
    info = default_cache().info()
    wrong, fix = trouble(info)
    if wrong:
        yield Check("cache", "problem" if info.path else "absent", wrong, fix)
        return
    used = f"{info.entries} entries, {size_text(info.bytes)} of {size_text(info.limit_bytes)}"
    yield Check("cache", "ok", f"{info.path}: {used}")


def _settings() -> Iterator[Check]:
    for name, option in options().items():
        try:
            value = option.get()
        except OptionError as error:
            yield Check(f"option {name}", "problem", str(error), f"unset {option.environment}")
            continue
        if value != option.default:
            yield Check(f"option {name}", "ok", f"{value} (default {option.default!r})")


def _gpu() -> Iterator[Check]:
    """What is needed for NVIDIA's GPUs. Without a driver nothing of it is a problem."""
    driver = _driver_version()
    if driver:
        yield Check("nvidia driver", "ok", f"serves CUDA {driver // 1000}.{driver % 1000 // 10}")
    else:
        fix = "for NVIDIA GPUs only: install the driver, then check that `nvidia-smi` lists the device"
        yield Check("nvidia driver", "absent", "no libcuda.so.1 that can be loaded", fix)
    yield from _gpu_packages()
    try:
        yield Check("cuda compiler", "ok", compiler_version())
    except CompileError as error:
        fix = "pip install nvidia-cuda-nvrtc (for CUDA 12: nvidia-cuda-nvrtc-cu12)"
        yield Check("cuda compiler", "problem" if driver else "absent", error.message, fix)
    if why := cuda.why_unavailable():
        status = "problem" if driver and _package("pycuda") else "absent"
        yield Check("cuda devices", status, why, "see above" if status == "absent" else "see the reason")
    for index in range(cuda.device_count()):
        yield _gpu_device(index)


def _driver_version() -> int:
    """The newest CUDA that the driver serves: 13000 for 13.0; 0 where there is no driver."""
    version = ctypes.c_int()
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value


def _gpu_packages() -> Iterator[Check]:
    pycuda = _package("pycuda")
    if pycuda:
        yield Check("pycuda", "ok", pycuda)
    else:
        fix = "pip install -e '.[cuda]' in a clone (its build needs a CUDA toolkit and a C++ compiler: docs/cuda.md)"
        yield Check("pycuda", "absent", "not installed; needed for NVIDIA GPUs only", fix)
    bindings = _package("cuda-bindings")
    if bindings:
        yield Check("cuda-bindings", "ok", bindings)
    else:
        value = "not installed; without it kernels of a step are launched one by one, not as a CUDA graph"
        yield Check("cuda-bindings", "absent", value, "pip install cuda-bindings")


def _gpu_device(index: int) -> Check:
    name = f"cuda:{index}"
    try:
        facts = cuda.cuda_device(index).facts
        total = (graphc.arange(8, dtype=graphc.float32, device=name) * 2.0 + 1.0).sum().item()
    except (GraphcError, RuntimeError, OSError, MemoryError) as error:
        return Check(name, "problem", f"a small kernel does not run: {error}", "run it with GRAPHC_CUDA_SYNC=1")
    if total != 64.0:
        return Check(name, "problem", f"a small kernel gives {total}, not 64.0", "report this output")
    value = (
        f"{facts.name}, {facts.architecture}, {facts.multiprocessors} multiprocessors, {size_text(facts.memory)}, "
        f"L2 {size_text(facts.l2_bytes)}, {size_text(facts.shared_per_block)} of shared memory a block; a small kernel "
        "compiles, runs and is right"
    )
    return Check(name, "ok", value + _instructions(name))


def _instructions(name: str) -> str:
    """What is known of Hopper's own instructions for matrices on a device."""
    target = target_of(name)
    if target.cpu not in (HOPPER, HOPPER_ONLY):
        return ""
    if WGMMA.get() != "auto":
        return f"; wgmma: GRAPHC_WGMMA={WGMMA.get()}"
    found = {None: "not tried yet", True: "right and quicker", False: "not used"}[earlier_verdict(name, target)]
    return f"; wgmma: {found}"


def findings() -> list[Check]:
    """Every check, in the order in which it is shown. Invalid settings come first: they would stop the other checks."""
    settings = list(_settings())
    broken = any(check.status == "problem" for check in settings)
    groups = (_software, _gpu) if broken else (_software, _compiler, _machine, _cache, _gpu)
    return [*settings, *(check for group in groups for check in group())]


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Check the installation and this machine. Exit code 1 when there is a problem."""
    checks = findings()
    healthy = all(check.status != "problem" for check in checks)
    if as_json:
        click.echo(to_json({"ok": healthy, "checks": [asdict(check) for check in checks]}))
    else:
        width = max(len(check.name) for check in checks)
        colors = {"ok": "green", "problem": "red", "absent": "yellow"}
        for check in checks:
            status = click.style(f"{check.status:<7}", fg=colors[check.status])
            click.echo(f"{status}  {check.name:<{width}}  {check.value}")
            if check.fix:
                click.echo(f"{'':<7}  {'':<{width}}  -> {check.fix}")
    if not healthy:
        raise click.exceptions.Exit(FAILED)
