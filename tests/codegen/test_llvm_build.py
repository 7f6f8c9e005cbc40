"""Objects, assembly, threads and errors of the LLVM builder; other machines than this one."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Affine, Kernel, Load, Store, Value, VType
from graphc.codegen.llvm import build as llvm_build
from graphc.codegen.llvm.build import PARTS, Building, build_assembly, build_many, build_object
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.llvm.host import host_target, limited, machine
from graphc.errors import CompileError, InputError
from graphc.ir.types import DTYPES, bf16, boolean, f16, f32, i64
from graphc.options import TARGET, scope
from graphc_runtime.errors import OptionError
from tests.codegen.native import baseline, build, link, param
from tests.codegen.targets import SSE2

ARM = replace(
    host_target(), triple="aarch64-unknown-linux-gnu", cpu="generic", features="+neon", vector_bytes=16, registers=32
)


@pytest.fixture(autouse=True)
def each_is_built_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the memory that other tests share."""
    llvm_build.OBJECTS.clear()
    for name in ("_generate", "_parts"):
        monkeypatch.setattr(llvm_build, name, getattr(llvm_build, name).__wrapped__)


def scale(name: str, factor: float) -> Kernel:
    array = np.zeros(64, np.float32)
    x, y = param("x", array, "in"), param("y", array, "out")

    def write(e: Emitter, g: Value) -> None:
        value = Value(VType(f32, 16))
        e.body.append(Load(value, x, Affine(0, ((g, 16),))))
        e.body.append(Store(y, Affine(0, ((g, 16),)), e.op("mul", value, factor)))

    return build([x, y], 4, write, name)


def everything() -> Kernel:
    """Masks, strides, gathers and casts of all dtypes in one kernel."""
    arrays = {d: np.zeros(64, d.numpy) for d in DTYPES}
    params = {d: param(f"p_{d}", a, "inout") for d, a in arrays.items()}

    def write(e: Emitter, g: Value) -> None:
        offsets, mask = Value(VType(i64, 8)), Value(VType(boolean, 8))
        e.body.extend([Load(offsets, params[i64], Affine()), Load(mask, params[boolean], Affine())])
        for source in DTYPES:
            for stride in (1, -1, 2, 3, 5):
                value = Value(VType(source, 8))
                e.body.append(Load(value, params[source], Affine(8), stride if stride > 0 else 1))
                e.body.append(Store(params[source], Affine(20), value, stride))
            value = Value(VType(source, 8))
            e.body.append(Load(value, params[source], Affine(), 0, offsets, mask))
            e.body.append(Store(params[source], Affine(), value, 0, offsets, mask))
            for dtype in DTYPES:
                e.body.append(Store(params[dtype], Affine(8), e.op("cast", value, to=dtype), mask=mask))

    return build(list(params.values()), 1, write, "everything")


def test_a_thread_compiles_one_module() -> None:
    """What is compiled together is one object; its functions are those of modules compiled by themselves."""
    target = host_target()
    texts = [emit_kernel(scale(f"k{i}", i + 0.5), target) for i in range(12)]
    plain = emit_kernel(scale("once", 3.0), target)
    for workers, count in ((1, 1), (2, 2 * PARTS), (4, 12), (16, 12)):
        objects = build_many(texts, target, workers)
        assert len(objects) == count
        assert len(build_many([plain, *texts], target, workers, frozenset({plain}))) == count + 1
        x = np.arange(64, dtype=np.float32)
        for number in (0, 7, 11):
            library, address = link(objects, f"k{number}")
            y = np.zeros(64, np.float32)
            pointer = ctypes.c_void_p
            function = ctypes.CFUNCTYPE(None, pointer, pointer, ctypes.c_int64, ctypes.c_int64)(address)
            function(x.ctypes.data, y.ctypes.data, 0, 4)
            np.testing.assert_array_equal(y, x * np.float32(number + 0.5))
            del library
    assert build_many([], target) == []
    with pytest.raises(CompileError):
        build_many([texts[0], "nonsense", texts[1]], target, workers=2)
    with pytest.raises(CompileError, match="redefinition"):
        build_many([texts[0], texts[0] + "; another"], target, workers=1)


def test_objects_are_begun_while_texts_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was added is built in runs of some length, the rest at the end; nothing twice, and always the same."""
    target = host_target()
    texts = [emit_kernel(scale(f"k{i}", i + 0.5), target) for i in range(12)]
    monkeypatch.setattr(llvm_build, "BATCH", sum(map(len, texts[:4])))
    generated: list[tuple[str, ...]] = []
    generate = llvm_build._generate

    def counted(texts: tuple[str, ...], *rest: Any, **options: Any) -> bytes:
        generated.append(texts)
        return generate(texts, *rest, **options)

    monkeypatch.setattr(llvm_build, "_generate", counted)
    found: list[list[bytes]] = []
    for _ in range(2):
        generated.clear()
        llvm_build.OBJECTS.clear()
        with Building(target, workers=2) as building:
            for text in (*texts[:9], texts[0]):
                building.add(text)
            found.append(building.objects(texts))
        assert sorted(len(part) for part in generated) == [2, 2, 4, 4]
        assert sorted(text for part in generated for text in part) == sorted(texts)
    assert found[0] == found[1]
    library, _ = link(found[0], "k0")
    for number in range(12):
        link(found[0], f"k{number}")
    del library
    monkeypatch.setattr(llvm_build, "FIRST", len(texts[0]))
    generated.clear()
    llvm_build.OBJECTS.clear()
    with Building(target, workers=2) as building:
        for text in texts:
            building.add(text)
        building.objects(texts)
    # The first piece is short, so that LLVM begins early; the next ones are twice as long, up to BATCH.
    assert sorted(map(len, generated)) == [1, 1, 2, 4, 4]


def test_what_is_built_quickly_is_begun_before_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    target = host_target()
    texts = [emit_kernel(scale(f"k{i}", i + 0.5), target) for i in range(4)]
    plain = emit_kernel(scale("once", 3.0), target)
    begun: list[Any] = []
    submit = ThreadPoolExecutor.submit

    def noted(pool: Any, function: Any, *given: Any) -> Any:
        begun.append(given[0])
        return submit(pool, function, *given)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", noted)
    objects = build_many([*texts, plain], target, 2, frozenset({plain}))
    assert begun[0] == (plain,) and len(begun) == len(objects) == 5
    assert b"once" in objects[-1] and not any(b"once" in other for other in objects[:-1])


def test_python_changes_threads_faster_only_while_something_is_built() -> None:
    """Also where two buildings overlap, and where one is entered twice, as a program's is."""
    usual, target = sys.getswitchinterval(), host_target()
    with Building(target, workers=2) as first:
        assert sys.getswitchinterval() == pytest.approx(llvm_build.TURN_SECONDS)
        second = Building(target, workers=2)
        second.__enter__()
        with first:
            pass
        assert sys.getswitchinterval() == pytest.approx(llvm_build.TURN_SECONDS)
    assert sys.getswitchinterval() == pytest.approx(llvm_build.TURN_SECONDS)
    second.__exit__()
    assert sys.getswitchinterval() == pytest.approx(usual)
    with Building(target, workers=1):
        assert sys.getswitchinterval() == pytest.approx(usual)


def test_an_error_ends_what_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    target = host_target()
    monkeypatch.setattr(llvm_build, "BATCH", 1)
    with Building(target, workers=2) as building:
        building.add("nonsense")
        with pytest.raises(CompileError, match="LLVM refuses"):
            building.objects(["nonsense"])
    with pytest.raises(KeyError), Building(target, workers=2) as building:
        building.add(emit_kernel(scale("k", 0.5), target))
        raise KeyError


def test_declarations_of_kernels_that_are_built_together() -> None:
    """Kernels with declarations, constants and metadata of their own are one module, whose code is theirs."""
    target = host_target()
    kernels = [everything() for _ in range(2)]
    texts = [emit_kernel(kernel, target).replace("@everything", f"@e{i}") for i, kernel in enumerate(kernels)]
    texts.append(emit_kernel(scale("k", 0.5), target))
    (joined,) = build_many(texts, target, workers=1)
    for name in ("e0", "e1", "k"):
        link([joined], name)


def test_threads_of_the_user() -> None:
    target = host_target()
    text = emit_kernel(scale("k", 2.0), target)
    expected, results = build_object(text, target), []
    threads = [threading.Thread(target=lambda: results.append(build_object(text, target))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 6


def test_bad_text_is_a_compile_error_with_the_line() -> None:
    target = host_target()
    text = emit_kernel(scale("k", 2.0), target).replace("fmul <16 x float>", "fmul <16 x double>")
    with pytest.raises(CompileError, match=r"(?s):\d+:\d+: error.*fmul"):
        build_object(text, target)
    unterminated = "define i32 @f(i32 %x) {\n  %y = add i32 %z, 1\n  %z = add i32 %x, 1\n  ret i32 %y\n}\n"
    with pytest.raises(CompileError, match="does not dominate"):
        build_object(unterminated, target)
    with pytest.raises(CompileError, match="no-such"):
        build_object("", replace(target, triple="no-such-machine"))


@pytest.mark.parametrize("target", (ARM, baseline(), host_target()), ids=lambda t: f"{t.triple.split('-')[0]}-{t.cpu}")
def test_no_soft_float_calls(target: object) -> None:
    """Conversions of f16 and bf16 are instructions everywhere: nothing has to be linked for them."""
    assembly = build_assembly(emit_kernel(everything(), target), target)
    for name in ("__trunc", "__extend", "__gnu"):
        assert name not in assembly
    assert f16 in DTYPES and bf16 in DTYPES


def test_emitting_is_deterministic() -> None:
    target = host_target()
    assert emit_kernel(everything(), target) == emit_kernel(everything(), target)


def test_several_objects_in_one_library() -> None:
    target = host_target()
    objects = build_many([emit_kernel(scale(n, 2.0), target) for n in ("a", "b")], target)
    library, address = link(objects, "b")
    assert address
    assert list(library) == ["b"]


@pytest.mark.parametrize(("level", "lanes"), [("x86-64-v2", 4), ("x86-64-v3", 8), ("x86-64-v4", 16)])
def test_code_for_a_part_of_this_machine(level: str, lanes: int, tmp_path: Path) -> None:
    """The option `target` names the level: vectors are as long as there, and results are right."""
    if not machine().triple.startswith("x86_64"):
        pytest.skip("levels of x86-64")
    text = (
        "import graphc, numpy\n"
        "from graphc.codegen.llvm.host import host_target\n"
        "x = graphc.arange(1000.0).reshape(10, 100)\n"
        "y = (x @ x.t()).softmax(1) + x.half().float().sum(1)\n"
        "print(host_target().vector_bytes // 4, numpy.isfinite(y.numpy()).all(), tuple(y.shape), host_target().cpu)\n"
    )
    environment = {**os.environ, "GRAPHC_TARGET": level, "GRAPHC_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=False)
    try:
        limited(machine(), level)
    except InputError as error:
        assert done.returncode and str(error).splitlines()[0] in done.stderr
    else:
        assert done.stdout == f"{lanes} True (10, 10) {level}\n", done.stderr


def _runs(level: str) -> bool:
    try:
        limited(machine(), level)
    except InputError:
        return False
    return True


def test_levels_that_are_not_there_are_refused() -> None:
    with pytest.raises(OptionError, match="'x86-64-v9' is not one of '', 'x86-64-v2', 'x86-64-v3', 'x86-64-v4'"):
        TARGET.parse("x86-64-v9")
    with pytest.raises(InputError, match="x86-64-v4 is more than this machine, which lacks avx, avx2, avx512bw"):
        limited(SSE2, "x86-64-v4")
    with pytest.raises(InputError, match="x86-64-v3 is more than this machine, which is aarch64"):
        limited(ARM, "x86-64-v3")


def test_the_target_changes_within_a_process() -> None:
    """What was compiled for one target is not used for another, and is used for the same one again."""
    levels = [level for level in TARGET.choices if level and _runs(level)]
    x = graphc.tensor(np.arange(100, dtype=np.float32).reshape(10, 10))
    made: list[int] = []
    values: list[object] = []
    for level in (*levels, *levels):
        with scope(target=level):
            before = graphc.counters()["programs_built"]
            values.append((x @ x.t() - 0.1234).tolist())
            made.append(graphc.counters()["programs_built"] - before)
            assert host_target().cpu == level
    assert made == [1] * len(levels) + [0] * len(levels)
    assert all(value == values[0] for value in values)
