"""Units of CUDA C by a CUDA compiler, where there is one: what it takes, what kernels cost, its errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from graphc.codegen.cuda import build, program
from graphc.codegen.cuda.build import Resources, build_cubin, build_ptx, compiler_version, resource_report
from graphc.codegen.cuda.emit import emit_kernel, emit_unit
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Affine, Kernel, Load, Store, Value, VType
from graphc.errors import CompileError
from graphc.ir.types import f32
from graphc.pipeline import build_program
from tests.codegen.kernel_maker import KernelMaker
from tests.codegen.native import build as build_kernel
from tests.codegen.native import param
from tests.codegen.networks import training_step
from tests.codegen.test_llvm_build import everything

HOPPER = cuda_target("sm_90")


def has_compiler() -> bool:
    try:
        build.compiler()
    except CompileError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="neither NVRTC nor nvcc is here")


def scale(name: str, factor: float) -> Kernel:
    array = np.zeros(64, np.float32)
    x, y = param("x", array, "in"), param("y", array, "out")

    def write(e: Emitter, g: Value) -> None:
        value = Value(VType(f32, 4))
        e.body.append(Load(value, x, Affine(0, ((g, 4),))))
        e.body.append(Store(y, Affine(0, ((g, 4),)), e.op("fma", e.op("mul", value, factor), value, 1.0)))

    return build_kernel([x, y], 16, write, name)


@needs_compiler
@pytest.mark.parametrize("arch", ["sm_75", pytest.param("sm_80", marks=pytest.mark.slow), "sm_90"])
def test_every_operation_compiles(arch: str) -> None:
    target = cuda_target(arch)
    shapes = {"a": (4, False), "b": (64, True), "c": (512, True)}
    texts = [emit_kernel(everything(), target)]
    for seed, (name, (lanes, is_block)) in enumerate(shapes.items()):
        kernel = KernelMaker(seed, lanes, is_block, 80).kernel()
        texts.append(emit_kernel(kernel, target).replace(" k(", f" {name}("))
    report = resource_report(emit_unit(texts), target)
    assert sorted(report) == ["a", "b", "c", "everything"]
    assert all(0 < r.registers <= 255 for r in report.values())
    assert report["b"].shared >= 64 * (4 + 8) * 4


@needs_compiler
def test_code_is_exact_and_wide() -> None:
    unit = emit_unit([emit_kernel(scale("k", 2.5), HOPPER)])
    ptx = build_ptx(unit, HOPPER)
    assert ptx.count("ld.global.nc.v4") == 1 and ptx.count("st.global.v4") == 1
    assert ptx.count("mul.rn.f32") == 4 and ptx.count("fma.rn.f32") == 4
    assert ".ftz" not in ptx and "approx" not in ptx
    cubin = build_cubin(unit, HOPPER)
    assert cubin[:4] == b"\x7fELF" and b"k" in cubin
    (found,) = resource_report(unit, HOPPER).items()
    assert found == ("k", Resources(found[1].registers, spilled=0, shared=0))
    assert compiler_version().split()[0] in ("NVRTC", "nvcc")


@needs_compiler
def test_refused_text_is_a_compile_error() -> None:
    text = emit_kernel(scale("k", 2.0), HOPPER).replace("fmaf(", "no_such_function(")
    with pytest.raises(CompileError, match=r"(?s)refuses the generated code.*no_such_function"):
        build_cubin(emit_unit([text]), HOPPER)
    with pytest.raises(CompileError, match="makes no code for sm_12345"):
        build_cubin(emit_unit([]), cuda_target("sm_12345"))


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_find_nvrtc", "toolkit_program"):
        monkeypatch.setattr(build, name, lambda *_: None)
    with pytest.raises(CompileError, match=r"neither NVRTC nor nvcc is there.*pip install nvidia-cuda-nvrtc"):
        build.compiler.__wrapped__()


def test_a_broken_library_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "libnvrtc.so.13"
    broken.write_bytes(b"not a library")
    with pytest.raises(CompileError, match=r"libnvrtc\.so\.13 cannot be loaded"):
        build.Nvrtc(str(broken))
    with pytest.raises(CompileError, match="cannot be run"):
        build.Nvcc(str(tmp_path / "nvcc"))


def test_built_ins_beside_nvrtc_are_loaded_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's NVRTC looks for them by name alone, where the loader has no reason to look."""
    for name in ("libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libnvrtc-builtins.alt.so.13.0"):
        (tmp_path / name).touch()
    loaded: list[str] = []

    def load(path: str) -> None:
        loaded.append(Path(path).name)
        if path.endswith("libnvrtc.so.13"):
            raise OSError("enough")

    monkeypatch.setattr(build.ctypes, "CDLL", load)
    with pytest.raises(CompileError, match="enough"):
        build.Nvrtc(str(tmp_path / "libnvrtc.so.13"))
    assert loaded == ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]


def test_the_toolkit_that_is_named_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib64").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.131'\n")
    nvcc.chmod(0o755)
    for name in ("libnvrtc.so.12", "libnvrtc.so.12.4.127", "libnvrtc.alt.so.12", "libnvrtc-builtins.so.12.4"):
        (tmp_path / "lib64" / name).touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    assert build.toolkit_program("nvcc") == str(nvcc)
    assert build.Nvcc(str(nvcc)).version == "nvcc 12.4.131"
    assert build._find_nvrtc() == str(tmp_path / "lib64" / "libnvrtc.so.12.4.127")


class Counting:
    """A compiler that keeps the units that it was given (the protocol `build.Compiler`)."""

    version = "none"

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.units: list[str] = []

    def compile(self, unit: str, arch: str, to_ptx: bool, options: Sequence[str]) -> tuple[bytes, str]:
        self.units.append(unit)
        return unit.encode(), ""


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (2, 4), (64, 64)])
def test_units_for_several_threads(monkeypatch: pytest.MonkeyPatch, workers: int, most: int) -> None:
    """Each different kernel is compiled once, in as many units as threads can use, and its steps know where it is."""
    compiler = Counting(workers)
    monkeypatch.setattr(build, "compiler", lambda: compiler)
    monkeypatch.setattr(program, "SHORTEST", 4 << 10)
    made = build_program(training_step(8), target=HOPPER)
    artifact = program.make_device_artifact(made, HOPPER, {})
    assert len(artifact.objects) == len(compiler.units) <= most
    assert (len(compiler.units) > 1) == (workers > 1)
    steps = [step for step in artifact.steps if step.kernel not in ("fill", "copy")]
    for step in steps:
        holders = [number for number, unit in enumerate(compiler.units) if f") {step.kernel}(" in unit]
        assert holders == [step.object]
    assert sum(unit.count("__global__") for unit in compiler.units) == len({step.kernel for step in steps})
