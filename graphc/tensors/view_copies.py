"""What views show, in memory of its own: PyTorch's `*_copy` functions, all made by one mechanism from the views."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import KindError, RangeError, ShapeError, UsageError
from graphc.tensors import splitting, striding, viewing
from graphc.tensors.arguments import tensor_argument
from graphc.tensors.core import record, wrap_dim
from graphc.tensors.out import into, refuse_gradients

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _copy(seen: Tensor) -> Tensor:
    name = seen._chain[-1].name if seen._chain else "AliasBackward0"
    return record(f"{name}_copy", (seen,), lambda b, x: x)


def _copying(name: str, view: Callable[..., Any]) -> Callable[..., Any]:
    """The function `name`: copies of what `view` gives, or, for `out`, into one tensor or a list of them.

    A list is written and None is given back, as in PyTorch.
    """

    @functools.wraps(view)
    def function(input: Tensor, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        seen = view(tensor_argument(name, input), *args, **kwargs)
        several = isinstance(seen, tuple)
        if out is None:
            return tuple(_copy(s) for s in seen) if several else _copy(seen)
        refuse_gradients(name, (input, *(out if several else (out,))))
        if not several:
            return into(out, _copy(seen), name)
        if len(out) != len(seen):
            raise ShapeError(f"{name}(): expected an out= list of {len(seen)} tensors, got {len(out)}")
        for target, part in zip(out, seen, strict=True):
            into(target, _copy(part), name)
        return None

    function.__name__ = name
    function.__doc__ = f"In memory of its own: {view.__doc__}"
    return function


def _view(input: Tensor, *sizes: Any, size: Any = None, dtype: Any = None) -> Tensor:
    """The elements in another shape, or the bytes as elements of a dtype."""
    if sizes:
        size = sizes[0] if len(sizes) == 1 else None
    if dtype is None and isinstance(size, dtypes.dtype):
        dtype, size = size, None
    if dtype is not None:
        return viewing.view_(input, dtype=dtype)
    if not isinstance(size, list | tuple):
        raise KindError(
            f"view_copy() received an invalid combination of arguments - got {len(sizes)} sizes, but expected "
            "(Tensor input, torch.dtype dtype) or (Tensor input, tuple of ints size)"
        )
    return viewing.reshape(input, *size) if size else viewing.reshape(input, ())


def _expand(input: Tensor, size: Any, *, implicit: bool = False) -> Tensor:
    """Dimensions of size 1 repeated; -1 keeps a dimension."""
    return viewing.expand(input, *size)


def _slice(
    input: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:  # fmt: skip
    """Elements from `start` to before `end` by `step` along `dim`."""
    if not input.ndim:
        raise RangeError("slice() cannot be applied to a 0-dim tensor.")
    at = wrap_dim(dim, input.ndim)
    if step <= 0:
        raise UsageError("slice step must be positive")
    first, last, step = slice(start, end, step).indices(input._type.shape[at])
    return viewing.slice_view(input, at, first, len(range(first, last, step)), step)


def _split(input: Tensor, split_size: int, dim: int = 0) -> Any:
    """Parts of `split_size` elements along `dim`, the last one shorter."""
    if not isinstance(split_size, int):
        raise KindError(
            f"split_copy(): argument 'split_size' (position 2) must be int, not {type(split_size).__name__}"
        )
    return splitting.split(input, split_size, dim)


def _permute(input: Tensor, dims: Any) -> Tensor:
    """Dimension i of the result is dimension dims[i]."""
    return viewing.permute(input, *dims)


def _unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows along a dimension."""
    return striding.unfold(input, dimension, size, step)


alias_copy = _copying("alias_copy", viewing.same_view)
as_strided_copy = _copying("as_strided_copy", striding.as_strided)
diagonal_copy = _copying("diagonal_copy", viewing.diagonal)
expand_copy = _copying("expand_copy", _expand)
permute_copy = _copying("permute_copy", _permute)
select_copy = _copying("select_copy", viewing.select)
slice_copy = _copying("slice_copy", _slice)
split_copy = _copying("split_copy", _split)
split_with_sizes_copy = _copying("split_with_sizes_copy", splitting.split_with_sizes)
squeeze_copy = _copying("squeeze_copy", viewing.squeeze)
t_copy = _copying("t_copy", viewing.t)
transpose_copy = _copying("transpose_copy", viewing.transpose)
unbind_copy = _copying("unbind_copy", splitting.unbind)
unfold_copy = _copying("unfold_copy", _unfold)
unsqueeze_copy = _copying("unsqueeze_copy", viewing.unsqueeze)
view_copy = _copying("view_copy", _view)


def detach_copy(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """A copy without the gradient side."""
    made = record("", (tensor_argument("detach_copy", input).detach(),), lambda b, x: x)
    return made if out is None else into(out, made, "detach_copy")
