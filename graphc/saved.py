"""Values that a gradient reads must not have been overwritten: PyTorch's version counters.

Recorded history is never damaged here, as it is made of values and not of memory. But a program that PyTorch refuses is
refused here too, so that both say the same. What an operation would have saved is told by its symbolic gradient: the
operands and the result that it reads. `_KEEPS` names those for which PyTorch's formula differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import AutodiffError, UsageError
from graphc.grad_mode import MODE
from graphc.ir.node import Node
from graphc.ir.types import boolean
from graphc.ir.visit import topological
from graphc.passes.autodiff import vjp
from graphc.recording import Recorder
from graphc.storage import Binding, Value
from graphc.tensors.writing import type_name

# By PyTorch's name: "result", "operands" (those that the symbolic gradient reads), "first" and "others" (the first
# operand, those after it), or nothing.
_KEEPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        [
            *("ReluBackward0", "ExpBackward0", "Exp2Backward0", "Expm1Backward0", "SigmoidBackward0", "TanhBackward0"),
            *("SqrtBackward0", "RsqrtBackward0", "ReciprocalBackward0", "TanBackward0", "SoftmaxBackward0"),
            *("LogSoftmaxBackward0", "HardsigmoidBackward0"),
        ],
        ("result",),
    ),
    **dict.fromkeys(["LogsumexpBackward0", "ProdBackward0", "ProdBackward1"], ("operands", "result")),
    **dict.fromkeys(["CumprodBackward0", "LinalgVectorNormBackward0"], ("operands", "result")),
    "LogcumsumexpBackward0": ("operands", "result"),
    **dict.fromkeys(["NormBackward0", "NormBackward1"], ("operands", "result")),
    **dict.fromkeys(["StdBackward0", "AmaxBackward0", "AminBackward0", "MaxBackward1"], ("operands", "result")),
    **dict.fromkeys(["MinBackward1", "PowBackward1"], ("operands", "result")),
    **dict.fromkeys(["IndexBackward0", "NllLossBackward0", "NllLoss2DBackward0"], ("others",)),
    **dict.fromkeys(["GatherBackward0", "TakeBackward0", "MaskedSelectBackward0"], ("first", "others")),
    **dict.fromkeys(["CummaxBackward0", "CumminBackward0"], ("first",)),
    **dict.fromkeys(["MedianBackward0", "NanmedianBackward0"], ("first", "result")),
    "DivBackward0": ("divided",),  # the divisor, and for its own gradient the first operand
    **dict.fromkeys(
        [
            *("MaxBackward0", "MinBackward0", "SortBackward0", "TopkBackward0", "KthvalueBackward0", "ModeBackward0"),
            *("MedianBackward1", "NanmedianBackward1", "SortBackward1", "CumsumBackward0", "AddBackward0"),
            *("SubBackward0", "CopySlices", "CopyBackwards", "FillBackward0", "ZeroBackward0", "CloneBackward0"),
            *("SumBackward0", "SumBackward1"),
            *("MeanBackward0", "MeanBackward1", "ToCopyBackward0", "IndexPutBackward0"),
            *("CatBackward0", "StackBackward0", "ViewBackward0", "RoundBackward0", "SqueezeBackward4"),
        ],
        (),
    ),
}  # fmt: skip


def _is_written(value: object) -> bool:
    if type(value) is Value or type(value) is Binding:
        counter = value.counter
        return counter is not None and counter[0] != value.version
    return False


def check_unwritten(recorder: Recorder, passed: Sequence[Value]) -> None:
    """RuntimeError in PyTorch's words when the gradient of a value of `passed` reads what was overwritten since."""
    if MODE.mutation_allowed:
        return
    for value in passed:
        counter = value.counter
        if counter is not None and counter[0] != value.version:
            _check(recorder, value)
            continue
        for parent in value.parents:
            counter = parent.counter
            if counter is not None and counter[0] != parent.version:
                _check(recorder, value)
                break


def _check(recorder: Recorder, value: Value) -> None:
    if value.gate is not None or not any(type(p) is Value and p.grad for p in value.parents):
        return  # what custom functions save says for itself whether it was overwritten
    keeps = _KEEPS.get(value.name)
    if keeps == ():
        return
    if value.name == "MulBackward0" and sum(type(p) is Value or p.counter is not None for p in value.parents) == 1:
        return  # times a number
    read = _read_by(recorder, value)
    if _is_written(value) and ("result" in keeps if keeps is not None else value.node in read):
        raise UsageError(_message(value, value.node, value.name))
    for place, parent in _operands(value, read):
        if place != value.replaced and _is_written(parent):  # of what an operation overwrites PyTorch saves a copy
            raise UsageError(_message(parent, *_shown(value, parent)))


# What takes its operands apart in the order of their names in PyTorch ("mat2", "other", "self").
_REVERSED = frozenset(f"{name}Backward0" for name in ("Mul", "Div", "Atan2", "Mm", "Bmm"))


def _operands(value: Value, read: frozenset[Node]) -> list[tuple[int, Value | Binding]]:
    """The operands that PyTorch saves, with their places. `read`: what the symbolic gradient reads."""
    keeps = _KEEPS.get(value.name)
    parents = list(enumerate(value.parents))
    if keeps is None or "operands" in keeps:
        found = [(place, p) for place, p in parents if p.node in read]
    elif "divided" in keeps:
        of_divisor = any(type(p) is Value and p.grad for p in value.parents[1:])
        found = parents if of_divisor else parents[1:]
    else:
        found = [(place, p) for place, p in parents if ("others" if place else "first") in keeps]
    return found[::-1] if value.name in _REVERSED else found


def saved_by(recorder: Recorder, value: Value) -> list[tuple[Node, Value | Binding]]:
    """What PyTorch would save for the gradient of `value`: operands in their order, then the result; with what keeps
    them."""
    keeps = _KEEPS.get(value.name)
    if keeps == () or not any(type(p) is Value and p.grad for p in value.parents):
        return []
    read = _read_by(recorder, value)
    found = [(p.node, p) for _, p in _operands(value, read) if p.node is not value.node]
    if "result" in keeps if keeps is not None else value.node in read:
        found.append((value.node, value))
    return found


def increment_version(tensors: Any) -> None:
    """Count a write of each tensor (or of one) that graphc did not see."""
    for tensor in [tensors] if hasattr(tensors, "_counter") else tensors:
        if tensor._counter is not None:
            tensor._counter[0] += 1


def _read_by(recorder: Recorder, value: Value) -> frozenset[Node]:
    """Which of the result and the operands of `value` its gradient reads."""
    b = recorder.b
    parents = list(dict.fromkeys(p.node for p in value.parents))
    wrt = list(dict.fromkeys(p.node for p in value.parents if type(p) is Value and p.grad))
    if value.node in wrt:
        return frozenset()
    key = ("reads", value.node, *parents, None, *wrt)
    known = recorder.gradients.get(key)
    if known is None:
        try:
            made = vjp(b, [value.node], [b.constant(1, value.node.type)], wrt, wrt)
        except AutodiffError:
            made = []
        ends = {value.node, *parents}
        read = [n for n in topological([g for g in made if g is not None], ends.__contains__) if n in ends]
        known = recorder.gradients[key] = list(read)
    return frozenset(n for n in known if n is not None)


def _shown(value: Value, parent: Value | Binding) -> tuple[Node, str]:
    """How an operand was seen: itself, or a view of it; a view of overwritten memory is made anew by PyTorch."""
    node = parent.node
    name = _name_now(parent) if type(parent) is Value and parent.grad else ""
    if node not in value.node.inputs:
        for operand in value.node.inputs:
            inner = operand
            while inner.op in ("reshape", "slice", "permute") and inner is not node:
                inner = inner.inputs[0]
            if inner is node and operand is not node:
                return operand, "AsStridedBackward0" if name else ""
    return node, name


def _name_now(value: Value) -> str:
    """The name of what made the tensor that held `value`, as it is now."""
    lineage = value.lineage() if value.lineage is not None else None
    if value.name == "AccumulateGrad":
        return ""
    return lineage.hist.name if lineage is not None and lineage.hist is not None else value.name


def _message(value: Value | Binding, node: Node, name: str) -> str:
    now = value.counter[0] if value.counter is not None else 0
    shape = ", ".join(map(str, node.shape))
    maker = name.partition("Backward")[0] if name != "CopySlices" else "torch::autograd::CopySlices"
    kind = "CPUBoolType" if node.dtype is boolean else f"torch.{type_name(node.dtype)}Tensor"
    return written_text(f"{kind} [{shape}]", maker, now, value.version)


def written_text(what: str, maker: str, now: int, expected: int) -> str:
    """PyTorch's message: `what` was made by `maker` (empty for leaves)."""
    hint = (
        "the backtrace further above shows the operation that failed to compute its gradient. The variable in "
        "question was changed in there or anywhere later. Good luck!"
        if MODE.anomaly
        else "enable anomaly detection to find the operation that failed to compute its gradient, with "
        "torch.autograd.set_detect_anomaly(True, check_nan=False)."
    )
    return (
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[{what}]{f', which is output 0 of {maker},' if maker else ''} is at version {now}; expected version "
        f"{expected} instead. Hint: {hint}"
    )
