"""`Tensor`: the class that users hold, with all operations as methods."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphc import backward as autograd
from graphc import dtypes
from graphc.grad_mode import set_grad_enabled
from graphc.ir.types import DType, boolean, f32, i64
from graphc.recording import current
from graphc.storage import Lineage
from graphc.tensors import creation, indexing, shaping
from graphc.tensors.core import Device, TensorBase, alias, from_array, set_class
from graphc.tensors.export import export
from graphc.tensors.methods import Operations
from graphc.tensors.operands import plain
from graphc.tensors.printing import tensor_text
from graphc.tensors.writing import write


class Tensor(Operations):
    """A view of a storage of numbers of one dtype. Made by `graphc.tensor`, `zeros`, operations and so on.

    Operations are recorded; work runs when a value is looked at (print, `item`, `numpy`, `bool`, ...).
    """

    _prints_as_tensor = True  # subclasses print their own name, but for parameters

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._prints_as_tensor = cls.__dict__.get("_prints_as_tensor", False)

    def __new__(cls, *args: Any, **kwargs: Any) -> Tensor:
        """`Tensor()` is empty, `Tensor(sequence)` holds the numbers as floats, `Tensor(2, 3)` is a shape with
        arbitrary contents.
        """
        if len(args) == 1 and isinstance(args[0], TensorBase):
            return alias(args[0], cls)
        if len(args) == 1 and not isinstance(args[0], int):
            made = creation.tensor(args[0], dtype=dtypes.get_default_dtype())
        else:
            made = creation.empty(*(args or (0,)))
        return alias(made, cls)

    @classmethod
    def _make_subclass(cls, data: Tensor, requires_grad: bool = False) -> Any:
        """`data`'s memory as a leaf of this class."""
        made = alias(data, cls)
        return made.requires_grad_() if requires_grad else made

    # gradient side

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` collected, or None."""
        capture = current().capture
        if capture is not None:
            capture.read_grad(self)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, TensorBase):
                raise TypeError(
                    f"assigned grad expected to be a Tensor or None but got grad of type {type(value).__name__}"
                )
            if value._type.shape != self._type.shape:
                raise RuntimeError(
                    f"assigned grad has data of a different size: a gradient {value._type} for a tensor {self._type}"
                )
            if value._type.dtype is not self._type.dtype:
                raise RuntimeError(
                    f"assigned grad has data of a different type: {value._type} for a tensor {self._type}"
                )
        capture = current().capture
        if capture is not None:
            capture.write_grad(self)
        self._grad = value

    @property
    def data(self) -> Tensor:
        """The same memory without the gradient side."""
        return alias(self)

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, TensorBase):
            raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        requires = self._lineage.requires_grad
        self._storage, self._chain, self._type = value._storage, value._chain, value._type
        self._strides, self._offset = value._strides, value._offset
        self._lineage = Lineage(len(self._chain), None, requires, self._storage.version)
        self._lineage.owner = weakref.ref(self)

    def detach(self) -> Tensor:
        """The same memory without the gradient side."""
        return alias(self)

    def detach_(self) -> Tensor:
        """Make this tensor a leaf without history."""
        self._lineage = Lineage(len(self._chain), None, False, self._storage.version)
        return self

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Add the gradient of this scalar (or of `sum(self * gradient)`) to `.grad` of the leaves it depends on."""
        autograd.backward((self,), (gradient,), retain_graph, create_graph, inputs)

    def retain_grad(self) -> None:
        """Let `backward` fill `.grad` of this non-leaf too."""
        super().retain_grad()
        autograd.retain(self)

    @property
    def grad_fn(self) -> GradFn | None:
        """What made this tensor, for tensors with history."""
        return None if self.is_leaf or not self.requires_grad else GradFn(self.grad_fn_name())

    def grad_fn_name(self) -> str:
        """PyTorch's name of the gradient node, as `repr` shows it."""
        hist = self._lineage.hist
        if len(self._chain) > self._lineage.depth:
            return _VIEW_NAMES[self._chain[-1].kind]
        return hist.name if hist is not None and hist.name else "CloneBackward0"

    # observation

    def item(self) -> Any:
        """The one element as a Python number. RuntimeError when there is not exactly one."""
        if self._type.size != 1:
            raise RuntimeError(f"a Tensor with {self._type.size} elements cannot be converted to Scalar")
        return (
            self._array().item() if self._type.dtype.name != "bf16" else float(self._array().astype(np.float32).item())
        )

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        array = self._array()
        return (array.astype(np.float32) if self._type.dtype.name == "bf16" else array).tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The elements as an array that shares memory. RuntimeError for tensors that require gradients."""
        if self.requires_grad and not force:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        return export(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __bool__(self) -> bool:
        if self._type.size != 1:
            if self._type.size == 0:
                raise RuntimeError("Boolean value of Tensor with no values is ambiguous")
            raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        if (not self._type.dtype.is_integer and self._type.dtype is not boolean) or self._type.size != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __len__(self) -> int:
        if not self._type.shape:
            raise TypeError("len() of a 0-d tensor")
        return self._type.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self._type.shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(shaping.unbind(self, 0))

    def __contains__(self, element: Any) -> bool:
        return bool((self == element).any().item())

    def __repr__(self) -> str:
        with set_grad_enabled(False):
            return tensor_text(self, "tensor" if self._prints_as_tensor else type(self).__name__)

    def __format__(self, spec: str) -> str:
        if self._type.rank == 0 and type(self) is Tensor:
            return format(self.item(), spec)
        return object.__format__(self, spec)

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment"
            )
        made = memo[id(self)] = type(self)._make_subclass(
            from_array(self._array(), self._type.dtype), self.requires_grad
        )
        if self._grad is not None:
            made._grad = from_array(self._grad._array(), self._type.dtype)
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (type(self), np.array(self._array()), self._type.dtype.torch_name, self.requires_grad)

    # conversion

    def to(
        self, *args: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False, copy: bool = False
    ) -> Tensor:
        """Converted to a dtype; a device other than the CPU is refused. The tensor itself when nothing changes."""
        for arg in args:
            if isinstance(arg, TensorBase):
                dtype = arg._type.dtype
            elif isinstance(arg, str | Device):
                device = arg
            elif not isinstance(arg, bool) and arg is not None:
                dtype = arg
        if device is not None:
            Device(device)
        wanted = self._type.dtype if dtype is None else dtypes.to_ir(dtype)
        made = shaping.to_dtype(self, wanted)
        return shaping.clone(self) if copy and made is self else made

    def type(self, dtype: Any = None) -> Any:
        """Converted to a dtype; without argument, PyTorch's name of the tensor type."""
        if dtype is None:
            return f"torch.{_legacy_name(self._type.dtype)}Tensor"
        return self.to(dtype)

    def type_as(self, other: Tensor) -> Tensor:
        """Converted to the dtype of `other`."""
        return self.to(other)

    def cpu(self) -> Tensor:
        """The tensor itself."""
        return self

    def float(self) -> Tensor:
        """Converted to float32."""
        return shaping.to_dtype(self, f32)

    def double(self) -> Tensor:
        """Converted to float64."""
        return self.to(dtypes.float64)

    def half(self) -> Tensor:
        """Converted to float16."""
        return self.to(dtypes.float16)

    def bfloat16(self) -> Tensor:
        """Converted to bfloat16."""
        return self.to(dtypes.bfloat16)

    def long(self) -> Tensor:
        """Converted to int64."""
        return shaping.to_dtype(self, i64)

    def int(self) -> Tensor:
        """Converted to int32."""
        return self.to(dtypes.int32)

    def bool(self) -> Tensor:
        """Converted to bool."""
        return shaping.to_dtype(self, boolean)

    def new_tensor(self, data: Any, *, dtype: Any = None, requires_grad: Any = False) -> Tensor:
        """A tensor with a copy of `data` in this tensor's dtype."""
        return creation.tensor(data, dtype=dtype or self.dtype, requires_grad=requires_grad)

    def new_zeros(self, *size: Any, dtype: Any = None) -> Tensor:
        """Zeros in this tensor's dtype."""
        return creation.zeros(*size, dtype=dtype or self.dtype)

    def new_ones(self, *size: Any, dtype: Any = None) -> Tensor:
        """Ones in this tensor's dtype."""
        return creation.ones(*size, dtype=dtype or self.dtype)

    def new_full(self, size: Any, fill_value: Any, *, dtype: Any = None) -> Tensor:
        """`fill_value` in this tensor's dtype."""
        return creation.full(size, fill_value, dtype=dtype or self.dtype)

    def new_empty(self, *size: Any, dtype: Any = None) -> Tensor:
        """Arbitrary contents in this tensor's dtype."""
        return creation.empty(*size, dtype=dtype or self.dtype)

    # writing

    def copy_(self, src: Any, non_blocking: Any = False) -> Tensor:
        """Store the elements of `src`, broadcast and converted."""
        source = src if isinstance(src, TensorBase) else creation.as_tensor(src)
        indexing.check_fits(source._type.shape, self._type.shape)
        write(self, source)
        return self

    def fill_(self, value: Any) -> Tensor:
        """Store one number everywhere."""
        write(self, value if isinstance(value, TensorBase) else indexing.fill_value(plain(value), self))
        return self

    def zero_(self) -> Tensor:
        """Store zeros."""
        return self.fill_(0)

    def set_(self, source: Tensor) -> Tensor:
        """Show the memory of another tensor from now on."""
        self.data = source
        return self

    def requires_storage(self) -> Any:
        """The storage behind this tensor."""
        return self._storage

    @property
    def T(self) -> Tensor:
        """Dimensions in reverse order."""
        return shaping.permute(self, *range(self.ndim - 1, -1, -1))

    @property
    def mT(self) -> Tensor:
        """The last two dimensions exchanged."""
        return shaping.transpose(self, -2, -1)

    def is_contiguous(self) -> Any:
        """Whether elements lie in row-major order."""
        return shaping.is_contiguous(self._type.shape, self._strides)

    def _retype(self, chained: Tensor) -> Tensor:
        self._chain, self._type = chained._chain, chained._type
        self._strides, self._offset = chained._strides, chained._offset
        return self

    def t_(self) -> Tensor:
        """Exchange the dimensions of this matrix, in place."""
        return self._retype(shaping.t(self))

    def squeeze_(self, dim: Any = None) -> Tensor:
        """Remove dimensions of size 1, in place."""
        return self._retype(shaping.squeeze(self, dim))

    def unsqueeze_(self, dim: Any) -> Tensor:
        """Put in a dimension of size 1, in place."""
        return self._retype(shaping.unsqueeze(self, dim))

    def transpose_(self, dim0: Any, dim1: Any) -> Tensor:
        """Exchange two dimensions, in place."""
        return self._retype(shaping.transpose(self, dim0, dim1))


class GradFn:
    """What made a tensor with history; its name is PyTorch's."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        """PyTorch's name of the gradient node."""
        return self._name

    def __repr__(self) -> str:
        return f"<{self._name} object>"


_VIEW_NAMES = {
    "reshape": "ViewBackward0",
    "permute": "PermuteBackward0",
    "slice": "SliceBackward0",
    "broadcast": "ExpandBackward0",
}


def _legacy_name(dtype: DType) -> str:
    return {"f64": "Double", "f32": "Float", "f16": "Half", "bf16": "BFloat16", "i64": "Long"}.get(
        dtype.name, {"i32": "Int", "i16": "Short", "i8": "Char", "u8": "Byte"}.get(dtype.name, "Bool")
    )


def _rebuild(cls: Any, array: np.ndarray, dtype: str, requires_grad: bool) -> Any:
    return cls._make_subclass(from_array(array, dtypes.dtype_named(dtype).ir), requires_grad)


set_class(Tensor)
