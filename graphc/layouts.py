"""Layouts and memory formats under PyTorch's names. Tensors are strided; a memory format is an order of dimensions."""

from __future__ import annotations

from graphc.errors import KindError, ShapeError, UnsupportedError, UsageError, describe

Order = tuple[int, ...]


class layout:
    """How a tensor's elements are kept: `strided` is the only one that graphc makes."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name


class memory_format:
    """An order of dimensions in memory."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name


describe.register(layout, repr)
describe.register(memory_format, repr)

strided, sparse_coo = layout("strided"), layout("sparse_coo")
sparse_csr, sparse_csc = layout("sparse_csr"), layout("sparse_csc")
sparse_bsr, sparse_bsc = layout("sparse_bsr"), layout("sparse_bsc")
contiguous_format, preserve_format = memory_format("contiguous_format"), memory_format("preserve_format")
channels_last, channels_last_3d = memory_format("channels_last"), memory_format("channels_last_3d")

_CHANNELS_LAST: dict[memory_format, Order] = {channels_last: (0, 2, 3, 1), channels_last_3d: (0, 2, 3, 4, 1)}


def check_layout(given: object, name: str) -> None:
    """UnsupportedError for layouts other than strided."""
    if given is None or given is strided:
        return
    if isinstance(given, layout):
        raise UnsupportedError(f"{name}: graphc has no sparse tensors ({given})")
    raise KindError(f"{name}(): argument 'layout' must be torch.layout, not {type(given).__name__}")


def order_of(format: object, shape: Order, strides: Order | None = None) -> Order:
    """Dimensions from the outermost in memory to the innermost, for a new tensor of `shape`.

    `preserve_format` keeps the order of `strides` when those lie densely, as PyTorch does. RuntimeError when the rank
    does not fit the format.
    """
    usual = tuple(range(len(shape)))
    if format is None or format is contiguous_format:
        return usual
    if not isinstance(format, memory_format):
        raise KindError(f"argument 'memory_format' must be torch.memory_format, not {type(format).__name__}")
    if format is preserve_format:
        if strides is None:
            raise UsageError("unsupported memory format option Preserve")
        order = tuple(sorted(usual, key=lambda i: -strides[i]))
        return order if _dense(shape, strides, order) else usual
    order = _CHANNELS_LAST[format]
    if len(shape) != len(order):
        raise ShapeError(f"required rank {len(order)} tensor to use {format.name} format")
    return order


def _dense(shape: Order, strides: Order, order: Order) -> bool:
    """Whether the elements fill their memory when walked in `order`."""
    step = 1
    for i in reversed(order):
        if shape[i] > 1:
            if strides[i] != step:
                return False
            step *= shape[i]
    return True


def follows(format: memory_format, shape: Order, strides: Order) -> bool:
    """Whether a tensor's elements lie in the order of a memory format; a rank that does not fit gives False."""
    if format is preserve_format:
        raise UsageError("preserve memory format is unsupported by the contiguous operator")
    order = _CHANNELS_LAST.get(format, tuple(range(len(shape))))
    return len(order) == len(shape) and (0 in shape or _dense(shape, strides, order))
