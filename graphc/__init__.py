"""graphc: a graph compiler for tensors. PyTorch-shaped code is recorded, differentiated, fused and compiled to native
code.

The names are PyTorch's: `import graphc as torch`. They are loaded when the first of them is used, so that `import
graphc` alone is light.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from graphc.absence import no_attribute
from graphc.collecting import no_collection

if TYPE_CHECKING:
    from graphc import (
        accelerator,
        amp,
        autograd,
        backends,
        cli,
        codegen,
        compiled,
        cuda,
        distributions,
        functional,
        ir,
        linalg,
        nn,
        optim,
        passes,
        pipeline,
        return_types,
        testing,
        trial,
        tuning,
        utils,
        version,
        vision,
    )
    from graphc.api import *  # noqa: F403

__version__ = "0.1.0"

_SUBMODULES = frozenset(
    (
        *(
            "accelerator",
            "amp",
            "backends",
            "autograd",
            "cli",
            "distributions",
            "func",
            "codegen",
            "errors",
            "functional",
            "ir",
            "linalg",
            "nn",
            "optim",
            "passes",
            "compiled",
            "pipeline",
            "return_types",
            "special",
            "testing",
            "trial",
            "tuning",
            "utils",
            "version",
            "vision",
        ),
        *("backward", "cuda", "dtypes", "programs", "random", "recorder", "tensors"),
    )
)


def __getattr__(name: str) -> object:
    if name.startswith("_"):
        raise no_attribute("module 'graphc'", name)
    # Modules before names: what makes the names says `from graphc import ...` itself.
    if find_spec(f"graphc.{name}") is not None:
        with no_collection():
            return import_module(f"graphc.{name}")
    with no_collection():
        api = import_module("graphc.api")
    try:
        found = getattr(api, name)
    except AttributeError:
        raise no_attribute("module 'graphc'", name) from None
    setattr(sys.modules[__name__], name, found)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, *(n for n in dir(import_module("graphc.api")) if not n.startswith("_"))})
