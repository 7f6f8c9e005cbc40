"""Calls of a module with other tensors in place of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc import Tensor
from graphc.errors import InputError, UsageError
from graphc.nn.hook_tables import count_write
from graphc.nn.module import Module


def _replacements(module: Module, given: Mapping[str, Tensor], tie_weights: bool, strict: bool) -> dict[str, Tensor]:
    """Tensor by name, for all names of a tied tensor if one of them is given."""
    names: dict[int, list[str]] = {}
    for members in (module.named_parameters, module.named_buffers):
        for name, held in members(remove_duplicate=False):
            names.setdefault(id(held), []).append(name)
    known = {name for group in names.values() for name in group}
    unexpected = [name for name in given if name not in known]
    missing = [group for group in names.values() if not any(name in given for name in group)]
    if strict and (unexpected or missing):
        texts = [f"Unexpected key(s): {', '.join(sorted(unexpected))}."] if unexpected else []
        texts += [f"Missing key(s): {', '.join(sorted(n for group in missing for n in group))}."] if missing else []
        raise UsageError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t" + "\n\t".join(texts))
    made = dict(given)
    for group in names.values() if tie_weights else ():
        values = [given[name] for name in group if name in given]
        if any(value is not values[0] for value in values):
            raise InputError(
                f"functional_call got multiple values for keys {group}, which are tied. Consider using "
                "tie_weights=False"
            )
        made |= dict.fromkeys(group, values[0]) if values else {}
    return made


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """`module(*args, **kwargs)` with the given tensors as parameters and buffers, which then are as before."""
    given: dict[str, Tensor] = {}
    several = not isinstance(parameter_and_buffer_dicts, Mapping)
    for part in parameter_and_buffer_dicts if several else (parameter_and_buffer_dicts,):
        given |= dict(part)
    saved: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for name, value in _replacements(module, given, tie_weights, strict).items():
            path, _, last = name.rpartition(".")
            owner = module.get_submodule(path)
            table = next((t for t in (owner._parameters, owner._buffers) if last in t), None)
            if table is None:
                raise AttributeError(f"{type(owner).__name__} has no attribute `{last}`")
            saved.append((table, last, table[last]))
            table[last] = value
        count_write()
        positional = () if args is None else args if isinstance(args, tuple) else (args,)
        return module(*positional, **(kwargs or {}))
    finally:
        for table, last, value in reversed(saved):
            table[last] = value
        count_write()
