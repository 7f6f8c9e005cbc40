"""`Tensor`: the class that users hold, with all operations as methods."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphc import backward as autograd
from graphc import dtypes, random
from graphc.grad_mode import set_grad_enabled
from graphc.ir.types import DType, boolean, f32, i64
from graphc.recording import current
from graphc.storage import Lineage
from graphc.tensors import creation, elementwise, indexing, linalg, normalising, reductions, shaping
from graphc.tensors.core import Device, TensorBase, alias, from_array, in_place, set_class, write
from graphc.tensors.export import export
from graphc.tensors.operands import plain
from graphc.tensors.printing import tensor_text


def _inplace(function: Callable[..., Any]) -> Callable[..., Any]:
    """The in-place form of an operation: its result is stored in the tensor, converted to its dtype."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = function(self, *args, **kwargs)
        return result if result is NotImplemented else in_place(self, result)

    method.__doc__ = f"In place: {function.__doc__}"
    method.__name__ = f"{getattr(function, '__name__', 'operation')}_"
    return method


class Tensor(TensorBase):
    """A view of a storage of numbers of one dtype. Made by `graphc.tensor`, `zeros`, operations and so on.

    Operations are recorded; work runs when a value is looked at (print, `item`, `numpy`, `bool`, ...).
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Tensor:
        """`Tensor()` is empty, `Tensor(sequence)` holds the numbers as floats, `Tensor(2, 3)` is a shape with arbitrary contents."""
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
            return tensor_text(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self._type.rank == 0 and spec else str(self)

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

    # indexing

    __getitem__ = indexing.getitem
    __setitem__ = indexing.setitem
    gather, index_select, take_along_dim = indexing.gather, indexing.index_select, indexing.take_along_dim
    scatter, scatter_add, index_add = indexing.scatter, indexing.scatter_add, indexing.index_add
    scatter_, scatter_add_ = _inplace(indexing.scatter), _inplace(indexing.scatter_add)
    index_add_ = _inplace(indexing.index_add)
    index_put_ = indexing.index_put_
    masked_fill, masked_select, nonzero = indexing.masked_fill, indexing.masked_select, indexing.nonzero
    masked_fill_ = _inplace(indexing.masked_fill)

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

    uniform_, normal_, bernoulli_, random_ = random.uniform_, random.normal_, random.bernoulli_, random.random_
    bernoulli = random.bernoulli

    # arithmetic

    add, sub, subtract, mul, multiply = (
        elementwise.add,
        elementwise.sub,
        elementwise.sub,
        elementwise.mul,
        elementwise.mul,
    )
    div, divide, true_divide, floor_divide = elementwise.div, elementwise.div, elementwise.div, elementwise.floor_divide
    remainder, pow, neg, negative = elementwise.remainder, elementwise.pow, elementwise.neg, elementwise.neg
    __add__ = __radd__ = elementwise.add
    __sub__, __rsub__ = elementwise.sub, elementwise.rsub
    __mul__ = __rmul__ = elementwise.mul
    __truediv__, __rtruediv__ = elementwise.div, elementwise.rdiv
    __floordiv__, __rfloordiv__ = elementwise.floor_divide, elementwise.rfloor_divide
    __mod__, __rmod__ = elementwise.remainder, elementwise.rremainder
    __pow__, __rpow__ = elementwise.pow, elementwise.rpow
    __neg__, __pos__, __abs__ = elementwise.neg, elementwise.positive, elementwise.abs
    __iadd__ = add_ = _inplace(elementwise.add)
    __isub__ = sub_ = _inplace(elementwise.sub)
    __imul__ = mul_ = _inplace(elementwise.mul)
    __itruediv__ = div_ = _inplace(elementwise.div)
    __ifloordiv__ = floor_divide_ = _inplace(elementwise.floor_divide)
    __imod__ = remainder_ = _inplace(elementwise.remainder)
    __ipow__ = pow_ = _inplace(elementwise.pow)
    neg_, abs_, clamp_, clip_ = (
        _inplace(elementwise.neg),
        _inplace(elementwise.abs),
        _inplace(elementwise.clamp),
        _inplace(elementwise.clamp),
    )
    maximum, minimum = elementwise.maximum, elementwise.minimum
    lerp, addcmul, addcdiv = elementwise.lerp, elementwise.addcmul, elementwise.addcdiv
    lerp_, addcmul_, addcdiv_ = (
        _inplace(elementwise.lerp),
        _inplace(elementwise.addcmul),
        _inplace(elementwise.addcdiv),
    )

    # comparison and logic

    eq, ne, lt, le, gt, ge = (
        elementwise.eq,
        elementwise.ne,
        elementwise.lt,
        elementwise.le,
        elementwise.gt,
        elementwise.ge,
    )
    __eq__, __ne__ = elementwise.eq, elementwise.ne  # type: ignore[assignment]
    __lt__, __le__, __gt__, __ge__ = elementwise.lt, elementwise.le, elementwise.gt, elementwise.ge
    logical_and, logical_or = elementwise.logical_and, elementwise.logical_or
    logical_xor, logical_not = elementwise.logical_xor, elementwise.logical_not
    bitwise_and, bitwise_or = elementwise.bitwise_and, elementwise.bitwise_or
    bitwise_xor, bitwise_not = elementwise.bitwise_xor, elementwise.bitwise_not
    __and__ = __rand__ = elementwise.bitwise_and
    __or__ = __ror__ = elementwise.bitwise_or
    __xor__ = __rxor__ = elementwise.bitwise_xor
    __invert__ = elementwise.bitwise_not
    __lshift__, __rshift__ = elementwise.bitwise_left_shift, elementwise.bitwise_right_shift
    __iand__, __ior__, __ixor__ = (
        _inplace(elementwise.bitwise_and),
        _inplace(elementwise.bitwise_or),
        _inplace(elementwise.bitwise_xor),
    )
    isnan, isinf, isfinite = elementwise.isnan, elementwise.isinf, elementwise.isfinite

    # unary functions

    exp, log, log1p, expm1, sqrt = (
        elementwise.exp,
        elementwise.log,
        elementwise.log1p,
        elementwise.expm1,
        elementwise.sqrt,
    )
    rsqrt, reciprocal, sin, cos, tan = (
        elementwise.rsqrt,
        elementwise.reciprocal,
        elementwise.sin,
        elementwise.cos,
        elementwise.tan,
    )
    tanh, sigmoid, erf, sinh, cosh = (
        elementwise.tanh,
        elementwise.sigmoid,
        elementwise.erf,
        elementwise.sinh,
        elementwise.cosh,
    )
    exp2, log2, log10 = elementwise.exp2, elementwise.log2, elementwise.log10
    floor, ceil, round, trunc = elementwise.floor, elementwise.ceil, elementwise.round, elementwise.trunc
    abs, absolute, sign, square = elementwise.abs, elementwise.abs, elementwise.sign, elementwise.square
    relu, clamp, clip = elementwise.relu, elementwise.clamp, elementwise.clamp
    exp_, log_, sqrt_, tanh_, sigmoid_ = (
        _inplace(elementwise.exp),
        _inplace(elementwise.log),
        _inplace(elementwise.sqrt),
        _inplace(elementwise.tanh),
        _inplace(elementwise.sigmoid),
    )
    relu_, round_, floor_, ceil_ = (
        _inplace(elementwise.relu),
        _inplace(elementwise.round),
        _inplace(elementwise.floor),
        _inplace(elementwise.ceil),
    )
    reciprocal_, rsqrt_, square_ = (
        _inplace(elementwise.reciprocal),
        _inplace(elementwise.rsqrt),
        _inplace(elementwise.square),
    )

    def clamp_min(self, min: Any) -> Tensor:
        """Elements below `min` become `min`."""
        return elementwise.clamp(self, min)

    def clamp_max(self, max: Any) -> Tensor:
        """Elements above `max` become `max`."""
        return elementwise.clamp(self, None, max)

    def where(self, condition: Tensor, other: Any) -> Tensor:
        """These elements where `condition`, else those of `other`."""
        return elementwise.where(condition, self, other)

    def softmax(self, dim: Any, dtype: Any = None) -> Tensor:
        """exp(x) over its sum along `dim`."""
        return normalising.softmax(self, dim, dtype=dtype)

    def log_softmax(self, dim: Any, dtype: Any = None) -> Tensor:
        """Logarithm of `softmax`."""
        return normalising.log_softmax(self, dim, dtype=dtype)

    # reductions

    sum, mean, prod, max, min = (
        reductions.sum,
        reductions.mean,
        reductions.prod,
        reductions.max,
        reductions.min,
    )
    amax, amin, argmax, argmin = reductions.amax, reductions.amin, reductions.argmax, reductions.argmin
    var, std, any, all, norm = (
        reductions.var,
        reductions.std,
        reductions.any_,
        reductions.all_,
        reductions.norm,
    )
    logsumexp, cumsum = reductions.logsumexp, reductions.cumsum

    # products

    matmul = __matmul__ = linalg.matmul
    mm, bmm, mv, dot, outer, addmm = linalg.mm, linalg.bmm, linalg.mv, linalg.dot, linalg.outer, linalg.addmm

    # views and rearrangements

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
