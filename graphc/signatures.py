"""Arguments and results of compiled functions: what identifies a call, and how to make its results anew."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.capture import Capture
from graphc.grad_mode import MODE
from graphc.ir.node import Node
from graphc.ir.types import TensorType, f64
from graphc.memory import AnyBuffer, part
from graphc.storage import Lineage, Storage, Value
from graphc.tensors.core import TensorBase, alias, from_buffer, new
from graphc.tensors.viewing import copied
from graphc.tensors.views import Chain, is_contiguous, meet
from graphc_runtime.buffer import Buffer


def flatten(value: Any, tensors: list[Any], floats: list[float], objects: list[Any], inside: bool = False) -> Any:
    """The structure of arguments as a key; tensors, floats and objects with an inside of their own are collected.

    `inside` lists and dictionaries, which the function may change, floats are constants.
    """
    if isinstance(value, TensorBase):
        tensors.append(value)
        return ("T", value._type, value.requires_grad, _strides_of(value), value._wrapped, value._counter is None)
    kind = type(value)
    if kind is float:
        if inside:
            return ("=", float, value.hex())
        floats.append(value)
        return ("F", len(floats) - 1)
    if kind is list:
        return (list, *(flatten(v, tensors, floats, objects, True) for v in value))
    if _is_tuple(value):
        return (kind, *(flatten(v, tensors, floats, objects, inside) for v in value))
    if kind is dict:
        return (dict, *((type(k), k, flatten(v, tensors, floats, objects, True)) for k, v in value.items()))
    if kind in (int, str, bool, bytes, type(None)):
        return ("=", kind, value)
    if kind in (slice, range) and all(type(n) in (int, type(None)) for n in (value.start, value.stop, value.step)):
        return ("=", kind, value.start, value.stop, value.step)
    if kind is complex:
        return ("=", kind, repr(value))
    if kind in (slice, range):  # no guard keeps them, so the key does
        return ("id", _Identity(value))
    objects.append(value)
    return ("id", id(value))


class _Identity:
    """An object as a part of a key: the same one is equal. It stays alive, so that no other gets its address."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is _Identity and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _strides_of(tensor: Any) -> tuple[int, ...] | None:
    """The strides of a view, None for what is none."""
    return tensor._strides if tensor._chain else None


def _is_tuple(value: Any) -> bool:
    """Whether a value is a tuple, perhaps with names, and holds nothing else."""
    return isinstance(value, tuple) and not type(value).__dictoffset__


def same_objects(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two sequences hold the same objects."""
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def aliasing(tensors: Sequence[Any]) -> tuple[tuple[int, int], ...]:
    """Which of `tensors` share memory: for each the place of the first over the same storage, and that where the very
    same tensor stands first; () when none do.
    """
    places: dict[int, int] = {}
    first = [(places.setdefault(id(t._storage), i), places.setdefault(id(t), i)) for i, t in enumerate(tensors)]
    return tuple(first) if any(place < i for i, (place, _) in enumerate(first)) else ()


# Constants among arguments that are quickly compared.
_CONSTANTS = (int, str, bool, bytes, type(None))


def _is_constant(value: Any) -> bool:
    """Whether `==` tells if another argument is the same constant: not for zeros and NaN."""
    return type(value) in _CONSTANTS or (type(value) is float and value != 0 and value == value)


class Plain:
    """Arguments that are tensors or constants: a signature that is quickly compared.

    Views that require gradients are not among them, nor different tensors over the same memory.
    """

    __slots__ = ("constants", "count", "enabled", "inference", "names", "shared", "types")

    def __init__(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.enabled, self.inference = MODE.enabled, MODE.inference
        self.names = tuple(kwargs)
        args = (*args, *kwargs.values())
        self.count = len(args)
        # Place, class, type, whether it requires gradients, the strides of a view, whether it is of inference mode.
        self.types = [
            (i, type(t), t._type, t.requires_grad, _strides_of(t), t._counter is None)
            for i, t in enumerate(args)
            if isinstance(t, TensorBase)
        ]
        self.constants = [(i, type(v), v) for i, v in enumerate(args) if not isinstance(v, TensorBase)]
        self.shared = [first for first, _ in aliasing([args[place] for place, *_ in self.types])]

    @staticmethod
    def suits(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        """Whether there is such a signature for these arguments."""
        args = (*args, *kwargs.values())
        tensors = [t for t in args if isinstance(t, TensorBase)]
        constants = [v for v in args if _is_constant(v)]
        plain = len(tensors) + len(constants) == len(args)
        if not plain or any(t._wrapped or (t._chain and t.requires_grad) for t in tensors):
            return False
        return all(first == same for first, same in aliasing(tensors))

    def fits(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Sequence[Any] | None:
        """The tensors among the arguments if these are of the same kinds, else None."""
        if kwargs or self.names:
            if tuple(kwargs) != self.names:
                return None
            args = (*args, *kwargs.values())
        if len(args) != self.count or MODE.enabled is not self.enabled or MODE.inference is not self.inference:
            return None
        for place, cls, kind, requires, strides, frozen in self.types:
            tensor = args[place]
            if type(tensor) is not cls or tensor._wrapped or (tensor._counter is None) is not frozen:
                return None
            if (tensor._strides if tensor._chain else None) != strides:
                return None
            if tensor._type is not kind and tensor._type != kind:
                return None
            lineage = tensor._lineage
            if (lineage.requires_grad or lineage.hist is not None) is not requires:
                return None
        if self.constants:
            for place, cls, value in self.constants:
                given = args[place]
                if given is not value and (type(given) is not cls or given != value):
                    return None
            args = [args[place] for place, *_ in self.types]
        count = len(args)
        if not self.shared:
            if count == 2:
                return args if args[0]._storage is not args[1]._storage else None
            return args if count < 2 or len({t._storage for t in args}) == count else None
        same = aliasing(args)
        return args if [f for f, _ in same] == self.shared and all(f == s for f, s in same) else None


def rebuild(value: Any, floats: list[Any]) -> Any:
    """Arguments with floats replaced, in the order of `flatten`. Lists and dictionaries stay the objects that they are:
    the function may change them.
    """
    if type(value) is float:
        return floats.pop(0)
    if _is_tuple(value):
        return tuple.__new__(type(value), [rebuild(v, floats) for v in value])
    return value


# results


@dataclass(frozen=True, slots=True)
class _Made:
    """How to make a returned tensor anew over output number `storage`."""

    storage: int
    type: TensorType
    chain: Chain
    strides: tuple[int, ...]
    offset: int
    name: str  # of its gradient node, empty for a tensor without history
    requires_grad: bool


def make_result(made: _Made, storages: list[Storage] | dict[int, Storage]) -> Any:
    """A tensor made as `made` says."""
    storage = storages[made.storage]
    if made.name:
        hist = Value(_NOTHING, (), made.name, True)
        hist.freed = True
        lineage = Lineage(0, hist, False, storage.version)
    else:
        lineage = Lineage(len(made.chain), None, made.requires_grad, storage.version)
    return new(storage, made.type, lineage, made.chain, made.strides, made.offset)


_NOTHING = Node("constant", (), (("value", 0.0),), TensorType(f64, ()))


@dataclass(frozen=True, slots=True)
class _View:
    """How to make a returned view of an argument anew. `follows`: it requires gradients when the argument does."""

    type: TensorType
    chain: Chain
    strides: tuple[int, ...]
    offset: int
    follows: bool
    requires_grad: bool


def view_of(tensor: Any, view: _View) -> Any:
    """A view of `tensor` made as `view` says."""
    storage = tensor._storage
    lineage = tensor._lineage if view.follows else Lineage(len(view.chain), None, view.requires_grad, storage.version)
    made = new(storage, view.type, lineage, view.chain, view.strides, view.offset)
    counter = made._counter = tensor._counter
    made._root = tensor
    if counter is not None:
        made._seen_at = counter[0]
    return made


class Recipes:
    """Results of a call as recipes to make them anew: of `arguments`, and of storages whose places are given. Lists and
    dictionaries that are guarded (`holds`) are results themselves; those of the arguments, `given`, cannot be.
    """

    def __init__(
        self,
        capture: Capture,
        places: dict[int, int],
        arguments: Sequence[Any],
        holds: Callable[[Any], bool],
        given: Any,
    ) -> None:
        self.capture = capture
        self._holds = holds
        self._given = {id(value) for value in _containers(given)}
        self.places = places
        self.arguments = arguments
        self._numbers = {id(tensor): i for i, tensor in enumerate(arguments)}
        self._holders = {id(tensor._storage): i for i, tensor in enumerate(arguments)}
        self._known: dict[int, Any] = {}  # recipes of tensors, by identity

    def of(self, value: Any) -> Any:
        if isinstance(value, TensorBase):
            if id(value) not in self._known:
                self._known[id(value)] = self._tensor(value)
            return self._known[id(value)]
        kind: Any = type(value)
        if kind in (list, dict):
            if id(value) in self._given:
                self.capture.give_up(f"a result that is a {kind.__name__} of the arguments")
            elif self._holds(value):
                return ("object", None, value)
        if kind is dict:
            return ("dict", dict, [(k, self.of(v)) for k, v in value.items()])
        if kind in (list, tuple):
            return ("seq", kind, [self.of(v) for v in value])
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return ("named", kind, [self.of(v) for v in value])
        if value is None or isinstance(value, int | float | str | bytes):
            return ("value", kind, value)
        self.capture.give_up(f"a result of type {kind.__name__}")
        return None

    def _tensor(self, tensor: Any) -> Any:
        if id(tensor) in self._numbers:
            return ("arg", None, self._numbers[id(tensor)])
        storage, lineage = tensor._storage, tensor._lineage
        place = self.places.get(id(storage))
        hist = lineage.hist
        if hist is not None and not hist.freed:
            self.capture.give_up("a result that needs its history for a later backward")
            return None
        holder = self._holders.get(id(storage))
        if holder is not None and hist is None:
            return self._part(tensor, holder)
        if place is None and hist is None:
            if not self._holds(tensor):
                self.capture.give_up("a result that was there before, and that nothing guards: a gradient")
            return ("object", None, tensor)
        if place is None:
            self.capture.give_up("a result with history over memory that existed before")
            return None
        name = hist.name if hist is not None else ""
        made = _Made(place, tensor._type, tensor._chain, tensor._strides, tensor._offset, name, lineage.requires_grad)
        return ("made", None, made)

    def _part(self, tensor: Any, holder: int) -> Any:
        """A view of the argument number `holder`."""
        argument = self.arguments[holder]
        if argument._chain:
            self.capture.give_up("a result that is a view of an argument that is a view")
            return None
        follows = tensor._lineage is argument._lineage
        requires = tensor._lineage.requires_grad
        view = _View(tensor._type, tensor._chain, tensor._strides, tensor._offset, follows, requires)
        return ("of", None, (holder, view))


def restore(recipe: Any, storages: list[Storage], tensors: Sequence[Any], made: dict[int, Any]) -> Any:
    """A result by its recipe; `made` holds the tensors made so far, by the identity of their recipes."""
    tag, kind, what = recipe
    if tag in ("made", "of"):
        found = made.get(id(recipe))
        if found is None:
            found = make_result(what, storages) if tag == "made" else view_of(tensors[what[0]], what[1])
            made[id(recipe)] = found
        return found
    if tag in ("value", "object"):
        return what
    if tag == "arg":
        return tensors[what]
    if tag == "seq":
        return kind(restore(w, storages, tensors, made) for w in what)
    if tag == "named":
        return kind(*(restore(w, storages, tensors, made) for w in what))
    return {k: restore(w, storages, tensors, made) for k, w in what}


def _containers(value: Any) -> list[Any]:
    """Lists and dictionaries in a value."""
    found: list[Any] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list | dict):
            found.append(item)
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
    return found


def tensors_in(value: Any) -> list[Any]:
    found: list[Any] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, TensorBase):
            found.append(item)
        elif isinstance(item, list | tuple):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
    return found


def stand_in_for(tensor: Any) -> Any:
    """The tensor itself when it is the whole of its storage; otherwise one over a buffer of its own elements."""
    if not tensor._chain or tensor.requires_grad:
        return tensor
    return from_buffer(argument_buffer(tensor), tensor._type)


def obstacle(tensors: Sequence[Any], captured: Container[int]) -> str:
    """Why a call must not read copies of those among its arguments that are views, or ""; `captured` are identities of
    storages that the function reaches otherwise.

    What reads a copy neither sees what is written to the memory otherwise, nor is it told from another view of it.
    """
    views: dict[int, list[Any]] = {}
    for tensor in tensors:
        views.setdefault(id(tensor._storage), []).append(tensor)
    for storage, over in views.items():
        if not any(t._chain and not t.requires_grad for t in over):
            continue
        if storage in captured or any(not t._chain or t.requires_grad for t in over):
            return "an argument that is a view of memory which the function also reaches otherwise"
        places = [(t._type, t._strides, t._offset) for t in over]
        if any(meet(a, b) for i, a in enumerate(places) for b in places[:i]):
            return "arguments that are views of the same memory"
    return ""


def argument_buffer(tensor: Any) -> AnyBuffer:
    if not tensor._chain:
        return tensor._storage.realise()
    if tensor._type.device != "cpu":
        if is_contiguous(tensor._type.shape, tensor._strides):
            return part(tensor._storage.realise(), tensor._offset * tensor.itemsize, tensor._type.nbytes)
        return copied(alias(tensor))._storage.realise()
    return Buffer.from_array(np.ascontiguousarray(tensor._array()))
