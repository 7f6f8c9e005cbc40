"""What is said of an argument that is no tensor, or no number, where a function wants one.

Functions look at their arguments as they need them. Only when one fails its signature is read for what was wrong.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from graphc.errors import GraphcError, KindError
from graphc.naming import unnamed
from graphc.tensors.core import TensorBase
from graphc.tensors.operands import NUMBERS

_WANTED: dict[str, tuple[type, ...]] = {
    "Tensor": (TensorBase,),
    "Tensor | None": (TensorBase, type(None)),
    "Operand": (TensorBase, *NUMBERS),
    **dict.fromkeys(("float", "int"), (TensorBase, *NUMBERS)),
}


def wrong_kind(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> KindError | None:
    """The error for the first argument whose kind is not what the signature of `function` wants, if there is one."""
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return None  # Python says which argument is missing or too much
    for position, parameter in enumerate(signature.parameters.values(), 1):
        wanted = _WANTED.get("Tensor" if parameter.name == "self" else str(parameter.annotation))
        if wanted is None or parameter.name not in given:
            continue
        value = given[parameter.name]
        is_many = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        for each in value if is_many else (value,):
            if not isinstance(each, wanted) and not (each is None and parameter.default is None):
                kind = "Number" if wanted is _WANTED["float"] else "Tensor"
                return KindError(
                    f"{function.__name__}(): argument '{parameter.name}' (position {position}) must be {kind}, not "
                    f"{type(each).__name__}"
                )
    return None


@unnamed
def call_checked(run: Callable[..., Any], function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
    """`run(function, args, kwargs)`, which calls `function`. KindError where an argument is not of the kind that its
    signature wants.
    """
    try:
        return run(function, args, kwargs)
    except GraphcError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        wrong = wrong_kind(function, args, kwargs)
        if wrong is None:
            raise
        raise wrong.with_traceback(error.__traceback__) from None


def _call(function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
    return function(*args, **kwargs)


def kinds_checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose errors tell of arguments of wrong kinds."""

    @functools.wraps(function)
    @unnamed
    def checked(*args: Any, **kwargs: Any) -> Any:
        return call_checked(_call, function, args, kwargs)

    return checked
