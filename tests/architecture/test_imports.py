"""The import matrix: which layer may import which, and which other packages. Cycles and hidden imports are errors."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass

import networkx as nx

from tests.architecture.sources import files, imports, module_name, modules, package_files, relative, tree, within

ABOVE_ALL = ("graphc.cli",)
LIBRARY = ("graphc.nn", "graphc.optim", "graphc.autograd", "graphc.distributions", "graphc.utils", "graphc.vision")
COMPILER = (
    "graphc.errors",
    "graphc.options",
    "graphc.ir",
    "graphc.passes",
    "graphc.codegen",
    "graphc.pipeline",
    "graphc.compiled",
    "graphc_runtime",
)


@dataclass(frozen=True)
class Layer:
    """What the modules under `prefix` may import: from the project, and from other distributions."""

    prefix: str
    project: tuple[str, ...]
    third_party: tuple[str, ...] = ()


# The longest prefix that fits decides. The order is the one in which a program passes through the layers, lowest first.
LAYERS = (
    Layer("graphc_runtime", ("graphc_runtime",), ("numpy", "platformdirs")),
    Layer("graphc_runtime.devices.cpu", ("graphc_runtime",), ("numpy", "llvmlite")),
    Layer("graphc_runtime.devices.cuda_pycuda", ("graphc_runtime",), ("numpy", "pycuda")),
    Layer("graphc_runtime.devices.cuda_bindings", ("graphc_runtime",), ("cuda",)),
    Layer("graphc.errors", ()),
    Layer("graphc.options", ("graphc_runtime.options",)),
    Layer("graphc.ir", ("graphc.ir", "graphc.errors"), ("numpy", "ml_dtypes")),
    Layer("graphc.ir.networkx_export", ("graphc.ir", "graphc.errors"), ("networkx",)),
    Layer("graphc.passes", ("graphc.passes", "graphc.ir", "graphc.errors"), ("numpy", "networkx")),
    Layer("graphc.codegen", ("graphc.codegen", "graphc.ir", "graphc.errors", "graphc_runtime.artifact"), ("numpy",)),
    Layer(
        "graphc.codegen.llvm",
        (
            "graphc.codegen",
            "graphc.ir",
            "graphc.errors",
            "graphc.options",
            "graphc_runtime.artifact",
            "graphc_runtime.machine",
        ),
        ("numpy", "llvmlite"),
    ),
    Layer(
        "graphc.codegen.cuda",
        ("graphc.codegen", "graphc.ir", "graphc.errors", "graphc_runtime.artifact", "graphc_runtime.machine"),
        ("numpy",),
    ),
    Layer("graphc.pipeline", COMPILER),
    Layer("graphc.compiled", ("graphc", *COMPILER)),
    # The front end: Tensor, functional, random, trace, compile.
    Layer("graphc", ("graphc",), ("numpy", "ml_dtypes")),
    Layer("graphc.saving", ("graphc",), ("numpy", "safetensors")),
    # The library: public names only, so that it could live outside this repository.
    *(Layer(prefix, ("graphc", *LIBRARY), ("numpy", "safetensors")) for prefix in LIBRARY if prefix != "graphc.vision"),
    Layer("graphc.vision", ("graphc", *LIBRARY), ("numpy", "PIL")),
    Layer("graphc.__main__", ("graphc.cli",)),  # python -m graphc
    Layer("graphc.cli", ("graphc", "graphc_runtime"), ("click", "rich", "numpy", "llvmlite", "safetensors", "PIL")),
)

# Packages that are optional or slow to load: they may be imported where they are used.
LATE_PACKAGES = (
    "llvmlite",
    "pycuda",
    "cuda",
    "networkx",
    "rich",
    "click",
    "PIL",
    "platformdirs",
    "safetensors",
    "ml_dtypes",
)
# Files that load modules by name, on first use: the public names, the list of passes, the list of verbs.
LAZY_REGISTRIES = ("graphc/__init__.py", "graphc/passes/registry.py", "graphc/cli/main.py")
# What the library may import besides the package itself: modules that users import too, the hook through which
# optimizers give hyper-parameters to programs at run time, and the padding of sequences.
PUBLIC_MODULES = (
    "graphc.errors",
    "graphc.functional",
    "graphc.gradients",
    "graphc.linalg",
    "graphc.recorder",
    "graphc.sequences",
    *LIBRARY,
)


def layer_of(module: str) -> Layer:
    fitting = [layer for layer in LAYERS if within(module, layer.prefix)]
    return max(fitting, key=lambda layer: len(layer.prefix))


def is_ours(module: str) -> bool:
    return within(module, "graphc") or within(module, "graphc_runtime")


def is_third_party(module: str) -> bool:
    return not is_ours(module) and module.partition(".")[0] not in sys.stdlib_module_names


def allows(layer: Layer, module: str) -> bool:
    if not is_ours(module):
        return not is_third_party(module) or module.partition(".")[0] in layer.third_party
    if layer.prefix == "graphc":
        return not any(within(module, prefix) for prefix in (*LIBRARY, *ABOVE_ALL))
    if layer.prefix in LIBRARY:
        return module == "graphc" or any(within(module, prefix) for prefix in PUBLIC_MODULES)
    return any(within(module, prefix) for prefix in layer.project)


def test_each_layer_imports_only_what_its_row_allows() -> None:
    wrong: list[str] = []
    for name, path in modules().items():
        layer = layer_of(name)
        wrong += [
            f"{relative(path)}:{item.line} imports {item.module}; its layer is {layer.prefix}"
            for item in imports(path)
            if not item.typing and not allows(layer, item.module)
        ]
    assert not wrong, "\n".join(wrong)


def test_every_rule_names_an_existing_layer() -> None:
    stale = [layer.prefix for layer in LAYERS if not any(within(name, layer.prefix) for name in modules())]
    assert not stale, f"rules for layers that do not exist: {stale}"


def test_nothing_imports_the_command_line() -> None:
    wrong = [
        f"{relative(path)}:{item.line}"
        for path in package_files()
        for item in imports(path)
        if within(item.module, "graphc.cli")
        and not item.typing
        and not any(within(module_name(path), prefix) for prefix in ("graphc.cli", "graphc.__main__"))
    ]
    assert not wrong, wrong


def test_no_import_cycles() -> None:
    graph = nx.DiGraph()
    for name, path in modules().items():
        used = {item.module for item in imports(path) if not item.typing}
        graph.add_edges_from((name, module) for module in used if module in modules())
    # A package's `__init__` lists the names of its submodules, which load the package first: that is not a cycle.
    for name, path in modules().items():
        if path.name == "__init__.py":
            graph.remove_edges_from([(user, name) for user in modules() if within(user, name)])
    cycles = [sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1]
    assert not cycles, cycles


def test_no_import_inside_a_function() -> None:
    wrong = [
        f"{relative(path)}:{item.line} in {item.inside}: {item.module}"
        for path in package_files()
        for item in imports(path)
        if item.inside and item.module.partition(".")[0] not in LATE_PACKAGES
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_are_loaded_by_name_only_in_the_lazy_registries() -> None:
    by_name = {"__import__", "import_module", "importlib.import_module"}
    wrong = [
        f"{relative(path)}:{node.lineno}"
        for path in package_files()
        if not relative(path).endswith(LAZY_REGISTRIES)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in by_name
    ]
    assert not wrong, "\n".join(wrong)


def test_examples_use_public_names_only() -> None:
    for path in files(folders=("examples",)):
        found = imports(path)
        private = [i.module for i in found if is_ours(i.module) and "._" in i.module]
        assert not private, f"{relative(path)}: {private}"
        beside = {p.stem for p in path.parent.glob("*.py")}
        outside = {i.module for i in found if is_third_party(i.module)} - beside
        assert outside <= {"numpy"}, f"{relative(path)}: {outside}"
