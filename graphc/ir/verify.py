"""The rules of the IR, checked: every node against its operator's record, every graph against its own structure."""

from __future__ import annotations

from typing import NoReturn

from graphc.errors import GraphcError, VerifyError
from graphc.ir.graph import Graph
from graphc.ir.node import AttrValue, Node
from graphc.ir.opdef import OPS, Attr, attrs_of
from graphc.ir.printer import format_header, format_node, format_return, value_names
from graphc.ir.types import DType, TensorType, f32, f64, i32, i64

# Operators whose type is stated, not inferred.
TYPE_GIVEN = frozenset({"input", "constant", "iota", "random_bits", "random_normal"})

MAX_RANK = 64  # as NumPy
MAX_STRING = 4096
MAX_ELEMENTS = (1 << 63) - 1

_CONTEXT = 5  # printed lines before and after the guilty one
_KINDS: dict[str, type] = {"int": int, "float": float, "str": str, "dtype": DType, "ints": tuple, "bool": bool}
_DRAWN: dict[str, tuple[DType, ...]] = {"random_bits": (i32,), "random_normal": (f32, f64)}  # what draws give
_SCALARS: dict[str, type] = {"float": float, "int": int, "uint": int, "bool": bool}


def check_attr(attr: Attr, value: AttrValue, dtype: DType | None) -> str | None:
    """What is wrong with `value` for `attr`, or None. `dtype` is the element type that a "scalar" must fit."""
    if attr.kind == "scalar":
        if dtype is None:
            return f"attribute {attr.name} needs an element type, and none is known"
        if type(value) is not _SCALARS[dtype.kind]:
            return f"attribute {attr.name} = {value!r} is not of element type {dtype}"
        if dtype.is_integer and isinstance(value, int):
            low = 0 if dtype.kind == "uint" else -(1 << (dtype.bits - 1))
            if not low <= value < low + (1 << dtype.bits):
                return f"attribute {attr.name} = {value} is outside {dtype}"
        return None
    if type(value) is not _KINDS[attr.kind]:
        return f"attribute {attr.name} = {value!r} is not of kind {attr.kind}"
    numbers = value if isinstance(value, tuple) else (value,) if type(value) is int else ()
    if not all(type(n) is int for n in numbers):
        return f"attribute {attr.name} = {value!r} is not a list of integers"
    if isinstance(value, str) and len(value) > MAX_STRING:
        return f"attribute {attr.name} is a text of {len(value)} characters; at most {MAX_STRING} are allowed"
    if any(abs(n) > MAX_ELEMENTS for n in numbers):
        return f"attribute {attr.name} = {value!r} does not fit 64 bits"
    return None


def check_type(given: TensorType) -> str | None:
    """What is wrong with a type, or None."""
    shape = given.shape
    sound = type(shape) is tuple and all(type(n) is int and n >= 0 for n in shape)
    if sound and len(shape) <= MAX_RANK and given.size <= MAX_ELEMENTS:
        return None
    limits = f"at most {MAX_RANK} sizes, each at least 0, their product at most {MAX_ELEMENTS}"
    return f"{given} is not a type: {limits}"


def check_node(node: Node) -> None:
    """Check one node against its operator's record. Raises VerifyError with the bare reason."""
    record = OPS.get(node.op)
    if record is None:
        raise VerifyError(f"unknown operator {node.op!r}")
    count = len(node.inputs)
    if (record.arity is not None and count != record.arity) or (record.arity is None and not count):
        wanted = "at least one operand" if record.arity is None else f"{record.arity} operand(s)"
        raise VerifyError(f"{node.op} takes {wanted}, it has {count}")
    names = [name for name, _ in node.attrs]
    if names != [a.name for a in record.attrs]:
        wanted = ", ".join(a.name for a in record.attrs) or "none"
        raise VerifyError(f"{node.op} has the attributes {', '.join(names) or 'none'}; its record says {wanted}")
    dtype = node.inputs[0].dtype if node.inputs else node.dtype
    for attr, (_, value) in zip(record.attrs, node.attrs, strict=True):
        problem = check_attr(attr, value, dtype)
        if problem:
            raise VerifyError(f"{node.op}: {problem}")
    problem = check_type(node.type)
    if problem:
        raise VerifyError(problem)
    if node.op in TYPE_GIVEN:
        _check_given(node)
        return
    try:
        inferred = record.infer([operand.type for operand in node.inputs], attrs_of(node))
    except GraphcError as error:
        raise VerifyError(str(error)) from error
    if inferred != node.type:
        raise VerifyError(f"{node.op} gives {inferred}, the node says {node.type}")


def _check_given(node: Node) -> None:
    """Check an operator whose type is stated, not inferred."""
    if node.op == "iota" and not (node.dtype.is_float or node.dtype.is_integer):
        raise VerifyError(f"iota gives numbers, not {node.type}")
    if node.op == "iota" and not 0 <= node.integer("axis") < node.type.rank:
        raise VerifyError(f"iota: axis {node.integer('axis')} is out of range for {node.type}")
    drawn = _DRAWN.get(node.op)
    if drawn is not None and (
        node.dtype not in drawn or node.inputs[0].type != TensorType(i64, (2,), node.type.device)
    ):
        made = " or ".join(map(str, drawn))
        raise VerifyError(f"{node.op} makes {made} from a key i64[2], not {node.type} from {node.inputs[0].type}")
    if node.op == "random_bits" and node.integer("word") not in (0, 1, 2):
        raise VerifyError(f"random_bits: there are words 0, 1 and both (2), not {node.integer('word')}")


def verify(graph: Graph) -> Graph:
    """`graph` itself when it keeps every rule of the IR.

    Raises VerifyError, which shows the printed graph around the first guilty node, the reason and the user's lines.
    """
    _check_inputs(graph)
    place: dict[Node, int] = {}
    inputs = set(graph.inputs)
    for node in graph.nodes:
        if any(operand not in place for operand in node.inputs):
            fail(graph, node, "an operand is not computed before this node uses it")
        if node.op == "input" and node not in inputs:
            fail(graph, node, "an input node that is not among the inputs of the graph")
        try:
            check_node(node)
        except VerifyError as error:
            fail(graph, node, str(error))
        place[node] = len(place)
    return graph


def _check_inputs(graph: Graph) -> None:
    last = -1
    for node in graph.inputs:
        if node.op != "input":
            fail(graph, node, f"stands among the inputs of the graph, but is a node of operator {node.op}")
        index = dict(node.attrs).get("index")
        if type(index) is not int or index <= last:
            fail(graph, node, f"input index {index!r} does not follow {last}; inputs stand in the order of their index")
        last = index


def fail(graph: Graph, node: Node, message: str) -> NoReturn:
    """Raise VerifyError that shows `message` under `node` inside the printed graph."""
    names = value_names(graph.inputs, graph.nodes)
    lines = [format_header(graph.name, graph.inputs, names)]
    place = dict.fromkeys(graph.inputs, 0)
    for n in graph.nodes:
        if n not in place:
            place[n] = len(lines)
            lines.append(f"  {format_node(n, names)}")
    lines += [f"  {format_return(graph.outputs, names)}", "}"]
    guilty = place.get(node, 0)
    start = max(0, guilty - _CONTEXT)
    note = [f"  ^ {message}"]
    if node.locs:
        note.append(f"    at {', '.join(map(str, sorted(node.locs)))}")
    if guilty == 0:
        note.insert(1, f"    input %{names.get(node, '?')} : {node.type}")
    shown = [*lines[start : guilty + 1], *note, *lines[guilty + 1 : guilty + 1 + _CONTEXT]]
    if start > 0:
        shown.insert(0, "  ...")
    raise VerifyError(f"graph @{graph.name} is not valid: {message}\n\n" + "\n".join(shown))
