"""What a verb works on: `FILE.py:callable` or a `.gir` text, and the types of its arguments."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from graphc.cli.common import missing_file, unknown
from graphc.ir import DTYPES, TensorType

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

    The file runs as a module, so its `if __name__ == "__main__"` part does not. Errors of the file pass through.
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
        found = found()
    if not callable(found):
        raise click.UsageError(f"{name} in {file} is {type(found).__name__}, which cannot be called")
    return found


def _import_file(path: Path) -> Any:
    name = f"graphc_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise click.UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    spec.loader.exec_module(module)
    return module
