"""What losses share: the `reduction` argument, its older spelling, and checks of values made when looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import InputError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.recording import Recorder
from graphc.storage import Value
from graphc.tensors import reductions
from graphc.tensors.core import TensorBase
from graphc.tensors.reductions import mean_node
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Reduced = Any  # a reduction's name


def reduction_name(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """`reduction`, or what the older arguments say, with PyTorch's warning."""
    if size_average is None and reduce is None:
        return reduction
    average = True if size_average is None else size_average
    found = "none" if reduce is not None and not reduce else "mean" if average else "sum"
    warn(f"size_average and reduce args will be deprecated, please use reduction='{found}' instead.")
    return found


def check_reduction(reduction: str) -> None:
    """ValueError unless it is none, mean or sum."""
    if reduction not in ("none", "mean", "sum"):
        raise InputError(f"{reduction} is not a valid value for reduction")


def reduced_node(b: Builder, x: Node, reduction: str) -> Node:
    """The mean or sum of all elements, or `x` itself."""
    axes = tuple(range(x.type.rank))
    if reduction == "mean":
        return mean_node(b, x, axes)
    return b.reduce_sum(x, axes) if reduction == "sum" else x


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The mean or sum of all elements, or the tensor itself."""
    check_reduction(reduction)
    if reduction == "mean":
        return reductions.mean(losses)
    return reductions.sum(losses) if reduction == "sum" else losses


def reduced_name(name: str, reduction: str) -> str:
    """The gradient node's name of a loss whose last step is its reduction; `name` where there is none."""
    return {"mean": "MeanBackward0", "sum": "SumBackward0"}.get(reduction, name)


def given(*operands: Any) -> list[Any]:
    """The tensors among `operands`."""
    return [o for o in operands if isinstance(o, TensorBase)]


def check_values(recorder: Recorder, wrong: Node, keep: Any, error: Exception) -> None:
    """Raise `error` at the next flush when an element of `wrong` (bool) is true."""
    if not wrong.type.size:
        return
    axes = tuple(range(wrong.type.rank))
    flag = recorder.b.apply("reduce_max", (wrong,), {"axes": axes, "ties": "even"}) if axes else wrong
    recorder.check(flag, Value(flag, (keep,)), error)
