"""What a sample of a PyTorch operator is, and the arrays that samples are made of.

Samples are written from PyTorch's documentation. They hold NumPy arrays, so that either library can make tensors of
them: float arrays take the dtype under test, all others keep theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Rng = np.random.Generator
_RNG = np.random.default_rng(20)


@dataclass(frozen=True)
class Sample:
    """One call: positional and keyword arguments; arrays anywhere in them (also in lists) become tensors.

    `grads`: orders of gradient to compare, where they are fewer than the operator's.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    grads: int = 2


@dataclass(frozen=True)
class Bad:
    """A call that PyTorch refuses; graphc must raise an error of the same builtin kind that matches `match`."""

    args: tuple[Any, ...]
    match: str
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Op:
    """The samples of one public name of PyTorch, dotted from `torch` on ("nn.functional.gelu", "Tensor.fill_").

    `grads`: orders of gradient to compare (0, 1 or 2), in float64. `dtypes`: what float arrays become, the first one
    also in other layouts. `forms`: also call it as a method, in place and with `out=`, where PyTorch has these.
    `values`: False for random results, of which only types, shapes and dtypes are compared. `rtol` holds for float64;
    the other dtypes get what their precision asks for, times `slack`. `canonical(library, results)`: what to compare
    and to differentiate in place of results that are not unique, such as the signs of eigenvectors; the results
    themselves are compared by types, shapes and dtypes then.
    """

    name: str
    samples: tuple[Sample, ...]
    bad: tuple[Bad, ...] = ()
    grads: int = 2
    dtypes: tuple[str, ...] = ("float64", "float32")
    layouts: bool | tuple[str, ...] = True  # beside plain ones: all, none, or "transposed" and "expanded"
    forms: bool = True
    values: bool = True
    rtol: float = 1e-9
    slack: float = 1.0
    grad_fn: bool = True  # compare the names of gradient nodes
    warns: bool = False  # PyTorch warns of it
    canonical: Callable[[Any, Any], Any] | None = None
    beyond: bool = False  # PyTorch refuses f16 and bf16
    ulps: float = 2.0  # how far results of f16 and bf16 may be from the exact ones, in units of the last place


def s(*args: Any, **kwargs: Any) -> Sample:
    """A sample."""
    return Sample(args, kwargs)


def once(sample: Sample) -> Sample:
    """`sample` without its second gradient."""
    return replace(sample, grads=1)


def forward(sample: Sample) -> Sample:
    """`sample` without gradients."""
    return replace(sample, grads=0)


class Fixed(np.ndarray):
    """An array whose tensor never requires gradients: an argument that PyTorch has no gradient for."""


def fixed(array: np.ndarray) -> np.ndarray:
    """`array` as one whose tensor never requires gradients."""
    return array.view(Fixed)


def bad(match: str, *args: Any, **kwargs: Any) -> Bad:
    """A call that must be refused."""
    return Bad(args, match, kwargs)


def f(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Random floats, away from 0 by at least 0.05 (kinks stand there)."""
    made = _RNG.uniform(low, high, shape)
    return np.asarray(np.where(np.abs(made) < 0.05, made + 0.1, made))


def pos(*shape: int, low: float = 0.2, high: float = 3.0) -> np.ndarray:
    """Random positive floats."""
    return np.asarray(_RNG.uniform(low, high, shape))


def distinct(*shape: int) -> np.ndarray:
    """Random floats at least 0.1 apart: no ties, and none near 0."""
    count = int(np.prod(shape))
    return ((_RNG.permutation(count) - count // 2) * 0.25 + 0.1).reshape(shape)


def ints(*shape: int, low: int = -9, high: int = 10, dtype: str = "int64") -> np.ndarray:
    """Random integers in [low, high)."""
    return np.asarray(_RNG.integers(low, high, shape)).astype(dtype)


def mask(*shape: int) -> np.ndarray:
    """Random bools."""
    return np.asarray(_RNG.random(shape) < 0.5)


def special() -> np.ndarray:
    """The floats at which implementations go wrong."""
    return np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-3, 80.0, -80.0, np.inf, -np.inf, np.nan])
