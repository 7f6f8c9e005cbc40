"""Methods and properties of tensors: what they are, where they are, whether they are equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import UsageError
from graphc.layouts import contiguous_format, follows, layout, memory_format, strided
from graphc.tensors import comparing
from graphc.tensors.core import TensorBase
from graphc.tensors.device_memory import is_pinned
from graphc.tensors.storages import UntypedStorage

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


class FactsMethods(TensorBase):
    """What tensors are and where they are."""

    __slots__ = ()

    is_mps = is_xpu = is_meta = is_mkldnn = is_quantized = is_nested = is_sparse = is_sparse_csr = False

    equal, allclose, isclose, is_same_size = (
        comparing.equal,
        comparing.allclose,
        comparing.isclose,
        comparing.is_same_size,
    )
    is_signed, is_nonzero = comparing.is_signed, comparing.is_nonzero

    @property
    def layout(self) -> layout:
        """`torch.strided`."""
        return strided

    @property
    def is_cuda(self) -> bool:
        return self._type.device != "cpu"

    @property
    def is_cpu(self) -> bool:
        return self._type.device == "cpu"

    def get_device(self) -> int:
        """The number of the CUDA device; -1 for the CPU."""
        index = self.device.index
        return -1 if index is None else index

    def is_contiguous(self, memory_format: memory_format = contiguous_format) -> bool:
        """Whether elements lie in row-major order, or in that of a memory format."""
        return follows(memory_format, self._type.shape, self._strides)

    def dim_order(self) -> tuple[int, ...]:
        """Dimensions from the outermost in memory to the innermost."""
        return tuple(sorted(range(self.ndim), key=lambda i: -self._strides[i]))

    def is_conj(self) -> bool:
        """False: there are no complex tensors."""
        return False

    is_neg = _is_zerotensor = is_conj

    def is_pinned(self, device: Any = None) -> bool:
        """Whether the memory is page-locked, as `pin_memory` makes it."""
        return is_pinned(self)

    def is_shared(self) -> bool:
        """False: memory is not shared between processes."""
        return False

    def is_set_to(self, tensor: Tensor) -> bool:
        """Whether another tensor shows the same memory in the same way."""
        same = self._storage is tensor._storage and self._type == tensor._type
        return same and (self._strides, self._offset) == (tensor._strides, tensor._offset)

    def is_distributed(self) -> bool:
        """False: no part of a tensor lies elsewhere."""
        return False

    def const_data_ptr(self) -> int:
        """`data_ptr`, of memory that is not to be written."""
        return self.data_ptr()

    def to_dense(self: Any, dtype: Any = None, *, masked_grad: bool | None = None) -> Tensor:
        """The tensor itself, or converted: there are no sparse ones."""
        return self if dtype is None else self.to(dtype)

    def dense_dim(self) -> int:
        """All dimensions are dense."""
        return self.ndim

    def sparse_dim(self) -> int:
        """0: no dimension is sparse."""
        return 0

    def untyped_storage(self) -> UntypedStorage:
        """The memory behind this tensor and all that share it."""
        return UntypedStorage(self)

    @property
    def real(self) -> Tensor:
        """The tensor itself."""
        return self  # type: ignore[return-value]

    @property
    def imag(self) -> Tensor:
        """RuntimeError: there are no complex tensors."""
        raise UsageError("imag is not implemented for tensors with non-complex dtypes.")
