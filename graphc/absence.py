"""What PyTorch has and graphc does not: asked for, it is named."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("absent.txt")  # written by tests/differential/document.py, as docs/pytorch.md is


# Modules of PyTorch of which graphc has nothing.
_NAMES = """
ao classes compiler contrib cpu distributed export fft futures fx hub library masked monitor mps mtia
multiprocessing nested onnx ops overrides package profiler quantization serialization signal sparse types xpu
"""
MODULES = frozenset(_NAMES.split())


@cache
def absent_names() -> frozenset[str]:
    """Dotted names, such as `nn.functional.lp_pool3d`."""
    return frozenset(FILE.read_text(encoding="utf-8").split())


def no_attribute(owner: str, name: str, prefix: str = "") -> AttributeError:
    """The error for `owner.name`, which does not exist; `prefix` is the owner's dotted path in PyTorch."""
    message = f"{owner} has no attribute {name!r}"
    dotted = f"{prefix}.{name}" if prefix else name
    if dotted in MODULES:
        message += f": PyTorch has torch.{dotted}, graphc has nothing of that module"
    elif dotted in absent_names():
        message += f": PyTorch has torch.{dotted}, graphc does not (docs/pytorch.md lists what is missing and why)"
    return AttributeError(message, name=name)
