"""What every tensor is and knows of itself: its fields, shape, dtype and place in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.devices import CPU, Device, device_object
from graphc.errors import RangeError, UsageError
from graphc.ir.types import TensorType
from graphc.recording import current
from graphc.storage import Lineage, Storage
from graphc.tensors.size import Size
from graphc.tensors.views import Chain

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_size = tuple.__new__  # the extents are checked: `Size` itself would look at them again


def wrap_dim(dim: int, rank: int) -> int:
    """`dim` counted from the front; IndexError in PyTorch's words when out of range."""
    places = max(rank, 1)
    if not -places <= dim < places:
        raise RangeError(
            f"Dimension out of range (expected to be in range of [{-places}, {places - 1}], but got {dim})"
        )
    return dim + places if dim < 0 else dim


def _note_look(what: str) -> None:
    """A call that looks at something which is otherwise at each call cannot be replayed."""
    capture = current().capture
    if capture is not None:
        capture.give_up(f"a look at {what}")


class TensorFields:
    """The fields of a tensor and what follows from them at once."""

    __slots__ = (
        "__weakref__",
        "_chain",
        "_counter",
        "_fn",
        "_grad",
        "_lineage",
        "_offset",
        "_retains",
        "_root",
        "_seen_at",
        "_storage",
        "_strides",
        "_type",
        "_wrapped",
    )

    _storage: Storage
    _chain: Chain
    _type: TensorType
    _strides: tuple[int, ...]
    _offset: int
    _lineage: Lineage
    _grad: Tensor | None
    _counter: list[int] | None  # of the writes that PyTorch counts; None for tensors of inference mode
    _fn: tuple[Any, Any] | None  # what `grad_fn` gave, and for what
    _retains: bool
    _root: Tensor | None  # what a view was made from, through all views in between
    _seen_at: int  # how many writes were counted when a view was made
    _wrapped: bool  # stands for a Python number in type promotion
    _is_uninitialized = False  # of the classes whose tensors have no memory yet

    @property
    def shape(self) -> Size:
        return _size(Size, self._type.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the extent of one dimension."""
        return _size(Size, self._type.shape) if dim is None else self._type.shape[wrap_dim(dim, self._type.rank)]

    @property
    def dtype(self) -> dtypes.dtype:
        return dtypes.public(self._type.dtype)

    @property
    def device(self) -> Device:
        name = self._type.device
        return CPU if name == "cpu" else device_object(name)

    @property
    def ndim(self) -> int:
        return len(self._type.shape)

    def dim(self) -> int:
        """Number of dimensions."""
        return len(self._type.shape)

    ndimension = dim

    def numel(self) -> int:
        """Number of elements."""
        return self._type.size

    nelement = numel

    def stride(self, dim: int | None = None) -> Any:
        """Steps in elements from one index to the next, of all dimensions or of one."""
        return self._strides if dim is None else self._strides[wrap_dim(dim, self.ndim)]

    def storage_offset(self) -> int:
        """Place of the first element in the storage."""
        capture = current().capture
        if capture is not None and self._storage in capture.parts:
            capture.give_up("a look at where an argument lies")
        return self._offset

    def element_size(self) -> int:
        """Bytes of one element."""
        return self._type.dtype.itemsize

    @property
    def itemsize(self) -> int:
        return self._type.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self._type.nbytes

    def is_floating_point(self) -> bool:
        return self._type.dtype.is_float

    def is_complex(self) -> bool:
        return False

    def data_ptr(self) -> int:
        """Address of the first element; computes what is pending."""
        _note_look("an address")
        return self._storage.realise().ptr + self._offset * self._type.dtype.itemsize

    @property
    def _version(self) -> int:
        if self._counter is None:
            raise UsageError("Inference tensors do not track version counter.")
        _note_look("how often memory was written")
        return self._counter[0]

    @property
    def output_nr(self) -> int:
        """Which output of `grad_fn` this tensor is."""
        hist = self._lineage.hist
        return 0 if hist is None or hist.gate is None else hist.gate[1]

    def is_inference(self) -> bool:
        """Whether this tensor was made in inference mode."""
        return self._counter is None

    @property
    def _base(self) -> Tensor | None:
        """The tensor that this is a view of, in the end; None when it is no view."""
        return self._root

    def _is_view(self) -> bool:
        """Whether gradients treat this tensor as a view of another; what `detach` gives is none."""
        return self._root is not None
