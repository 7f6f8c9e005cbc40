"""skip_init: layers without initial values."""

from __future__ import annotations

import inspect
from typing import Any

from graphc import get_rng_state, set_rng_state
from graphc.errors import UsageError
from graphc.nn.module import Module


def skip_init(module_cls: Any, *args: Any, **kwargs: Any) -> Any:
    """`module_cls(*args, **kwargs)` whose parameters hold arbitrary values; no random numbers are drawn. RuntimeError
    for classes that do not take a `device`."""
    if not issubclass(module_cls, Module):
        raise UsageError(f"Expected a Module; got {module_cls}")
    if "device" not in inspect.signature(module_cls).parameters:
        raise UsageError("Module must support a 'device' arg to skip initialization")
    state = get_rng_state()
    made = module_cls(*args, **kwargs)
    set_rng_state(state)
    return made
