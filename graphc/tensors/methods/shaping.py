"""Methods of tensors: views, joining and rearranging."""

from __future__ import annotations

from graphc.tensors import shaping
from graphc.tensors.core import TensorBase


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
    diagonal, flip, repeat, roll = shaping.diagonal, shaping.flip, shaping.repeat, shaping.roll
    repeat_interleave, tril, triu = shaping.repeat_interleave, shaping.tril, shaping.triu
    clone, contiguous = shaping.clone, shaping.contiguous
