"""`graphc trace`: functions, modules and graphs in text form, at every stage."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from graphc.codegen.cuda.build import compiler_version
from graphc.codegen.llvm.host import host_target
from graphc.errors import CompileError
from graphc.ir import parse_graph, parse_graphs
from graphc.ir.narrow import factor_dtype
from graphc.ir.types import f16
from graphc.pipeline import STAGES
from tests.cli.running import ROOT, run

GRAPH_STAGES = ("traced", "simplified", "fused")
LENET = f"{ROOT / 'examples' / 'lenet.py'}:Net"
LENET_ARGS = ("--args", "x=f32[64,1,32,32]")

SOURCE = """
import graphc
import graphc.nn as nn


def f(x, y):
    return (x * y + 1.0).relu()


def bad_shapes(x, y):
    return x @ y


def prints(x):
    print("a remark")
    return x + 1.0


def raises(x):
    raise KeyError("from the user's file")


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x):
        return self.inner(x)


layer = Layer()
number = 3


class Sized(nn.Module):
    def __init__(self, size, scale=1.0):
        super().__init__()


def gives_a_number(x):
    return 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "functions.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize("stage", STAGES)
def test_lenet_prints_at_every_stage(stage: str) -> None:
    result = run("trace", LENET, *LENET_ARGS, "--stage", stage)
    if stage in ("ptx", "sass") and ("no CUDA compiler" in result.stderr or "no tool to disassemble" in result.stderr):
        pytest.skip(result.stderr)
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) > 20
    if stage in GRAPH_STAGES:
        (graph,) = parse_graphs(result.stdout)
        assert str(graph.outputs[0].type) == "f32[64,10]"
    elif stage == "llvm":
        assert "define" in result.stdout and f"<{host_target().lanes(4)} x float>" in result.stdout
    elif stage == "asm":
        assert ".text" in result.stdout


@pytest.mark.parametrize("stage", GRAPH_STAGES)
def test_printed_graphs_parse_to_an_equal_graph_and_pass_opt(stage: str) -> None:
    text = run("trace", LENET, *LENET_ARGS, "--stage", stage, "--grad").stdout
    graph = parse_graph(text)
    again = run("opt", "-", stdin=text)
    assert again.exit_code == 0, again.stderr
    assert again.stdout == f"{graph}\n"
    checked = run("opt", "-", "-p", "decompose,simplify", "--verify-each", stdin=text)
    assert checked.exit_code == 0, checked.stderr
    assert [o.type for o in parse_graph(checked.stdout).outputs] == [o.type for o in graph.outputs]


def test_gradients_of_a_module_include_its_parameters() -> None:
    graph = parse_graph(run("trace", LENET, *LENET_ARGS, "--grad").stdout)
    shapes = [str(o.type) for o in graph.outputs]
    assert shapes[0] == "f32[]"
    inputs = [str(x.type) for x in graph.inputs]
    assert len(inputs) == 11 and sorted(shapes[1:]) == sorted(inputs)
    assert {"conv1.weight", "fc3.bias"} <= {x.text("name") for x in graph.inputs}
    # Every gradient depends on something: none is a constant zero.
    assert all(output.op != "constant" for output in graph.outputs)


def test_function_with_named_and_unnamed_arguments(file: Path) -> None:
    named = run("trace", f"{file}:f", "--args", "y=f32[3] x=f32[4,3]")
    unnamed = run("trace", f"{file}:f", "--args", "f32[4,3], f32[3]")
    assert named.exit_code == unnamed.exit_code == 0, named.stderr + unnamed.stderr
    graph = parse_graph(unnamed.stdout)
    assert [(x.text("name"), str(x.type)) for x in graph.inputs] == [("x", "f32[4,3]"), ("y", "f32[3]")]
    assert [o.type for o in parse_graph(named.stdout).outputs] == [o.type for o in graph.outputs]


def test_module_object_and_dotted_name(file: Path) -> None:
    for name in ("layer", "Layer", "layer.inner"):
        result = run("trace", f"{file}:{name}", "--args", "f32[5,3]")
        assert result.exit_code == 0, result.stderr
        assert str(parse_graph(result.stdout).outputs[0].type) == "f32[5,2]"


def test_locations_name_the_users_line(file: Path) -> None:
    result = run("trace", f"{file}:f", "--args", "f32[4] f32[4]", "--loc")
    assert f'"{file}":7' in result.stdout
    assert parse_graph(result.stdout).outputs[0].locs


def test_prints_of_the_users_code_do_not_mix_with_the_data(file: Path) -> None:
    result = run("trace", f"{file}:prints", "--args", "f32[4]")
    assert result.exit_code == 0
    assert parse_graph(result.stdout).name == "prints"
    assert "a remark" in result.stderr


def test_json_and_output_file(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    result = run("trace", f"{file}:f", "--args", "f32[4] f32[4]", "--stage", "simplified", "--json", "-o", target)
    assert result.exit_code == 0 and result.stdout == ""
    data = json.loads(target.read_text())
    assert data["version"] == 1 and data["stage"] == "simplified"
    assert data["graphs"] == [parse_graph(data["texts"][0]).name]


def test_text_graphs_from_a_file_and_stdin(tmp_path: Path) -> None:
    text = "graph @g(%x: f32[4]) {\n  %1 = mul %x, %x : f32[4]\n  return %1\n}\n"
    path = tmp_path / "g.gir"
    path.write_text(text)
    assert run("trace", path).stdout == text
    assert run("trace", "-", stdin=text).stdout == text
    result = run("trace", path, "--grad", "--stage", "simplified")
    assert "sum of the result f32[4]" in result.stderr
    assert [str(o.type) for o in parse_graph(result.stdout).outputs] == ["f32[]", "f32[4]"]
    assert run("trace", path, "--args", "f32[4]").exit_code == 2


def test_unknown_names_say_what_exists(file: Path) -> None:
    cases = [
        ((f"{file}:g", "--args", "f32[2]"), "Layer"),
        ((f"{file}:layr", "--args", "f32[2]"), "Did you mean layer"),
        ((str(file),), "There is: Layer, Sized, bad_shapes, f, gives_a_number, layer, prints, raises"),
        ((f"{file.with_name('function.py')}:f",), "Did you mean functions.py"),
        ((f"{file}:f", "--stage", "simple"), "simplified"),
        ((f"{file}:f", "--args", "x=f33[2]"), "Did you mean f32"),
        ((f"{file}:f", "--args", "x=2"), "f32[64,1,32,32]"),
        ((f"{file}:f", "--args", "x=f32[2]"), "missing a required argument: 'y'"),
        ((f"{file}:f", "--args", "z=f32[2]"), "(x, y)"),
        ((f"{file}:number",), "cannot be called"),
        ((f"{file}:Sized",), f"net = Sized(...), and name that: {file}:net"),
        ((f"{file.parent}:f",), f"{file.parent} is a folder. In {file.parent} there is: functions.py"),
        ((f"{file}:f", "--args", "i64[2] i64[2]", "--grad"), "--grad: f has no float input"),
    ]
    for arguments, expected in cases:
        result = run("trace", *arguments)
        assert result.exit_code == 2, (arguments, result.stderr)
        assert expected in result.stderr, (arguments, result.stderr)
        assert "Traceback" not in result.stderr


def test_errors_of_the_users_code_show_its_lines_only(file: Path) -> None:
    result = run("trace", f"{file}:raises", "--args", "f32[2]")
    assert result.exit_code == 1
    assert f'File "{file}", line 20' in result.stderr and "KeyError" in result.stderr
    assert "cli/target.py" not in result.stderr
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert result.stderr.endswith("\nError: KeyError of your code while raises was traced\n")


def test_errors_say_at_which_step_the_users_code_failed(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    for source, said in (
        ("1 / 0\n", f"ZeroDivisionError of your code while {file} was run"),
        ("import sys\nsys.exit('enough')\n", f"sys.exit('enough') was called while {file} was run"),
        ("class C:\n    def __init__(self):\n        1 / 0\n", "ZeroDivisionError of your code while C() was made"),
    ):
        file.write_text(source)
        result = run("trace", f"{file}:C")
        assert result.exit_code == 1 and result.stderr.endswith(f"Error: {said}\n")


def test_the_file_sees_its_own_name_as_the_command_line(tmp_path: Path) -> None:
    file, before = tmp_path / "arguments.py", list(sys.argv)
    file.write_text("import sys\n\nassert sys.argv == [__file__]\n\n\ndef f(x):\n    return x + 1\n")
    result = run("trace", f"{file}:f", "--args", "f32[2]")
    assert result.exit_code == 0, result.stderr
    assert sys.argv == before
    file.write_text("1 / 0\n")
    assert run("trace", f"{file}:f").exit_code == 1 and sys.argv == before


def test_a_result_that_is_no_tensor_is_named(file: Path) -> None:
    result = run("trace", f"{file}:gives_a_number", "--args", "f32[2]")
    assert result.exit_code == 1 and "holds a value of type int; it may hold tensors only" in result.stderr


def test_gradients_of_text_without_float_inputs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.gir"
    path.write_text("graph @g(%x: i64[4]) {\n  return %x\n}\n")
    result = run("trace", path, "--grad")
    assert result.exit_code == 2 and "--grad: @g has no float input" in result.stderr


def test_shape_errors_name_both_sides_and_the_line(file: Path) -> None:
    result = run("trace", f"{file}:bad_shapes", "--args", "f32[2,3] f32[4,5]")
    assert result.exit_code == 1
    assert "3" in result.stderr and "4" in result.stderr
    assert result.stderr.count(f"at {file}:11") == 1


def test_autocast_is_that_of_the_device(tmp_path: Path) -> None:
    file = tmp_path / "mixed.py"
    file.write_text('import graphc\n\ndef f(x, y):\n    with graphc.autocast("cuda"):\n        return x @ y\n')
    call = ("trace", f"{file}:f", "--args", "x=f32[512,512] y=f32[512,512]")
    on_gpu, on_cpu = (run(*call, "--device", device) for device in ("cuda:0", "cpu"))
    (product,) = (n for n in parse_graph(on_gpu.stdout).nodes if n.op == "contract")
    assert factor_dtype(product) is f16 and not on_gpu.stderr
    assert "f16" not in on_cpu.stdout
    assert "gc_warp_mma_f16(v" in run(*call, "--stage", "cuda").stdout


def test_cuda_is_one_translation_unit_on_any_machine(file: Path) -> None:
    result = run("trace", f"{file}:f", "--args", "x=f32[4,3] y=f32[3]", "--stage", "cuda")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count('extern "C" __global__') == 1 and "#include <" not in result.stdout
    same = run("trace", f"{file}:f", "--args", "x=f32[4,3] y=f32[3]", "--stage", "cuda", "--device", "cuda")
    assert same.stdout == result.stdout
    loops = run("trace", f"{file}:f", "--args", "x=f32[4,3] y=f32[3]", "--stage", "loops", "--device", "cuda")
    assert loops.exit_code == 0 and "kernel" in loops.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stage", "cuda", "--arch", "sm_9x"), "--arch sm_9x: 'sm_9x' is no architecture"),
        (("--stage", "cuda", "--arch", "sm_60"), "sm_60 is too old"),
        (("--stage", "loops", "--arch", "sm_80"), "--arch sm_80 is of a GPU: add --device cuda"),
        (("--device", "tpu"), "unknown device 'tpu'"),
    ],
)
def test_wrong_devices_and_architectures(file: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("trace", f"{file}:f", "--args", "x=f32[4,3] y=f32[3]", *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_stages_of_another_device_are_refused(file: Path) -> None:
    for stage, device in (("llvm", "cuda"), ("cuda", "cpu")):
        result = run("trace", f"{file}:f", "--args", "x=f32[4,3] y=f32[3]", "--stage", stage, "--device", device)
        assert result.exit_code == 1 and f"stage '{stage}' is one of device" in result.stderr


def test_ptx_names_the_architecture(file: Path) -> None:
    try:
        compiler_version()
    except CompileError as error:
        pytest.skip(str(error))
    result = run("trace", f"{file}:f", "--args", "x=f32[4,3] y=f32[3]", "--stage", "ptx", "--arch", "sm_80")
    assert result.exit_code == 0, result.stderr
    assert ".target sm_80" in result.stdout and ".visible .entry" in result.stdout
