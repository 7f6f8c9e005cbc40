"""Programs of views, writes and gradients that run in PyTorch and in graphc side by side.

A program is a list of instructions: a name and four numbers, which are taken modulo what there is to choose from. So
every list is a program, and hypothesis can shorten one that fails.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import graphc

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

Numbers = tuple[int, int, int, int]
Instruction = tuple[str, Numbers]

MOST_TENSORS = 12
MOST_ELEMENTS = 200
# PyTorch gives up gradients of what was written since; graphc keeps the values that they need.
GAVE_UP = ("modified by an inplace operation", "backward through the graph a second time", "has been modified inplace")


class Different(AssertionError):
    """The two libraries differ."""


@dataclass
class Pair:
    """One tensor in both libraries."""

    theirs: Any
    ours: Any

    def of(self, library: Any) -> Any:
        return self.theirs if library is torch else self.ours


@dataclass
class Machine:
    """The state of a program, and what was done, for messages."""

    pairs: list[Pair] = field(default_factory=list)
    arrays: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    behind: bool = False  # memory that gradients read may be written without PyTorch noticing

    def pick(self, number: int) -> Pair:
        return self.pairs[number % len(self.pairs)]

    def both(self, what: str, run: Callable[[Any], Any]) -> tuple[Any, Any] | None:
        """Run in both libraries; None when both raise alike."""
        self.log.append(what)
        theirs, wanted = _attempt(run, torch)
        if wanted is not None and any(text in str(wanted) for text in GAVE_UP):
            raise _GaveUp
        ours, found = _attempt(run, graphc)
        if wanted is None and found is None:
            return theirs, ours
        if found is None or wanted is None or not isinstance(found, _kinds(wanted)):
            raise Different(f"{what}: graphc {found!r}, PyTorch {wanted!r}") from found
        self.log[-1] += f" raises {type(wanted).__name__}"
        return None

    def add(self, made: tuple[Any, Any] | None) -> None:
        if made is None or not isinstance(made[0], torch.Tensor):
            return
        pair = Pair(*made)
        self.facts(pair)
        if made[0].numel() <= MOST_ELEMENTS and not any(p.theirs is made[0] for p in self.pairs):
            if len(self.pairs) >= MOST_TENSORS:
                del self.pairs[1]
            self.pairs.append(pair)

    def facts(self, pair: Pair) -> None:
        """All that can be told without looking at elements."""
        ours, theirs = pair.ours, pair.theirs
        for name, get in FACTS.items():
            found, wanted = get(ours), _told(get, theirs)
            if found != wanted:
                raise Different(f"{name}: {found}, PyTorch {wanted}")
        if (ours._base is None) != (theirs._base is None):
            raise Different(f"_base: {ours._base is not None}, PyTorch {theirs._base is not None}")
        for place, other in enumerate(self.pairs):
            if (ours._base is other.ours) != (theirs._base is other.theirs):
                raise Different(f"_base is tensor {place}: {ours._base is other.ours}, PyTorch the opposite")

    def values(self, pair: Pair) -> None:
        _same("values", pair.ours.detach(), pair.theirs.detach())
        ours, theirs = pair.ours.grad, pair.theirs.grad
        if ours is not None or theirs is not None:  # none is as good as zeros
            shape = tuple((theirs if theirs is not None else ours).shape)
            _same(
                "grad", graphc.zeros(shape) if ours is None else ours, torch.zeros(shape) if theirs is None else theirs
            )

    def refresh(self) -> None:
        """Let PyTorch notice that what its views see was written: until then it takes some for leaves."""
        for pair in self.pairs:
            _told(lambda t: t.grad_fn, pair.theirs)

    def look(self) -> None:
        """Compare everything."""
        for pair in self.pairs:
            self.facts(pair)
            self.values(pair)
        for theirs, ours in self.arrays:
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def _told(get: Callable[[Any], Any], theirs: Any) -> Any:
    try:
        return get(theirs)
    except RuntimeError as error:
        if "has been modified inplace" in str(error):
            raise _GaveUp from None
        raise


class _GaveUp(Exception):
    """PyTorch refuses a gradient that graphc can give: here programs end."""


FACTS: dict[str, Callable[[Any], Any]] = {
    "shape": lambda t: tuple(t.shape),
    "strides": lambda t: tuple(t.stride()),
    "offset": lambda t: t.storage_offset(),
    "dtype": lambda t: str(t.dtype),
    "requires_grad": lambda t: t.requires_grad,
    "is_leaf": lambda t: t.is_leaf,
    "is_contiguous": lambda t: t.is_contiguous(),
    "is_view": lambda t: t._is_view(),
}


def _attempt(run: Callable[[Any], Any], library: Any) -> tuple[Any, Exception | None]:
    try:
        return run(library), None
    except Exception as error:
        return None, error


def _kinds(error: Exception) -> tuple[type[BaseException], ...]:
    """Errors that are like `error`. What is wrong in two ways may be said to be wrong in either."""
    return (RuntimeError, IndexError) if isinstance(error, RuntimeError | IndexError) else (type(error),)


def _same(what: str, ours: Any, theirs: Any) -> None:
    found, wanted = np.asarray(ours.tolist()), np.asarray(theirs.tolist())
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=1e-7, atol=1e-7, equal_nan=True):
        raise Different(f"{what}:\n{found}\nPyTorch:\n{wanted}")


# views


def _dims(t: Any, a: int, b: int) -> tuple[int, int]:
    n = max(t.dim(), 1)
    return a % n, b % n


def _part(t: Any, a: int, b: int, c: int) -> Any:
    d = a % max(t.dim(), 1)
    n = t.shape[d] if t.dim() else 0
    start = b % (n + 1)
    return (slice(None),) * d + (slice(start, start + c % (n + 1), 1 + b % 2),)


SHAPES = ((-1,), (2, -1), (-1, 2), (3, -1), (1, -1, 1), (2, 3), (2, 2, -1), (-1, 3))

VIEWS: dict[str, Callable[[Any, int, int, int], Any]] = {
    "slice": lambda t, a, b, c: t[_part(t, a, b, c)],
    "int": lambda t, a, b, c: t[a % 5 - 2],
    "ints": lambda t, a, b, c: t[..., b % 4 - 1],
    "none": lambda t, a, b, c: t[None],
    "ellipsis": lambda t, a, b, c: t[...],
    "select": lambda t, a, b, c: t.select(a % 3, b % 4),
    "narrow": lambda t, a, b, c: t.narrow(a % 3, b % 3, c % 3),
    "transpose": lambda t, a, b, c: t.transpose(*_dims(t, a, b)),
    "T": lambda t, a, b, c: t.permute(tuple(range(t.dim() - 1, -1, -1))),
    "mT": lambda t, a, b, c: t.mT,
    "view": lambda t, a, b, c: t.view(*SHAPES[a % len(SHAPES)]),
    "reshape": lambda t, a, b, c: t.reshape(*SHAPES[a % len(SHAPES)]),
    "flatten": lambda t, a, b, c: t.flatten(*_dims(t, a, b)),
    "expand": lambda t, a, b, c: t.expand(1 + a % 3, *t.shape),
    "unsqueeze": lambda t, a, b, c: t.unsqueeze(a % 4 - 2),
    "squeeze": lambda t, a, b, c: t.squeeze() if a % 2 else t.squeeze(b % 3),
    "diagonal": lambda t, a, b, c: t.diagonal(a % 5 - 2, *_dims(t, b, c)),
    "unfold": lambda t, a, b, c: t.unfold(a % 2, 1 + b % 3, 1 + c % 3),
    "movedim": lambda t, a, b, c: t.movedim(*_dims(t, a, b)),
    "unbind": lambda t, a, b, c: t.unbind(a % 2)[b % 2],
    "split": lambda t, a, b, c: t.split(1 + a % 2, b % 2)[c % 2],
    "chunk": lambda t, a, b, c: t.chunk(1 + a % 3, b % 2)[-1],
    "tensor_split": lambda t, a, b, c: t.tensor_split(1 + a % 3, b % 2)[0],
    "detach": lambda t, a, b, c: t.detach(),
    "data": lambda t, a, b, c: t.data,
    "as_strided": lambda t, a, b, c: t.detach().as_strided((2, 2), (1 + a % 2, b % 2 + 2), c % 3),
    "unflatten": lambda t, a, b, c: t.unflatten(a % 2, (-1, 2)),
}


def view(m: Machine, n: Numbers) -> None:
    name = list(VIEWS)[n[0] % len(VIEWS)]
    pair = m.pick(n[1])
    if name == "data":
        _note_write(m)
    with _mode(n[3] % 11 == 0):
        m.add(m.both(f"view {name} of {n[1] % len(m.pairs)}", lambda lib: VIEWS[name](pair.of(lib), n[2], n[3], n[0])))


# writes


def _dense(t: Any) -> bool:
    """Whether PyTorch can tell what memory the tensor spans."""
    expected = 1
    for stride, extent in sorted((s, n) for n, s in zip(t.shape, t.stride(), strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= extent
    return True


def _overlapping(t: Any) -> bool:
    """Whether elements are one in memory, which PyTorch writes one by one."""
    places = np.zeros((), np.int64)
    for extent, stride in zip(t.shape, t.stride(), strict=True):
        places = places[..., None] + np.arange(extent) * stride
    return len(np.unique(places)) < places.size


def _blurred(target: Any, source: Any) -> bool:
    """Whether what a write gives depends on its order, and PyTorch does not notice."""
    if _overlapping(target):
        return True
    if target is source or not np.shares_memory(target.detach().numpy(), source.detach().numpy()):
        return False
    return not (_dense(target) and _dense(source) and target.shape == source.shape)


def _operand(m: Machine, target: Pair, number: int) -> Pair:
    source = m.pick(number)
    if _blurred(target.theirs, source.theirs):
        return Pair(source.theirs.clone(), source.ours.clone())
    return source


def _index(lib: Any, t: Any, a: int, low: int = -1) -> Any:
    n = t.shape[0] if t.dim() else 1
    return lib.tensor([a % (n - low) + low, 0][: (1 + a % 2) if n else 0], dtype=lib.int64)


Write = Callable[[Any, Any, Any, int, int], Any]

WRITES: dict[str, Write] = {
    "fill_": lambda lib, t, u, a, b: t.fill_(a % 7 - 3),
    "zero_": lambda lib, t, u, a, b: t.zero_(),
    "add_ number": lambda lib, t, u, a, b: t.add_(a % 3),
    "mul_ number": lambda lib, t, u, a, b: t.mul_(a % 4 - 1.5),
    "add_": lambda lib, t, u, a, b: t.add_(u),
    "mul_": lambda lib, t, u, a, b: t.mul_(u),
    "sub_ alpha": lambda lib, t, u, a, b: t.sub_(u, alpha=2),
    "copy_": lambda lib, t, u, a, b: t.copy_(u),
    "relu_": lambda lib, t, u, a, b: t.relu_(),
    "set int": lambda lib, t, u, a, b: t.__setitem__(a % 4 - 1, b % 5),
    "set part": lambda lib, t, u, a, b: t.__setitem__(_part(t, a, b, a + b), 2.5),
    "set tensor": lambda lib, t, u, a, b: t.__setitem__(a % 3, u),
    "set all": lambda lib, t, u, a, b: t.__setitem__(slice(None), u),
    "set index": lambda lib, t, u, a, b: t.__setitem__(_index(lib, t, a), 1.5),
    "set index tensor": lambda lib, t, u, a, b: t.__setitem__(_index(lib, t, a), u),
    "set mask": lambda lib, t, u, a, b: t.__setitem__(t > a % 3, b % 4),
    "masked_fill_": lambda lib, t, u, a, b: t.masked_fill_(t < 0, a % 3),
    "index_add_": lambda lib, t, u, a, b: t.index_add_(0, _index(lib, t, a, 0), u),
    "index_fill_": lambda lib, t, u, a, b: t.index_fill_(0, _index(lib, t, a), a % 3),
    "index_copy_": lambda lib, t, u, a, b: t.index_copy_(0, _index(lib, t, 2 * a, 0), u),
    "scatter_": lambda lib, t, u, a, b: t.scatter_(0, lib.zeros((1,) * t.dim(), dtype=lib.int64), 2.5),
    "scatter_add_": lambda lib, t, u, a, b: t.scatter_add_(
        0, lib.zeros((1,) * t.dim(), dtype=lib.int64), t.detach().clone()
    ),
    "index_put_": lambda lib, t, u, a, b: t.index_put_((_index(lib, t, a),), u, accumulate=bool(a % 2)),
}
UNIFORM = ("fill_", "zero_", "set part", "set int", "masked_fill_", "set mask")


def write(m: Machine, n: Numbers) -> None:
    name = list(WRITES)[n[0] % len(WRITES)]
    target = m.pick(n[1])
    source = _operand(m, target, n[2])
    expanded = any(s == 0 and k > 1 for s, k in zip(target.theirs.stride(), target.theirs.shape, strict=True))
    special = "mask" in name or "index" in name or target.theirs.requires_grad
    if _overlapping(target.theirs) and (not expanded or special):
        return  # PyTorch writes these elements one after the other, or warns, or fails in `backward`
    m.refresh()
    with _mode(n[3] % 4 == 0):
        m.both(
            f"write {name} into {n[1] % len(m.pairs)}",
            lambda lib: WRITES[name](lib, target.of(lib), source.of(lib), n[2], n[3]),
        )
    m.facts(target)


def _mode(off: bool) -> Any:
    stack = contextlib.ExitStack()
    if off:
        stack.enter_context(torch.no_grad())
        stack.enter_context(graphc.no_grad())
    return stack


def reshape_in_place(m: Machine, n: Numbers) -> None:
    pair = m.pick(n[1])
    name = ("t_", "unsqueeze_", "squeeze_", "transpose_")[n[0] % 4]
    args: tuple[int, ...] = {"unsqueeze_": (n[2] % 3,), "transpose_": _dims(pair.theirs, n[2], n[3])}.get(name, ())
    m.refresh()
    m.both(f"{name} of {n[1] % len(m.pairs)}", lambda lib: getattr(pair.of(lib), name)(*args))
    m.facts(pair)


# arithmetic


VALUES: dict[str, Write] = {
    "add": lambda lib, t, u, a, b: t + u,
    "mul": lambda lib, t, u, a, b: t * u,
    "sub": lambda lib, t, u, a, b: t - 2 * u,
    "scale": lambda lib, t, u, a, b: t * (a % 5 - 2),
    "sum": lambda lib, t, u, a, b: t.sum(a % 3 - 1),
    "total": lambda lib, t, u, a, b: t.sum(),
    "relu": lambda lib, t, u, a, b: t.relu(),
    "sigmoid": lambda lib, t, u, a, b: t.sigmoid(),
    "clone": lambda lib, t, u, a, b: t.clone(),
    "cat": lambda lib, t, u, a, b: lib.cat([t, u]),
    "where": lambda lib, t, u, a, b: lib.where(t > 0, t, u),
    "gather": lambda lib, t, u, a, b: t[_index(lib, t, a)],
    "mask": lambda lib, t, u, a, b: t[t > 0],
    "index_select": lambda lib, t, u, a, b: t.index_select(0, _index(lib, t, a, 0)),
    "new": lambda lib, t, u, a, b: lib.arange(12.0, dtype=lib.float64).reshape(3, 4)[: 1 + a % 3].clone() - b % 5,
}


def _own(lib: Any, t: Any) -> Any:
    """A result in row-major order, as graphc gives all; PyTorch's keep the order of their operands."""
    return t.clone(memory_format=torch.contiguous_format) if lib is torch else t


def compute(m: Machine, n: Numbers) -> None:
    name = list(VALUES)[n[0] % len(VALUES)]
    first, second = m.pick(n[1]), m.pick(n[2])
    with _mode(n[3] % 9 == 0):
        m.add(
            m.both(
                f"compute {name} of {n[1] % len(m.pairs)} and {n[2] % len(m.pairs)}",
                lambda lib: _own(lib, VALUES[name](lib, first.of(lib), second.of(lib), n[2], n[3])),
            )
        )


# looking


def observe(m: Machine, n: Numbers) -> None:
    m.log.append(f"look at {n[1] % len(m.pairs)}")
    m.values(m.pick(n[1]))


def branch(m: Machine, n: Numbers) -> None:
    pair = m.pick(n[1])

    def run(lib: Any) -> Any:
        t = pair.of(lib)
        return _own(lib, t * 2 if t.sum() > 0 else t - 1)

    m.add(m.both(f"branch on {n[1] % len(m.pairs)}", run))


def numpy_write(m: Machine, n: Numbers) -> None:
    pair = m.pick(n[1])
    if _overlapping(pair.theirs):
        return
    made = m.both(f"array of {n[1] % len(m.pairs)}", lambda lib: pair.of(lib).numpy())
    if made is not None:
        m.arrays = [*m.arrays[-3:], made]
        _note_write(m)
        for array in m.arrays[n[2] % len(m.arrays)]:
            array += n[3] % 3


def _note_write(m: Machine) -> None:
    """PyTorch's gradients read what NumPy, or somebody with `.data`, wrote since; graphc's the values of then."""
    m.behind = m.behind or any(_told(lambda t: t.requires_grad, p.theirs) for p in m.pairs)


def array_write(m: Machine, n: Numbers) -> None:
    if m.arrays:
        m.log.append("write an array")
        _note_write(m)
        for array in m.arrays[n[1] % len(m.arrays)]:
            array[...] = n[2] % 4


# gradients


def require(m: Machine, n: Numbers) -> None:
    pair = m.pick(n[1])
    base = pair.theirs if pair.theirs._base is None else pair.theirs._base
    if sum(p.theirs is base or p.theirs._base is base for p in m.pairs) > 1:
        return  # PyTorch makes leaves of the views that it has given already
    memory = pair.theirs.untyped_storage().data_ptr()
    if base is not pair.theirs and sum(p.theirs.untyped_storage().data_ptr() == memory for p in m.pairs) > 1:
        return  # PyTorch loses the gradients of a leaf that is a view when another tensor over its memory is written
    m.both(f"requires_grad_ of {n[1] % len(m.pairs)}", lambda lib: pair.of(lib).requires_grad_())
    m.facts(pair)


def backward(m: Machine, n: Numbers) -> None:
    if m.behind:
        raise _GaveUp
    pair = m.pick(n[1])

    def run(lib: Any) -> None:
        t = pair.of(lib)
        weights = lib.arange(1.0, t.numel() + 1, dtype=lib.float64).reshape(t.shape)
        (t * weights).sum().backward(retain_graph=True)

    m.both(f"backward of {n[1] % len(m.pairs)}", run)


def clear(m: Machine, n: Numbers) -> None:
    m.log.append("clear gradients")
    for pair in m.pairs:
        if pair.theirs.grad is not None and pair.ours.grad is not None:
            if n[0] % 2:
                pair.theirs.grad = pair.ours.grad = None
            else:
                pair.theirs.grad.zero_()
                pair.ours.grad.zero_()


INSTRUCTIONS: dict[str, Callable[[Machine, Numbers], None]] = {
    "view": view,
    "write": write,
    "compute": compute,
    "reshape_in_place": reshape_in_place,
    "observe": observe,
    "branch": branch,
    "numpy_write": numpy_write,
    "array_write": array_write,
    "require": require,
    "backward": backward,
    "clear": clear,
}
# How often each is drawn.
NAMES = [*["view"] * 6, *["write"] * 6, *["compute"] * 3, *["require"] * 2, *["backward"] * 2, *INSTRUCTIONS]


def run(program: list[Instruction]) -> None:
    """Run a program in both libraries; Different, with all that was done, when they differ."""
    m = Machine()
    start = np.arange(12.0).reshape(3, 4) - 4
    m.pairs.append(Pair(torch.tensor(start), graphc.tensor(start)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, numbers in program:
                INSTRUCTIONS[name](m, numbers)
            m.look()
    except _GaveUp:
        return
    except Exception as error:
        if any(text in str(error) for text in GAVE_UP):
            return
        done = "\n  ".join(m.log)
        raise Different(f"{type(error).__name__}: {error}\nafter\n  {done}") from error
