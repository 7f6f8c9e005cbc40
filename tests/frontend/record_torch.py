"""Write `torch_results.json`: what PyTorch prints for each of `cases.py`. Run it with a Python that has PyTorch.

python tests/frontend/record_torch.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("torch_results.json")


def outcome(function: Any, module: Any) -> str:
    """The text of the result, or the error's builtin type and first line."""
    try:
        return repr(function(module))
    except Exception as error:
        kind = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
        return f"!{kind.__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def promotion(torch: Any) -> dict[str, str]:
    """Result types of `+` for all pairs of types in all classes of operands."""
    names = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    found = {}
    for x in names:
        left, left0 = torch.ones(1, dtype=getattr(torch, x)), torch.ones((), dtype=getattr(torch, x))
        for number in (True, 2, 2.5):
            found[f"{x} + {number}"] = str((left + number).dtype)
            found[f"{x}[] + {number}"] = str((left0 + number).dtype)
        for y in names:
            right, right0 = torch.ones(1, dtype=getattr(torch, y)), torch.ones((), dtype=getattr(torch, y))
            found[f"{x} + {y}"] = str((left + right).dtype)
            found[f"{x} + {y}[]"] = str((left + right0).dtype)
            found[f"{x}[] + {y}[]"] = str((left0 + right0).dtype)
            found[f"{x} / {y}"] = str((left / right).dtype)
    return found


if __name__ == "__main__":
    import torch

    from tests.frontend.cases_tensors import CASES

    results = {
        "cases": {name: outcome(function, torch) for name, function in CASES.items()},
        "promotion": promotion(torch),
    }
    FILE.write_text(json.dumps(results, indent=0, sort_keys=True, ensure_ascii=True) + "\n")
