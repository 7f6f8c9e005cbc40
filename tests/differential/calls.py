"""Calls of a sample in either library, and the tensors in what they give."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pytest

import graphc
from tests.differential.samples.base import Bad, Fixed, Sample

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")


def resolve(library: types.ModuleType, name: str) -> Callable[..., Any]:
    """The public object `name` of a library."""
    return reduce(getattr, name.split("."), library)  # type: ignore[return-value]


# making tensors


def plain(library: Any, array: np.ndarray) -> Any:
    return library.tensor(array)


def transposed(library: Any, array: np.ndarray) -> Any:
    """Not contiguous: the memory holds the transpose, or every other element of a vector."""
    if array.ndim < 2:
        return library.tensor(np.repeat(array, 2))[::2] if array.ndim else library.tensor(np.repeat(array, 2))[1]
    return library.tensor(np.ascontiguousarray(array.T)).permute(*reversed(range(array.ndim)))


def expanded(library: Any, array: np.ndarray) -> Any:
    """All rows are one in memory."""
    if not array.ndim or not len(array):
        return library.tensor(array)
    return library.tensor(array[:1]).expand(*array.shape)


@dataclass
class Call:
    """The arguments of one call in one library; `leaves` are the tensors that collect gradients."""

    args: list[Any]
    kwargs: dict[str, Any]
    leaves: list[Any]


def make_call(library: Any, sample: Sample | Bad, dtype: str, layout: Callable[..., Any], grad: bool) -> Call:
    leaves: list[Any] = []

    def convert(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            floating = value.dtype.kind == "f"
            made = layout(library, value)
            if floating:
                made = made.to(getattr(library, dtype)) if dtype != "float64" else made
                if grad and not isinstance(value, Fixed):
                    made = made.detach().requires_grad_()
                    leaves.append(made)
            return made
        if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            return type(value)(convert(v) for v in value)
        if isinstance(value, str) and value.startswith("torch."):
            return resolve(library, value.removeprefix("torch."))
        return value

    args = [convert(a) for a in sample.args]
    return Call(args, {k: convert(v) for k, v in sample.kwargs.items()}, leaves)


def invoke(library: Any, name: str, call: Call) -> Any:
    """Call `name`. What is written in place is a clone where gradients are collected: leaves cannot be written."""
    function = resolve(library, name)
    args = list(call.args)
    if name.endswith("_") and call.leaves and args[0] is call.leaves[0]:
        args[0] = args[0].clone()
    return function(*args, **call.kwargs)


@dataclass
class Shapes:
    """Results of which only types, shapes and dtypes are compared."""

    value: Any


# results


@dataclass
class Gradients:
    """Gradients by their order and place; None and zeros count as equal."""

    made: list[list[Any]]


def is_tensor(value: Any) -> bool:
    return isinstance(value, graphc.Tensor | torch.Tensor)


def tensors_in(value: Any) -> Iterator[Any]:
    if is_tensor(value):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def array_of(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return np.asarray(tensor.numpy() if isinstance(tensor, graphc.Tensor) else tensor.numpy(force=True))


def weight(library: Any, like: Any, order: int) -> Any:
    shape = tuple(like.shape)
    values = np.random.default_rng(order).uniform(0.5, 1.5, shape)
    return library.tensor(values).to(like.dtype).requires_grad_()
