"""What a verb works on: `FILE.py:callable` or a `.gir` text, and the types of its arguments."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from graphc.cli.common import missing_file, note, read_text, unknown
from graphc.errors import GraphcError
from graphc.ir import DTYPES, Graph, TensorType, parse_graphs, verify

_PACKAGE = str(Path(__file__).parents[1])
_TYPE = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)\s*=\s*)?(?P<dtype>[a-z]+\d*)\[(?P<shape>[\d,\s]*)\]")


@dataclass(frozen=True)
class Argument:
    """One entry of `--args`: `x=f32[64,1,32,32]`, or without the name for the next position."""

    name: str
    type: TensorType


def parse_arguments(text: str) -> list[Argument]:
    """The entries of `--args`, separated by spaces, commas or semicolons. Raises a usage error that shows the form."""
    dtypes = {d.name: d for d in DTYPES}
    found: list[Argument] = []
    position = 0
    while position < len(text):
        if text[position] in " ,;":
            position += 1
            continue
        match = _TYPE.match(text, position)
        if match is None:
            raise click.UsageError(
                f'--args: cannot read {text[position:]!r}; it goes like this: --args "x=f32[64,1,32,32] y=i64[64]"'
            )
        if match["dtype"] not in dtypes:
            raise unknown("element type", match["dtype"], dtypes)
        shape = tuple(int(n) for n in match["shape"].split(",") if n.strip())
        found.append(Argument(match["name"] or "", TensorType(dtypes[match["dtype"]], shape)))
        position = match.end()
    return found


def load_callable(target: str) -> Callable[..., Any]:
    """The callable named by `FILE.py:name` (dots reach into classes and objects). A module class is instantiated.

    The file runs as a module, so its `if __name__ == "__main__"` part does not.
    """
    file, colon, name = target.rpartition(":")
    if not colon:
        file, name = target, ""
    path = Path(file)
    if not path.is_file():
        raise missing_file(path, ".py")
    module = _import_file(path)
    own = ((n, v) for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__)
    public = sorted(n for n, v in own if callable(v))
    if not name:
        raise click.UsageError(f"which callable of {file}? Write {file}:NAME. There is: {', '.join(public) or 'none'}.")
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise unknown("callable", name, public, f"(in {file})")
        found = getattr(found, part)
    if inspect.isclass(found):
        _check_constructor(found, file, name)
        with user_code(f"{name}() was made"):
            found = found()
    if not callable(found):
        raise click.UsageError(f"{name} in {file} is {type(found).__name__}, which cannot be called")
    return found


def _check_constructor(kind: type, file: str, name: str) -> None:
    """A usage error when the class cannot be made without arguments."""
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise click.UsageError(
            f"the constructor of {name} in {file} needs arguments ({error}): make an object in the file, such as "
            f"net = {name}(...), and name that: {file}:net"
        ) from error


def read_graphs(name: str) -> list[Graph]:
    """The verified graphs of a text file, or of stdin for `-`. An error shows line, column and a caret."""
    source = "<stdin>" if name == "-" else name
    graphs = parse_graphs(read_text(name, ".gir"), source)
    if not graphs:
        raise click.UsageError(f"{source} holds no graph; one starts with: graph @main(%x: f32[2]) {{")
    return [verify(graph) for graph in graphs]


@contextmanager
def user_code(step: str) -> Iterator[None]:
    """Around code of the user's file. What it prints goes to stderr: stdout is for data.

    graphc's errors name the user's line; all others show the user's frames, and then that they came while `step`.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except click.ClickException:
        raise
    except GraphcError as error:
        if not getattr(error, "__notes__", ()):
            frames = [(f.f_code.co_filename, line) for f, line in traceback.walk_tb(error.__traceback__)]
            theirs = [f"{file}:{line}" for file, line in frames if not _is_machinery(file)]
            if theirs and str(error) == error.message:  # else it tells its line itself
                error.add_note(f"at {theirs[-1]}")
        raise
    except SystemExit as error:
        raise click.ClickException(f"sys.exit({error.code!r}) was called while {step}") from error
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        note("".join(traceback.format_exception(error.with_traceback(trace))).rstrip())
        raise click.ClickException(f"{type(error).__name__} of your code while {step}") from error


def _is_machinery(file: str) -> bool:
    return file.startswith(("<frozen", _PACKAGE)) or file == contextmanager.__code__.co_filename


def bind(name: str, function: Callable[..., Any], arguments: list[Argument]) -> inspect.BoundArguments:
    """The arguments in the order of the function's parameters. Raises a usage error that shows the signature."""
    signature = inspect.signature(getattr(function, "forward", function))
    unnamed = [a for a in arguments if not a.name]
    try:
        return signature.bind(*unnamed, **{a.name: a for a in arguments if a.name})
    except TypeError as error:
        raise click.UsageError(
            f'--args does not fit {name}{signature}: {error}. It goes like this: --args "x=f32[64,1,32,32]"'
        ) from error


def _import_file(path: Path) -> Any:
    """The file as a module. It sees itself as the program that runs: its name alone in `sys.argv`."""
    name = f"graphc_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise click.UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    own = sys.argv
    sys.argv = [str(path)]
    try:
        with user_code(f"{path} was run"):
            spec.loader.exec_module(module)
    finally:
        sys.argv = own
    return module
