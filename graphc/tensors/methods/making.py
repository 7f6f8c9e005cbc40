"""Methods of tensors that make new ones of their dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import KindError, UnsupportedError
from graphc.tensors import creation
from graphc.tensors.arguments import check_flags, finished, placed
from graphc.tensors.core import TensorBase, alias
from graphc.tensors.legacy import construct
from graphc.tensors.literals import copied, from_data
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _as(tensor: Any, dtype: Any, device: Any) -> dict[str, Any]:
    """The options of a tensor that is made in the dtype and on the device of `tensor`, unless others are given."""
    return {"dtype": dtype or tensor.dtype, "device": tensor.device if device is None else device}


class MakingMethods(TensorBase):
    """New tensors of this one's dtype, beside it."""

    __slots__ = ()

    def new(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        """What the old constructor of this tensor's type makes."""
        return placed(self._type.device, construct, self._type.dtype, args, kwargs)

    def new_tensor(
        self: Any,
        data: Any,
        *,
        dtype: Any = None,
        device: Any = None,
        requires_grad: Any = False,
        pin_memory: Any = False,
    ) -> Tensor:
        """A tensor with a copy of `data` in this tensor's dtype."""
        place = check_flags("new_tensor", requires_grad, self._type.device if device is None else device, None)
        wanted = self._type.dtype if dtype is None else dtypes.to_ir(dtype)
        if isinstance(data, TensorBase):
            warn(
                "To copy construct from a tensor, it is recommended to use sourceTensor.detach().clone() or "
                "sourceTensor.detach().clone().requires_grad_(True), rather than tensor.new_tensor(sourceTensor).",
            )
            return finished(copied(data, wanted, place), requires_grad)
        return finished(placed(place, from_data, data, wanted), requires_grad)

    def new_zeros(self: Any, *size: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        """Zeros in this tensor's dtype."""
        return creation.zeros(*size, **_as(self, dtype, device), **options)

    def new_ones(self: Any, *size: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        """Ones in this tensor's dtype."""
        return creation.ones(*size, **_as(self, dtype, device), **options)

    def new_full(
        self: Any, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, **options: Any
    ) -> Tensor:
        """`fill_value` in this tensor's dtype."""
        return creation.full(size, fill_value, **_as(self, dtype, device), **options)

    def new_empty(self: Any, *size: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        """Arbitrary contents in this tensor's dtype."""
        return creation.empty(*size, **_as(self, dtype, device), **options)

    def new_empty_strided(
        self: Any, size: Any, stride: Any, *, dtype: Any = None, device: Any = None, **options: Any
    ) -> Tensor:
        """Arbitrary contents in this tensor's dtype, with given strides."""
        return creation.empty_strided(size, stride, **_as(self, dtype, device), **options)

    def as_subclass(self: Any, cls: Any) -> Any:
        """The same memory and history as an instance of a subclass."""
        if not (isinstance(cls, type) and issubclass(cls, TensorBase)):
            raise KindError(f"cls must be a type of tensors (got {cls})")
        made = alias(self, cls)
        made._lineage = self._lineage
        return made

    def to_sparse(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        """UnsupportedError: there are no sparse tensors."""
        raise UnsupportedError("Tensor.to_sparse: graphc has no sparse tensors")
