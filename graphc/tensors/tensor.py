"""`Tensor`: the class that users hold, with all operations as methods."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from graphc import backward as autograd
from graphc import dtypes, gradient_nodes
from graphc.absence import no_attribute
from graphc.errors import KindError, ShapeError, UsageError
from graphc.grad_mode import set_grad_enabled
from graphc.hooks import RemovableHandle
from graphc.recording import current
from graphc.storage import Lineage
from graphc.tensors import elementwise, indexing, literals, shaping
from graphc.tensors.arguments import number_argument, placed
from graphc.tensors.core import TensorBase, alias, set_class
from graphc.tensors.device_memory import read_late
from graphc.tensors.fields import TensorFields
from graphc.tensors.filling import check_holds
from graphc.tensors.learning import repeatable
from graphc.tensors.legacy import construct
from graphc.tensors.methods import Operations
from graphc.tensors.methods.conversion import ConversionMethods
from graphc.tensors.methods.copying import CopyingMethods
from graphc.tensors.methods.facts import FactsMethods
from graphc.tensors.methods.making import MakingMethods
from graphc.tensors.operands import fit, is_number
from graphc.tensors.printing import tensor_text
from graphc.tensors.writing import check_broadcast, check_writable, write


class Tensor(MakingMethods, CopyingMethods, ConversionMethods, FactsMethods, Operations):
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
        return alias(construct(dtypes.default_ir(), args, kwargs, any_dtype=True), cls)

    @classmethod
    def _make_subclass(cls, data: Tensor, requires_grad: bool = False) -> Any:
        """`data`'s memory as a leaf of this class."""
        made = alias(data, cls)
        return made.requires_grad_() if requires_grad else made

    def _become(self, other: Tensor) -> None:
        """Take over everything that `other` is, which is not used any more; for tensors made without any memory."""
        for name in TensorFields.__slots__:
            if name != "__weakref__":
                setattr(self, name, getattr(other, name))

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(f"{type(self).__name__!r} object", name, "Tensor")

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
                raise KindError(
                    f"assigned grad expected to be a Tensor or None but got grad of type {type(value).__name__}"
                )
            if value._type.shape != self._type.shape:
                raise UsageError(
                    f"assigned grad has data of a different size: a gradient {value._type} for a tensor {self._type}"
                )
            if value._type.dtype is not self._type.dtype:
                raise UsageError(f"assigned grad has data of a different type: {value._type} for a tensor {self._type}")
            if value._type.device != self._type.device:
                raise UsageError(
                    f"assigned grad has data located on a different device: {value._type.device} for a tensor on "
                    f"{self._type.device}"
                )
        capture = current().capture
        if capture is not None:
            capture.write_grad(self)
        self._grad = value

    @property
    def data(self) -> Tensor:
        """The same memory without the gradient side; what is written through it is not noticed by `backward`."""
        made = alias(self)
        if self._counter is not None:
            made._counter = [0]
        return made

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, TensorBase):
            raise KindError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        requires, hooks = self._lineage.requires_grad, self._lineage.hooks
        self._storage, self._chain, self._type = value._storage, value._chain, value._type
        self._strides, self._offset = value._strides, value._offset
        self._lineage = Lineage(len(self._chain), None, requires, self._storage.version)
        self._lineage.owner, self._lineage.hooks = weakref.ref(self), hooks
        self._counter, self._seen_at = value._counter, value._seen_at

    def detach(self) -> Tensor:
        """The same memory without the gradient side."""
        return alias(self)

    def detach_(self) -> Tensor:
        """Make this tensor a leaf without history. RuntimeError for views."""
        if self._root is not None:
            raise UsageError("Can't detach views in-place. Use detach() instead.")
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
        autograd.backward((self,), (gradient,), retain_graph, create_graph, inputs=inputs)

    def retain_grad(self) -> None:
        """Let `backward` fill `.grad` of this non-leaf too."""
        super().retain_grad()
        gradient_nodes.retain(self)

    def register_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook` with each gradient of this tensor; a tensor that it gives replaces the gradient."""
        return gradient_nodes.register_hook(self, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(self)` each time after a gradient was added to `.grad` of this leaf."""
        return gradient_nodes.register_post_accumulate_grad_hook(self, hook)

    @property
    def grad_fn(self) -> Any:
        """What made this tensor, for tensors with history."""
        return None if self.is_leaf or not self.requires_grad else gradient_nodes.of_tensor(self, self.grad_fn_name())

    def grad_fn_name(self) -> str:
        """PyTorch's name of the gradient node, as `repr` shows it."""
        hist = self._lineage.hist
        if len(self._chain) > self._lineage.depth:
            return self.view_names(len(self._chain) - 1)[-1]
        return hist.name if hist is not None and hist.name else "CloneBackward0"

    # observation

    def __len__(self) -> int:
        if not self._type.shape:
            raise KindError("len() of a 0-d tensor")
        return self._type.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self._type.shape:
            raise KindError("iteration over a 0-d tensor")
        return iter(shaping.unbind(self, 0))

    def __contains__(self, element: Any) -> bool:
        if not isinstance(element, TensorBase | int | float | complex):
            raise UsageError(
                f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}."
            )
        return bool(elementwise.eq(self, element).any().item())

    def __repr__(self) -> str:
        with set_grad_enabled(False):
            return tensor_text(self, "tensor" if self._prints_as_tensor else type(self).__name__)

    def __format__(self, spec: str) -> str:
        if self._type.rank == 0 and type(self) is Tensor:
            return format(self.item(), spec)
        return object.__format__(self, spec)

    def __hash__(self) -> int:
        return id(self)

    # writing

    @repeatable
    def copy_(self, src: Any, non_blocking: Any = False) -> Tensor:
        """Store the elements of a tensor, or a number, broadcast and converted."""
        if not isinstance(src, TensorBase) and not is_number(src):
            raise KindError(f"copy_(): argument 'other' (position 1) must be Tensor, not {type(src).__name__}")
        source = src if isinstance(src, TensorBase) else placed(self._type.device, literals.from_data, src, None)
        if non_blocking and self._type.device != "cpu":
            read_late(source)
        check_broadcast(source._type.shape, self._type.shape)
        if source is self:
            check_writable(self)
        else:
            write(self, source)
        return self

    @repeatable
    def fill_(self, value: Any) -> Tensor:
        """Store one number, or a 0-d tensor, everywhere. DTypeError when the dtype cannot hold the number."""
        if not isinstance(value, TensorBase):
            number = number_argument("fill_", value, "value", 1)
            check_holds(number, self._type.dtype)
            made = indexing.fill_value(fit(number, self._type.dtype), self)
            write(self, made, "FillBackward2", uniform=True)
        elif value.ndim:
            raise ShapeError(
                f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions."
            )
        else:
            write(self, value, "FillBackward3", one=True)
        return self

    @repeatable
    def zero_(self) -> Tensor:
        """Store zeros."""
        write(self, indexing.fill_value(0, self), "ZeroBackward0", uniform=True)
        return self


set_class(Tensor)
