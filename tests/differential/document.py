"""Write docs/pytorch.md and graphc/absent.txt: which of PyTorch's public names graphc has.

Run it with a Python that has PyTorch: python -m tests.differential.document
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import graphc
from graphc.ir.opdef import OPS
from tests.differential.differences import DIFFERENCES, HOST_NOTES
from tests.differential.samples import OPERATORS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "pytorch.md"
ABSENT = ROOT / "graphc" / "absent.txt"

# Why a name is missing, by the first pattern that fits.
REASONS: tuple[tuple[str, str], ...] = (
    (
        "sparse tensors",
        r"sparse|coalesce|(crow|ccol|col|row)_indices|^(hsmm|hspmm|smm|spmm|saddmm|dsmm|sspaddmm)|to_dense|^indices"
        r"|^values|dense_dim|nnz|to_padded_tensor",
    ),
    ("quantised tensors", r"quant|^q_|fbgemm|int_repr|choose_qparams"),
    ("one vendor's library", r"miopen|cudnn|mkldnn"),
    ("complex numbers", r"complex|polar|fft|hfft|stft|istft|chalf|cfloat|cdouble|^freq|conj|^eig"),
    ("named dimensions", r"names|align_|rename"),
    (
        "devices other than the CPU",
        r"cuda|ipu|xpu|hpu|xla|mtia|vulkan|maia|mps|share_memory|is_shared|record_stream|pinned",
    ),
    (
        "inner part of another operator",
        r"native_|batch_norm_|_copy$|^unsafe_|conv_tbc|^convolution$|_generator$|grid_sampler|sym_|lstm|gru|rnn_"
        r"|norm_except|slice_inverse|with_indices|_no_training|bag_padding|_backward|_update_stats",
    ),
    (
        "PyTorch's own machinery",
        r"torch_function|dlpack_device|storage|hash_tensor|reinforce|module_load|_ex$|is_distributed|dispatch|wrapped"
        r"|vitals|functorch|compiled|deterministic|anomaly|autocast|jit|import_ir|parse_|fork|wait|threads",
    ),
)


def reason(name: str) -> str:
    return next((why for why, pattern in REASONS if re.search(pattern, name)), "not written")


def public(module: Any) -> list[str]:
    return [n for n in getattr(module, "__all__", dir(module)) if not n.startswith("_")]


def classes(module: Any, kind: type) -> list[str]:
    return [
        n for n in public(module) if inspect.isclass(getattr(module, n, None)) and issubclass(getattr(module, n), kind)
    ]


# Functions whose own name is not the one that they have in their module.
_PUBLIC = {"log_sigmoid": "logsigmoid"}


def namespaces(torch: Any) -> dict[str, list[str]]:
    """PyTorch's public names by dotted prefix: functions that it lets others override, and the library's classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        overridable = torch.overrides.get_overridable_functions()
    found = {
        "": [*overridable[torch], *overridable[torch.functional]],
        "Tensor": overridable[torch.Tensor],
        "nn.functional": overridable[torch.nn.functional],
        "linalg": overridable[torch.linalg],
        "special": overridable[torch.special],
    }
    names = {
        k: [n for n in {_PUBLIC.get(f.__name__, f.__name__.removeprefix(f"{k}_")) for f in v} if not n.startswith("_")]
        for k, v in found.items()
    }
    fixed = [
        f for f in torch.overrides.get_ignored_functions() if getattr(torch, getattr(f, "__name__", ""), None) is f
    ]
    names[""] += [f.__name__ for f in fixed if not f.__name__.startswith("_")]
    names["nn"] = classes(torch.nn, torch.nn.Module)
    names["nn.init"] = [n for n in dir(torch.nn.init) if n.endswith("_") and not n.startswith("_")]
    names["nn.utils"] = public(torch.nn.utils)
    names["nn.utils.rnn"] = public(torch.nn.utils.rnn)
    names["optim"] = classes(torch.optim, torch.optim.Optimizer)
    names["optim.lr_scheduler"] = classes(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler)
    names["autograd"] = public(torch.autograd)
    names["autograd.functional"] = public(torch.autograd.functional)
    names["distributions"] = public(torch.distributions)
    names["func"] = public(torch.func)
    names["utils.data"] = public(torch.utils.data)
    names["accelerator"] = public(torch.accelerator)
    names["cuda"] = [n for n in public(torch.cuda) if not n.endswith("Storage")]
    return {prefix: sorted(set(found)) for prefix, found in names.items()}


def has(dotted: str) -> bool:
    owner: Any = graphc
    for part in dotted.split("."):
        try:
            owner = getattr(owner, part)
        except AttributeError:
            return False
    return True


def listing(names: Iterable[str]) -> str:
    return " ".join(f"`{n}`" for n in names) or "none"


def make(torch: Any) -> tuple[str, str]:
    """The page and the list of missing names."""
    compared = {op.name for op in OPERATORS}
    absent: list[str] = []
    rows: list[str] = []
    parts: list[str] = []
    for prefix, names in namespaces(torch).items():
        dotted = {n: f"{prefix}.{n}" if prefix else n for n in names}
        here = [n for n in names if has(dotted[n])]
        missing = [n for n in names if n not in here]
        absent += [dotted[n] for n in missing]
        sampled = [n for n in here if dotted[n] in compared]
        title = f"torch.{prefix}" if prefix else "torch"
        rows.append(f"| `{title}` | {len(names)} | {len(here)} | {len(sampled) or ''} | {len(missing)} |")
        parts.append(f"### {title}\n")
        if sampled:
            parts.append(f"Compared by samples: {listing(sampled)}\n")
        if rest := [n for n in here if n not in sampled]:
            parts.append(f"There{', besides' if sampled else ''}: {listing(rest)}\n")
        for why in dict.fromkeys(reason(n) for n in missing):
            parts.append(f"Missing ({why}): {listing(n for n in missing if reason(n) == why)}\n")
    differences = "\n".join(f"| {name} | {what} | {why} |" for name, what, why in DIFFERENCES)
    hosted = [op for op in OPS.values() if op.kind == "host" and op.name != "transfer"]
    host = "\n".join(f"| `{op.name}` | {HOST_NOTES.get(op.name, op.doc)} |" for op in hosted)
    version = torch.__version__.partition("+")[0]
    page = f"""# PyTorch's names in graphc

Written by `python -m tests.differential.document` against PyTorch {version}; do not edit. "Compared by
samples": the operator gives PyTorch's values, dtypes, shapes and errors for every sample in
`tests/differential/samples`, in several memory layouts, and its gradients of first and second order where the
record does not leave them out. {len(compared)} names are.

| namespace | PyTorch | here | compared | missing |
|---|---|---|---|---|
{chr(10).join(rows)}

Asking for a missing name raises an AttributeError that says so.

## What differs

| where | what | why |
|---|---|---|
{differences}

## Operators that run on the host

These have no kernel: NumPy computes them between the compiled parts of a program. They are recorded, differentiated and
replayed like all others. `cholesky`, `det`, `inverse`, `slogdet`, `solve` and `solve_triangular` of matrices of up to
8 rows, with up to 16 right sides, have one (`graphc/codegen/eliminations.py`), on a GPU where registers hold them.

| operator of the graph | used by |
|---|---|
{host}

## Names

{chr(10).join(parts)}"""
    return page.rstrip() + "\n", "\n".join(sorted(absent)) + "\n"


if __name__ == "__main__":
    import torch

    page, absent = make(torch)
    PAGE.write_text(page, encoding="utf-8")
    ABSENT.write_text(absent, encoding="utf-8")
