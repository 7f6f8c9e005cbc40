"""NumPy's functions and operators on tensors: computed by NumPy, the results are tensors, as in PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.types import dtype_of_numpy
from graphc.tensors.core import TensorBase
from graphc.tensors.literals import shared

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

# Operators on a NumPy number and a tensor: the number counts as a Python number.
_OPERATORS: dict[np.ufunc, Callable[[Any, Any], Any]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.true_divide: operator.truediv,
    np.floor_divide: operator.floordiv,
    np.remainder: operator.mod,
    np.power: operator.pow,
    np.equal: operator.eq,
    np.not_equal: operator.ne,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
    np.bitwise_and: operator.and_,
    np.bitwise_or: operator.or_,
    np.bitwise_xor: operator.xor,
}
_COMPARISONS = (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)


def wrapped(array: Any) -> Any:
    """An array, or a NumPy number, as a tensor; as it is when tensors cannot hold it. Bools become uint8, as in
    PyTorch.
    """
    found = np.asarray(array)
    if found.dtype == np.bool_:
        found = found.astype(np.uint8)
    dtype = dtype_of_numpy(found.dtype)
    if dtype is None:
        return array
    made = shared(found if found.flags.writeable else found.copy(), dtype)
    return array if made is None else made


def _plain(value: Any) -> Any:
    return value.numpy() if isinstance(value, TensorBase) else value  # type: ignore[attr-defined]


def apply_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A NumPy function of tensors and arrays. RuntimeError when a tensor requires gradients."""
    if method == "__call__" and len(inputs) == 2 and not kwargs and ufunc in _OPERATORS:
        a, b = inputs
        if isinstance(a, np.generic) and isinstance(b, TensorBase):
            return _OPERATORS[ufunc](a.item(), b)
        if isinstance(b, np.generic) and isinstance(a, TensorBase):
            return _OPERATORS[ufunc](a, b.item())
    out = kwargs.get("out")
    if out is not None:
        kwargs = {**kwargs, "out": tuple(_plain(o) for o in out)}
    result = getattr(ufunc, method)(*map(_plain, inputs), **kwargs)
    if out is not None:
        return out[0] if len(out) == 1 else out
    if ufunc in _COMPARISONS and method == "__call__":
        return _bools(result)
    return tuple(map(wrapped, result)) if isinstance(result, tuple) else wrapped(result)


def _bools(result: Any) -> Tensor | Any:
    array = np.array(result)
    dtype = dtype_of_numpy(array.dtype)
    return result if dtype is None else shared(array, dtype)
