"""Rules on the files themselves: size, docstrings, layout, words that must not stand anywhere."""

from __future__ import annotations

import ast
import re

from tests.architecture.sources import PACKAGES, ROOT, files, package_files, relative, tree

LONGEST = 500
# Files that may be longer, each with the reason.
LONGER: dict[str, str] = {}

FORBIDDEN_CALLS = {"eval", "exec", "pickle.load", "pickle.loads", "os.system", "marshal.loads", "yaml.load"}
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def test_files_are_short() -> None:
    long = {relative(p): len(p.read_text(encoding="utf-8").splitlines()) for p in files()}
    wrong = {name: lines for name, lines in long.items() if lines > LONGEST and name not in LONGER}
    assert not wrong, f"more than {LONGEST} lines: {wrong}"
    assert all(long.get(name, 0) > LONGEST for name in LONGER), "an exception that is not needed any more"


def test_every_package_folder_is_a_package() -> None:
    missing = sorted({relative(p.parent) for p in package_files() if not (p.parent / "__init__.py").exists()})
    assert not missing, f"folders without __init__.py: {missing}"
    assert not (ROOT / "runtime" / "__init__.py").exists(), "runtime/ is a source root, not a package"


def test_modules_and_public_classes_have_docstrings() -> None:
    wrong: list[str] = []
    for path in package_files():
        module = tree(path)
        if not ast.get_docstring(module):
            wrong.append(relative(path))
        wrong += [
            f"{relative(path)}:{node.lineno} class {node.name}"
            for node in module.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
        ]
    assert not wrong, "no docstring: " + ", ".join(wrong)


def test_nothing_is_evaluated_or_unpickled() -> None:
    wrong: list[str] = []
    for path in files(folders=("graphc", "runtime")):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                shell = any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords)
                if shell or ast.unparse(node.func) in FORBIDDEN_CALLS:
                    wrong.append(f"{relative(path)}:{node.lineno} {ast.unparse(node.func)}")
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module}
                if names & FORBIDDEN_MODULES:
                    wrong.append(f"{relative(path)}:{node.lineno} imports {names & FORBIDDEN_MODULES}")
    assert not wrong, "\n".join(wrong)


def test_no_unfinished_work() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|except( Exception| BaseException)?:\s*pass")
    wrong = [
        f"{relative(path)}: {match.group().strip()}"
        for path in files(folders=("graphc", "runtime", "examples", "benchmarks"))
        for match in marks.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_path_of_a_single_machine() -> None:
    absolute = re.compile(r"""(?<![\w.:/])/(?:home|root|Users|work|mnt)/[\w.-]+""")
    pages = files(".md", ("docs", "examples", "benchmarks", "runtime"))
    wrong = [
        f"{relative(path)}: {match.group()}"
        for path in [*files(), *pages, *ROOT.glob("*.md"), ROOT / "Makefile"]
        for match in absolute.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_architecture_page_lists_the_folders() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `((?:graphc|runtime)[\w/]*)/` \|", text, re.MULTILINE))
    tree_ = {relative(p.parent) for p in package_files()}
    present = {folder for folder in tree_ if len(folder.split("/")) <= 2} | {"runtime/graphc_runtime"}
    assert listed == present, f"not listed: {sorted(present - listed)}; listed but absent: {sorted(listed - present)}"


def test_both_packages_are_typed() -> None:
    assert all((package / "py.typed").exists() for package in PACKAGES)


def test_functions_of_tensors_warn_so_that_it_is_counted() -> None:
    """Calls that warned are not recorded in native code, which would be silent."""
    library = tuple(f"graphc/{name}/" for name in ("nn", "optim", "autograd", "utils", "vision", "cli"))
    named = {relative(p): p.read_text(encoding="utf-8") for p in package_files()}
    wrong = [name for name, text in named.items() if "warnings.warn(" in text and not name.startswith(library)]
    assert [name for name in wrong if name.startswith("graphc/")] == ["graphc/warned.py"]
