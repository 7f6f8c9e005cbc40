"""The user's element types: PyTorch's names and printing over the IR's types."""

from __future__ import annotations

import builtins

import ml_dtypes
import numpy as np

from graphc.errors import KindError, UnsupportedError, describe
from graphc.ir import types as ir


class dtype:
    """An element type as PyTorch shows it; one object per type, compared by identity. `ir` is the IR's type."""

    __slots__ = ("ir", "name")

    def __init__(self, type: ir.DType) -> None:
        self.ir = type
        self.name = type.torch_name

    @property
    def itemsize(self) -> builtins.int:
        """Bytes of one element."""
        return self.ir.itemsize

    @property
    def is_floating_point(self) -> builtins.bool:
        return self.ir.is_float

    @property
    def is_complex(self) -> builtins.bool:
        return False

    @property
    def is_signed(self) -> builtins.bool:
        return self.ir.kind in ("float", "int")

    def to_real(self) -> dtype:
        """The type itself: there are no complex types."""
        return self

    def to_complex(self) -> dtype:
        """UnsupportedError: there are no complex types."""
        raise UnsupportedError(f"{self}.to_complex(): graphc has no complex dtypes")

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> tuple[object, ...]:
        return dtype_named, (self.name,)


describe.register(dtype, str)
describe.register(ir.DType, str)

_ALL = {type: dtype(type) for type in ir.DTYPES}
_NAMED = {d.name: d for d in _ALL.values()}

float64 = double = _ALL[ir.f64]
float32 = float = _ALL[ir.f32]
float16 = half = _ALL[ir.f16]
bfloat16 = _ALL[ir.bf16]
int64 = long = _ALL[ir.i64]
int32 = int = _ALL[ir.i32]
int16 = short = _ALL[ir.i16]
int8 = _ALL[ir.i8]
uint8 = _ALL[ir.u8]
bool = _ALL[ir.boolean]

DTypeLike = dtype | type | np.dtype

_default = ir.f32


def dtype_named(name: str) -> dtype:
    """The type of PyTorch's `name` ("float32"); KeyError when there is none."""
    return _NAMED[name]


def public(type: ir.DType) -> dtype:
    """The user's object for an IR type."""
    return _ALL[type]


def to_ir(given: object) -> ir.DType:
    """The IR type for a graphc dtype, a Python type (`float` is float64, `int`, `bool`) or a NumPy dtype.

    TypeError for what is no dtype, UnsupportedError for PyTorch's dtypes that graphc does not have.
    """
    if isinstance(given, dtype):
        return given.ir
    if isinstance(given, ir.DType):
        return given
    found = None
    if isinstance(given, np.dtype | type):
        if isinstance(given, type) and given not in (builtins.float, builtins.int, builtins.bool):
            scalar = issubclass(given, np.generic)
            found = ir.dtype_of_numpy(np.dtype(given)) if scalar else None
        else:
            found = ir.dtype_of_numpy(np.dtype(given))
    if found is None:
        known = ", ".join(map(repr, _ALL.values()))
        raise KindError(
            f"argument 'dtype' must be torch.dtype, not {type(given).__name__} ({given!r}); known are {known}"
        )
    return found


def get_default_dtype() -> dtype:
    """The float type of Python floats and of creation functions."""
    return _ALL[_default]


def set_default_dtype(d: dtype) -> None:
    """Set the float type of Python floats and of creation functions; it must be a float type (TypeError)."""
    global _default
    if not isinstance(d, dtype):
        raise KindError(
            f"invalid dtype object: only floating-point types are supported as the default type, got {type(d).__name__}"
        )
    if not d.ir.is_float:
        raise KindError(f"only floating-point types are supported as the default type, not {d}")
    _default = d.ir


def default_ir() -> ir.DType:
    """The default float type, as the IR's type."""
    return _default


# limits


class finfo:
    """Limits of a float type: `bits`, `eps`, `max`, `min`, `tiny`, `smallest_normal`, `resolution`, `dtype`."""

    def __init__(self, type: dtype | None = None) -> None:
        found = get_default_dtype() if type is None else type
        if not isinstance(found, dtype):
            raise KindError(f"finfo(): argument 'type' (position 1) must be torch.dtype, not {type.__class__.__name__}")
        if not found.is_floating_point:
            raise KindError(f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle '{found}'")
        known = ml_dtypes.finfo(found.ir.numpy)
        self.bits = found.ir.bits
        self.eps, self.max, self.min = (builtins.float(v) for v in (known.eps, known.max, known.min))
        self.tiny = self.smallest_normal = builtins.float(known.smallest_normal)
        self.resolution = 10.0 ** -_DIGITS[found.name]
        self.dtype = found.name

    def __repr__(self) -> str:
        names = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        return f"finfo({', '.join(f'{n}={getattr(self, n):g}' for n in names)}, dtype={self.dtype})"

    def __eq__(self, other: object) -> builtins.bool:
        return isinstance(other, finfo) and self.dtype == other.dtype

    def __hash__(self) -> builtins.int:
        return hash(self.dtype)


_DIGITS = {"float64": 15, "float32": 6, "float16": 3, "bfloat16": 2}


class iinfo:
    """Limits of an integer type: `bits`, `max`, `min`, `dtype`."""

    def __init__(self, type: dtype) -> None:
        if not isinstance(type, dtype):
            raise KindError(f"iinfo(): argument 'type' (position 1) must be torch.dtype, not {type.__class__.__name__}")
        if type is bool:
            raise KindError("torch.bool is not supported by torch.iinfo")
        if type.is_floating_point:
            raise KindError(f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{type}'")
        known = np.iinfo(type.ir.numpy)
        self.bits, self.max, self.min = type.ir.bits, builtins.int(known.max), builtins.int(known.min)
        self.dtype = type.name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"

    def __eq__(self, other: object) -> builtins.bool:
        return isinstance(other, iinfo) and self.dtype == other.dtype

    def __hash__(self) -> builtins.int:
        return hash(self.dtype)


_limits: dict[ir.DType, finfo] = {}


def limits(type: ir.DType) -> finfo:
    """`finfo` of a float type of the IR, made once."""
    if type not in _limits:
        _limits[type] = finfo(_ALL[type])
    return _limits[type]
