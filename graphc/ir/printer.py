"""The text form of graphs (docs/ir.md), written. `graphc.ir.parser` reads it back exactly.

Values are numbered by their place in the graph; an input that has a name shows it, made valid and unique here.
Everything is a plain loop over the nodes, so length and depth of a graph do not matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from graphc.ir.node import AttrValue, Location, Node
from graphc.ir.types import DType

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_INVALID = re.compile(r"[^A-Za-z0-9_.]")


def quote(text: str) -> str:
    """`text` as a string literal of the IR: JSON's, ASCII only, so that any text is safe."""
    return json.dumps(text)


def value_names(inputs: Sequence[Node], nodes: Iterable[Node]) -> dict[Node, str]:
    """The printed name of each node, without `%`: an input by its name, made valid and unique; all else by number."""
    taken: set[str] = set()
    copies: dict[str, int] = {}
    names: dict[Node, str] = {}
    is_input = set(inputs)
    for number, node in enumerate(nodes):
        hint = _hint(node) if node in is_input else ""
        name = hint or str(number)
        while name in taken:
            copies[hint] = copies.get(hint, 0) + 1
            name = f"{hint}_{copies[hint]}"
        taken.add(name)
        names[node] = name
    return names


def _hint(node: Node) -> str:
    hint = dict(node.attrs).get("name", "")
    if not isinstance(hint, str) or not hint:
        return ""
    valid = _INVALID.sub("_", hint)
    return valid if _IDENTIFIER.fullmatch(valid) else f"_{valid}"


def format_attr(value: AttrValue) -> str:
    """An attribute value as text; floats exactly."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, DType):
        return value.name
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return repr(value)


def format_locations(locs: Iterable[Location]) -> str:
    """` loc("file.py":1, ...)`, sorted, or nothing when there are none."""
    places = ", ".join(f"{quote(at.file)}:{at.line}" for at in sorted(locs))
    return f" loc({places})" if places else ""


def format_node(node: Node, names: Mapping[Node, str], locations: bool = False) -> str:
    """One node as its line of text, without indentation. An operand that is missing in `names` shows as `%?`."""
    operands = ", ".join(f"%{names.get(operand, '?')}" for operand in node.inputs)
    attrs = ", ".join(f"{name} = {format_attr(value)}" for name, value in node.attrs)
    text = f"%{names.get(node, '?')} = {node.op}"
    if operands:
        text += f" {operands}"
    if attrs:
        text += f" {{{attrs}}}"
    return f"{text} : {node.type}{format_locations(node.locs) if locations else ''}"


def format_header(name: str, inputs: Sequence[Node], names: Mapping[Node, str], locations: bool = False) -> str:
    """The first line of a graph: its name and its inputs."""
    parameters = ", ".join(f"%{names[x]}: {x.type}{format_locations(x.locs) if locations else ''}" for x in inputs)
    return f"graph @{name if _IDENTIFIER.fullmatch(name) else quote(name)}({parameters}) {{"


def format_return(outputs: Sequence[Node], names: Mapping[Node, str]) -> str:
    """The last statement of a graph."""
    return " ".join(["return", ", ".join(f"%{names.get(o, '?')}" for o in outputs)]).rstrip()


def print_graph(
    name: str, inputs: Sequence[Node], nodes: Sequence[Node], outputs: Sequence[Node], locations: bool = False
) -> str:
    """A graph as text that `parse_graph` reads back. `nodes` holds every node, inputs first, operands before users.

    With `locations`, each value shows the user's source lines that it came from.
    """
    names = value_names(inputs, nodes)
    is_input = set(inputs)
    body = [f"  {format_node(node, names, locations)}" for node in nodes if node not in is_input]
    return "\n".join([format_header(name, inputs, names, locations), *body, f"  {format_return(outputs, names)}", "}"])
