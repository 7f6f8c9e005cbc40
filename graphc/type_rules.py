"""Type promotion under PyTorch's names, on public dtypes and tensors."""

from __future__ import annotations

from typing import Any

from graphc import dtypes, promotion
from graphc.errors import KindError
from graphc.tensors.operands import common


def _ir(name: str, given: Any, argument: str, position: int) -> Any:
    if not isinstance(given, dtypes.dtype):
        kind = type(given).__name__
        raise KindError(f"{name}(): argument '{argument}' (position {position}) must be torch.dtype, not {kind}")
    return given.ir


def can_cast(from_: dtypes.dtype, to: dtypes.dtype) -> bool:
    """Whether an in-place operation may store results of one dtype in another: not from a higher kind to a lower."""
    return promotion.can_cast(_ir("can_cast", from_, "from_", 1), _ir("can_cast", to, "to", 2))


def promote_types(type1: dtypes.dtype, type2: dtypes.dtype) -> dtypes.dtype:
    """The smallest dtype that holds both."""
    found = promotion.promote_types(_ir("promote_types", type1, "type1", 1), _ir("promote_types", type2, "type2", 2))
    return dtypes.public(found)


def result_type(tensor: Any, other: Any) -> dtypes.dtype:
    """The dtype of arithmetic between two tensors or numbers."""
    return dtypes.public(common((tensor, other))[0])
