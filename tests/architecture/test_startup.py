"""What gets loaded when: `import graphc` and `graphc --help` must stay light."""

from __future__ import annotations

import json

import pytest

from tests.architecture.sources import run_python

LOADED = "import sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def loaded_after(code: str) -> set[str]:
    done = run_python("-W", "error", "-c", f"{code}\n{LOADED}")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_graphc_loads_no_compiler() -> None:
    unwanted = {"llvmlite", "networkx", "rich", "click", "torch", "numpy", "safetensors"}
    assert not loaded_after("import graphc") & unwanted


def test_a_tensor_loads_no_compiler() -> None:
    unwanted = {"llvmlite", "networkx", "rich", "click", "torch", "safetensors", "PIL"}
    assert not loaded_after("import graphc; graphc.ones(2, 3) + 1") & unwanted


def test_the_runtime_does_not_load_the_compiler() -> None:
    assert not loaded_after("import graphc_runtime") & {"graphc", "llvmlite", "click", "rich", "networkx"}


@pytest.mark.parametrize("flags", [["--help"], ["--version"]], ids=" ".join)
def test_help_loads_neither_numpy_nor_llvmlite(flags: list[str]) -> None:
    run = f"try:\n    main({flags!r})\nexcept SystemExit as stop:\n    assert not stop.code, stop.code"
    assert not loaded_after(f"from graphc.cli.main import main\n{run}") & {"numpy", "llvmlite", "networkx", "torch"}


@pytest.mark.parametrize("module", ["tensors.tensor", "native.operators", "activations", "jit", "nn.functional", "api"])
def test_any_module_may_be_the_first_to_be_imported(module: str) -> None:
    done = run_python("-W", "error", "-c", f"import graphc.{module}, graphc; graphc.ones(2) + 1")
    assert done.returncode == 0, done.stderr
