"""Methods of tensors: views, joining and rearranging."""

from __future__ import annotations

from graphc.tensors import joining, rearranging, shaping
from graphc.tensors.core import TensorBase
from graphc.tensors.methods.inplace import inplace


class ShapingMethods(TensorBase):
    """Views, joining and rearranging."""

    __slots__ = ()

    view, reshape, view_as, reshape_as = shaping.view_, shaping.reshape, shaping.view_as, shaping.reshape_as
    flatten, unflatten, permute, transpose = shaping.flatten, shaping.unflatten, shaping.permute, shaping.transpose
    swapaxes = swapdims = shaping.transpose
    t, movedim, expand, expand_as = shaping.t, shaping.movedim, shaping.expand, shaping.expand_as
    broadcast_to, squeeze, unsqueeze = shaping.broadcast_to, shaping.squeeze, shaping.unsqueeze
    narrow, select, unbind, split, chunk = (
        shaping.narrow,
        shaping.select,
        shaping.unbind,
        shaping.split,
        shaping.chunk,
    )
    diagonal = shaping.diagonal
    flip, fliplr, flipud, roll = rearranging.flip, rearranging.fliplr, rearranging.flipud, rearranging.roll
    rot90, repeat, tile = rearranging.rot90, rearranging.repeat, rearranging.tile
    repeat_interleave, narrow_copy = rearranging.repeat_interleave, rearranging.narrow_copy
    tril, triu, kron = rearranging.tril, rearranging.triu, rearranging.kron
    tril_, triu_ = inplace(rearranging.tril), inplace(rearranging.triu)
    diag, diagflat, diag_embed = joining.diag, joining.diagflat, joining.diag_embed
    clone, contiguous = shaping.clone, shaping.contiguous
