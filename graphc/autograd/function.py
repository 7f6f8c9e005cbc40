"""Custom operations: `Function`, its context, and `once_differentiable`."""

from graphc.gradients import BackwardCFunction, Function, FunctionCtx, once_differentiable

__all__ = ["BackwardCFunction", "Function", "FunctionCtx", "once_differentiable"]
