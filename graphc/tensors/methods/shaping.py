"""Methods of tensors: views, joining and rearranging."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphc.naming import named
from graphc.storage import Lineage
from graphc.tensors import flattening, joining, rearranging, shaping, splitting, striding, viewing
from graphc.tensors.core import TensorBase
from graphc.tensors.methods.inplace import inplace
from graphc.tensors.writing import check_writable

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _retyped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The in-place form of a view: the tensor itself shows its memory as the view would."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        check_writable(self, uniform=True)
        seen = function(self, *args, **kwargs)
        last = seen._chain[-1]
        name = f"{last.name[:-1]}{_NEXT.get(last.name, 1)}"
        self._chain = (*seen._chain[:-1], replace(last, name=name, free=False))
        self._type, self._strides, self._offset = seen._type, seen._strides, seen._offset
        self._seen_at = seen._seen_at
        if self._lineage.requires_grad:
            self._lineage = Lineage(len(self._chain), None, True, self._storage.version)
            self._lineage.owner = weakref.ref(self)
        return self

    return named(method, f"{function.__name__}_", f"In place: {function.__doc__}")


_NEXT = {"SqueezeBackward0": 3, "SqueezeBackward1": 4, "SqueezeBackward2": 5}


class ShapingMethods(TensorBase):
    """Views, joining and rearranging."""

    __slots__ = ()

    view, reshape, view_as, reshape_as = (
        named(viewing.view_, "view"),
        viewing.reshape,
        viewing.view_as,
        viewing.reshape_as,
    )
    flatten, unflatten, permute, transpose = (
        flattening.flatten,
        flattening.unflatten,
        viewing.permute,
        viewing.transpose,
    )
    ravel, swapaxes, swapdims = viewing.ravel, viewing.swapaxes, viewing.swapdims
    t, movedim, moveaxis, adjoint = viewing.t, viewing.movedim, viewing.moveaxis, viewing.adjoint
    expand, expand_as, broadcast_to = viewing.expand, viewing.expand_as, viewing.broadcast_to
    squeeze, unsqueeze, diagonal = viewing.squeeze, viewing.unsqueeze, viewing.diagonal
    narrow, select = viewing.narrow, viewing.select
    unfold, as_strided = striding.unfold, striding.as_strided
    unbind, split, chunk, tensor_split = splitting.unbind, splitting.split, splitting.chunk, splitting.tensor_split
    hsplit, vsplit, dsplit = splitting.hsplit, splitting.vsplit, splitting.dsplit
    split_with_sizes = splitting.split_with_sizes
    unsafe_split, unsafe_chunk = splitting.unsafe_split, splitting.unsafe_chunk
    unsafe_split_with_sizes = splitting.unsafe_split_with_sizes
    T, mT, H = property(viewing.reversed_dims), property(viewing.matrix_transpose), property(viewing.hermitian)
    mH = property(viewing.adjoint)

    t_, transpose_, as_strided_ = _retyped(viewing.t), _retyped(viewing.transpose), _retyped(striding.as_strided)
    swapaxes_ = swapdims_ = transpose_
    squeeze_, unsqueeze_ = _retyped(viewing.squeeze), _retyped(viewing.unsqueeze)

    flip, fliplr, flipud, roll = rearranging.flip, rearranging.fliplr, rearranging.flipud, rearranging.roll
    rot90, repeat, tile = rearranging.rot90, rearranging.repeat, rearranging.tile
    repeat_interleave, narrow_copy = rearranging.repeat_interleave, rearranging.narrow_copy
    tril, triu, kron = rearranging.tril, rearranging.triu, rearranging.kron
    tril_, triu_ = inplace(rearranging.tril), inplace(rearranging.triu)
    diag, diagflat, diag_embed = joining.diag, joining.diagflat, joining.diag_embed
    clone, contiguous = shaping.clone, shaping.contiguous
