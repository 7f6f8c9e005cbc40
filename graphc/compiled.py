"""Programs for graphs, from the cache where they are there: the compiler is loaded only when one has to be made."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import graphc
from graphc.codegen.cuda.build import compiler_version
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.llvm.host import host_features, host_target, library_version, processor
from graphc.codegen.target import Target
from graphc.collecting import no_collection
from graphc.errors import CompileError
from graphc.ir.graph import Graph
from graphc.options import MATMUL_PRECISION, TARGET, TUNE, WGMMA, code_key
from graphc_runtime.artifact import Artifact
from graphc_runtime.cache import default_cache
from graphc_runtime.counters import COUNTERS
from graphc_runtime.devices import get_device
from graphc_runtime.errors import ArtifactError, LoadError
from graphc_runtime.executor import Executable
from graphc_runtime.pool import get_num_threads

# What these options mean is among the facts of a target: `matmul_precision` is nothing on a CPU, `target` on a GPU.
_IN_TARGET = frozenset({MATMUL_PRECISION.name, TARGET.name, WGMMA.name})
HOPPER, HOPPER_ONLY = "sm_90", "sm_90a"


def compile_graph(graph: Graph, donate: frozenset[int] | tuple[int, ...] = (), device: str = "cpu") -> Executable:
    """Native code for `graph` on `device` ("cpu" or "cuda:0"), from the cache if it is there.

    Inputs numbered in `donate` may be overwritten by outputs when the program runs; the executable hands their
    buffers on.
    """
    target = _target_for(graph, device)
    on_gpu = target.device == "cuda"
    donated = frozenset(donate)
    fields = key_fields(graph, donated, target, device)
    store = default_cache()
    held = store.get(fields, frozenset() if on_gpu else host_features())
    if held is not None:
        try:
            return Executable(Artifact.from_bytes(held), get_device(device))
        except (ArtifactError, LoadError):
            pass  # a damaged entry counts as a miss and is replaced below
    COUNTERS.add("compiles")
    if TUNE.get() > 0 and not on_gpu:
        artifact = graphc.tuning.make(graph, donated, target, TUNE.get(), tuning_fields(target, device))
    else:
        with no_collection():  # a sixth of the time of compiling
            artifact = graphc.pipeline.make(graph, donated, target)
    required = frozenset(f[1:] for f in target.features.split(",") if f.startswith("+"))
    store.put(fields, artifact.to_bytes(), required)
    return Executable(artifact, get_device(device))


def _target_for(graph: Graph, device: str) -> Target:
    """What code of `graph` is made for; a Hopper GPU is asked whether its own instructions pay where `graph` may have
    much use for them.
    """
    target = target_of(device)
    if target.cpu != HOPPER or WGMMA.get() != "auto" or not graphc.trial.is_worth_asking(graph):
        return target
    return replace(target, cpu=HOPPER_ONLY) if graphc.trial.groups_pay(device, target) else target


def target_of(device: str) -> Target:
    """What code for `device` is made for: this machine's processor, or the GPU as the runtime knows it."""
    if device.partition(":")[0] != "cuda":
        return host_target()
    opened: Any = get_device(device)
    facts = opened.facts
    target = cuda_target(
        facts.architecture,
        multiprocessors=facts.multiprocessors,
        shared_bytes=facts.shared_per_block,
        l2_bytes=facts.l2_bytes,
        registers=facts.registers_per_multiprocessor,
    )
    return with_options(target)


def with_options(target: Target) -> Target:
    """`target`, a GPU, with TF32 where `set_float32_matmul_precision` allows it, and with what only Hopper has where
    the option `wgmma` asks for it.
    """
    cpu = HOPPER_ONLY if WGMMA.get() == "1" and target.cpu == HOPPER else target.cpu
    return replace(target, cpu=cpu, tf32=MATMUL_PRECISION.get() != "highest")


def key_fields(graph: Graph, donated: frozenset[int], target: Target, device: str) -> dict[str, str]:
    """Everything that decides the program's code."""
    return {
        "format": "program 1",
        "graph": str(graph),
        "donated": ",".join(map(str, sorted(donated))),
        **compiler_fields(target, device),
        **(_machine_fields() if TUNE.get() > 0 else {}),
    }


def tuning_fields(target: Target, device: str) -> dict[str, str]:
    """Everything besides the kernel that decides which of its schedules is the fastest."""
    fields = {**compiler_fields(target, device), **_machine_fields()}
    del fields[f"option.{TUNE.name}"]
    return fields


def _machine_fields() -> dict[str, str]:
    """What measured times depend on besides the target."""
    return {"threads": str(get_num_threads()), "processor": processor()}


def compiler_fields(target: Target, device: str) -> dict[str, str]:
    """Everything besides the program that decides its code."""
    on_gpu = target.device == "cuda"
    return {
        "device": target.device if on_gpu else device,  # GPUs of one kind run the same code
        **{f"target.{name}": str(getattr(target, name)) for name in target.__dataclass_fields__},
        "graphc": graphc.__version__,
        "compiler": _code_fingerprint(),
        **({"nvcc": _cuda_compiler()} if on_gpu else {"llvm": library_version()}),
        **{f"option.{name}": value for name, value in code_key() if name not in _IN_TARGET},
    }


@cache
def _cuda_compiler() -> str:
    """The compiler of CUDA C; none is needed for programs that are in the cache."""
    try:
        return compiler_version()
    except CompileError:
        return "none"


@cache
def _code_fingerprint() -> str:
    """A digest of the compiler's own files (names, sizes, times), so that a changed compiler misses the cache."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    folders = [root, *(root / name for name in ("ir", "passes", "codegen"))]
    found: list[tuple[str, int, int]] = []
    for folder in folders:
        for at, below, names in os.walk(folder):
            if folder is root:
                below.clear()
            for name in names:
                if name.endswith(".py"):
                    path = os.path.join(at, name)
                    status = os.stat(path)
                    found.append((path[len(str(root)) :], status.st_size, status.st_mtime_ns))
    for name, size, time in sorted(found):
        digest.update(f"{name} {size} {time}\n".encode())
    return digest.hexdigest()
