"""Parameter and Buffer: tensors that a module trains, and tensors that it only keeps; both also without a shape yet."""

from __future__ import annotations

from types import MemberDescriptorType
from typing import Any, Self

from graphc import Tensor, empty
from graphc.errors import InputError, UsageError


class Parameter(Tensor):
    """A tensor that becomes one of a module's parameters when it is assigned to an attribute.

    Shares the memory of `data`; a leaf that requires gradients unless told otherwise.
    """

    _prints_as_tensor = True

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Self:
        return cls._make_subclass(empty(0) if data is None else data.detach(), requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """The values alone: no gradient, and no attributes of the user's."""
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.data.clone(), self.requires_grad)
        return memo[id(self)]

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class _BufferKind(type):
    """Buffers are plain tensors with a mark, for which `isinstance(tensor, Buffer)` asks."""

    def __instancecheck__(cls, instance: Any) -> bool:
        marked = cls.__name__ == "Buffer" and isinstance(instance, Tensor) and "_is_buffer" in vars(instance)
        return marked or super().__instancecheck__(instance)


class Buffer(Tensor, metaclass=_BufferKind):
    """A tensor that becomes one of a module's buffers when it is assigned to an attribute; `persistent` ones are saved.

    Shares the memory of `data`.
    """

    persistent: bool
    _is_buffer: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Any:
        made: Any = empty(0) if data is None else data.detach().requires_grad_(data.requires_grad)
        made.persistent, made._is_buffer = persistent, True
        return made


class UninitializedTensorMixin:
    """A tensor without a shape: it has a dtype, and becomes an ordinary one by `materialize`.

    It has none of the fields of a tensor, so whatever reads them raises ValueError.
    """

    _is_uninitialized = True
    cls_to_become: type[Tensor]
    _held: Tensor  # without elements: has the dtype and the device
    _wants_gradient: bool
    grad = None
    grad_fn = None
    is_leaf = True

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Become a tensor of this shape with arbitrary contents, a parameter or a plain one."""
        held, requires_grad = self._held, self._wants_gradient
        made = empty(
            shape,
            device=held.device if device is None else device,
            dtype=held.dtype if dtype is None else dtype,
        )
        del self._held
        del self._wants_gradient
        self.__class__ = self.cls_to_become  # type: ignore[assignment]
        self._become(made)  # type: ignore[attr-defined]
        self.requires_grad_(requires_grad)  # type: ignore[attr-defined]

    @property
    def data(self) -> Tensor:
        return self._held

    @data.setter
    def data(self, value: Tensor) -> None:
        self._held = value

    @property
    def requires_grad(self) -> bool:
        return self._wants_gradient

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._wants_gradient = value

    @property
    def shape(self) -> Any:
        raise UsageError(
            "Can't access the shape of an uninitialized parameter or buffer. This error usually happens in "
            "`load_state_dict` when trying to load an uninitialized parameter into an initialized one. Call `forward` "
            "to initialize the parameters before accessing their attributes."
        )

    def share_memory_(self) -> Any:
        """RuntimeError: there is no memory yet."""
        raise UsageError(
            "Can't share memory on an uninitialized parameter or buffer. Call `forward` to initialize the parameters "
            "before calling `module.share_memory()`."
        )

    def copy_(self, src: Any, non_blocking: bool = False) -> Self:
        """Of another uninitialized tensor: there is nothing to copy."""
        self.data.copy_(src.data)
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.requires_grad, self.data.device, self.data.dtype)  # type: ignore[call-arg]
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (self.requires_grad, self.data.device, self.data.dtype)

    def __getattr__(self, name: str) -> Any:
        if not isinstance(getattr(Tensor, name, None), MemberDescriptorType):
            return super().__getattr__(name)  # type: ignore[misc]
        raise InputError(
            "Attempted to use an uninitialized parameter in an operation. This error happens when you are using a "
            f"`LazyModule` or explicitly manipulating `torch.nn.parameter.{type(self).__name__}` objects. When using "
            "LazyModules Call `forward` with a dummy batch to initialize the parameters before calling torch functions"
        )


def _of_data(name: str) -> property:
    """The attribute of the tensor without elements."""
    return property(lambda self: getattr(self._held, name))


for _name in (
    *("dtype", "device", "layout", "ndim", "size", "is_complex", "is_floating_point", "get_device", "is_cuda"),
    *("half", "float", "double", "char", "short", "int", "long", "cuda", "cpu", "to"),
):
    setattr(UninitializedTensorMixin, _name, _of_data(_name))


def is_lazy(param: Any) -> bool:
    """Whether `param` is a parameter or buffer without a shape."""
    return isinstance(param, UninitializedTensorMixin)


class UninitializedParameter(UninitializedTensorMixin, Parameter):  # type: ignore[misc]
    """A parameter whose shape is not known yet. All that can be done with it is to convert it, and `materialize`."""

    cls_to_become = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> Self:
        made = object.__new__(cls)
        made._held, made._wants_gradient = empty(0, device=device, dtype=dtype), requires_grad
        return made


class UninitializedBuffer(UninitializedTensorMixin, Tensor):  # type: ignore[misc]
    """A buffer whose shape is not known yet. All that can be done with it is to convert it, and `materialize`."""

    cls_to_become = Tensor
    persistent: bool
    _is_buffer: bool

    def __new__(
        cls, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> Self:
        made = object.__new__(cls)
        made._held, made._wants_gradient = empty(0, device=device, dtype=dtype), requires_grad
        made.persistent, made._is_buffer = persistent, True
        return made
