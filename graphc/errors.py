"""Error classes of the compiler. Each says what was wrong, where, and what to do.

Classes that stand for an error that PyTorch also raises inherit from PyTorch's error type, so `except RuntimeError`
in PyTorch code keeps working.
"""

from __future__ import annotations


class GraphcError(Exception):
    """Base of every error that graphc raises on purpose."""


class ShapeError(GraphcError, RuntimeError):
    """Operand shapes do not fit the operator. Cure: reshape, expand or fix the sizes named in the message."""


class DTypeError(GraphcError, RuntimeError):
    """Operand dtypes do not fit the operator. Cure: convert with `.to(dtype)`."""


class DeviceError(GraphcError, AssertionError, RuntimeError):
    """A device that is not there. PyTorch raises one or the other of the two builtin types."""


class VerifyError(GraphcError):
    """A graph breaks a rule of the IR. The message shows the guilty node inside the printed graph."""


class IRSyntaxError(GraphcError, ValueError):
    """Text is not valid IR. The message has line, column and a caret."""


class AutodiffError(GraphcError, RuntimeError):
    """A gradient was asked of something that has none."""


class LinAlgError(GraphcError, RuntimeError):
    """A factorisation failed for the values of a matrix: it is singular, not positive definite, or not finite."""


class CompileError(GraphcError, RuntimeError):
    """A graph could not be turned into native code."""


class UnsupportedError(GraphcError, NotImplementedError):
    """The request is meaningful but graphc does not do it; the message names what is missing."""


class OutOfRange(GraphcError, IndexError, RuntimeError):
    """An index tensor holds an index that is out of range. Some operators of PyTorch raise IndexError then, others
    RuntimeError. Cure: fix the indices.
    """
