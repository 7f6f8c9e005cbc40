"""The names of all passes, and the text form of a list of passes."""

from __future__ import annotations

import difflib
import importlib
import re
from dataclasses import Field

from graphc.errors import GraphcError
from graphc.ir.record import members
from graphc.passes.base import Pass

# name -> "module:Class"; modules are loaded when a pass is asked for, so that listing names costs nothing
PASSES: dict[str, str] = {
    "channels_last": "graphc.passes.channels_last:ChannelsLast",
    "decompose": "graphc.passes.decompose:Decompose",
    "join_pads": "graphc.passes.join_pads:JoinPads",
    "join_products": "graphc.passes.join_products:JoinProducts",
    "layout": "graphc.passes.layout:Layout",
    "minimal_filtering": "graphc.passes.minimal_filtering:MinimalFiltering",
    "pair_products": "graphc.passes.pair_products:PairProducts",
    "reduction_order": "graphc.passes.reduction_order:ReductionOrder",
    "share_masks": "graphc.passes.share_masks:ShareMasks",
    "share_pads": "graphc.passes.share_pads:SharePads",
    "simplify": "graphc.passes.simplify:Simplify",
    "sink_concats": "graphc.passes.sink_concats:SinkConcats",
    "skip_zeros": "graphc.passes.skip_zeros:SkipZeros",
    "sort_indices": "graphc.passes.sort_indices:SortIndices",
    "sort_values": "graphc.passes.sort_values:SortValues",
    "split_folds": "graphc.passes.split_folds:SplitFolds",
    "split_labels": "graphc.passes.split_labels:SplitLabels",
    "split_leading": "graphc.passes.split_leading:SplitLeading",
    "split_reductions": "graphc.passes.split_reductions:SplitReductions",
    "strip_detach": "graphc.passes.simplify:StripDetach",
    "wide_concats": "graphc.passes.wide_concats:WideConcats",
}

# What an option takes, by the type of its default.
_WANTED: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number"}
_STEP = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_-]*)\s*(?:\{([^{}]*)\})?\s*(,|$)")


def pass_class(name: str) -> type[Pass]:
    """The class of the pass `name`. Raises GraphcError that lists the passes there are."""
    target = PASSES.get(name.replace("-", "_"))
    if target is None:
        close = difflib.get_close_matches(name, PASSES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise GraphcError(f"there is no pass {name!r}{hint} (passes: {', '.join(sorted(PASSES))})")
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def parse_pipeline(text: str) -> list[Pass]:
    """The passes of a text such as `decompose,simplify{reassociates=true}`.

    Raises GraphcError when a pass, an option or a value does not exist; the message lists what does.
    """
    passes: list[Pass] = []
    at = 0
    while at < len(text) or (passes and text.rstrip().endswith(",")):
        match = _STEP.match(text, at)
        if match is None:
            raise GraphcError(
                f"cannot read the pass list {text!r} at {text[at:]!r}; write name,name{{option=value}},..."
            )
        passes.append(_make(pass_class(match[1]), match[2] or ""))
        at = match.end()
        if not match[3]:
            break
    return passes


def _make(kind: type[Pass], options: str) -> Pass:
    known = {f.name: f for f in members(kind)}
    given: dict[str, object] = {}
    for item in filter(None, (part.strip() for part in options.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if name not in known:
            has = ", ".join(f"{f.name}={f.default}" for f in known.values()) or "none"
            raise GraphcError(f"pass {kind.name} has no option {name!r}; its options are: {has}")
        if name in given:
            raise GraphcError(f"option {name} of pass {kind.name} is given twice")
        given[name] = _value(kind, known[name], value if equals else "true")
    return kind(**given)


def _value(kind: type[Pass], field: Field[object], text: str) -> object:
    wanted = type(field.default)
    if wanted is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if wanted is str:
        return text
    if wanted in (int, float):
        try:
            return wanted(text)
        except ValueError:
            pass
    raise GraphcError(f"option {field.name} of pass {kind.name} wants {_WANTED[wanted]}, not {text!r}")
