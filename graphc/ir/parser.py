"""The text form of graphs (docs/ir.md), read. Hand-written and without recursion; every error has line, column and
a caret.

Nothing in the text is trusted: sizes are capped, types are inferred again, and what is accepted passes the verifier.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from graphc.errors import GraphcError, IRSyntaxError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import AttrValue, Location, Node
from graphc.ir.opdef import OPS, Attr, OpDef
from graphc.ir.types import IR_DTYPES, DType, TensorType
from graphc.ir.verify import MAX_RANK, TYPE_GIVEN, check_attr, check_node, check_type

MAX_TEXT = 1 << 28  # characters
_MAX_DIGITS = 20  # more than any 64-bit integer needs
_EXCERPT = 160  # characters of a source line shown in an error

_TOKEN = re.compile(
    r"""(?>(?:[ \t\r\n]+|//[^\n]*)*)(?:
     (?P<value>%[A-Za-z0-9_.]+)
    |(?P<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")
    |(?P<float>-?(?:[0-9]+\.[0-9]*(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|(?:inf|nan)\b))
    |(?P<int>-?[0-9]+)
    |(?P<word>[A-Za-z_][A-Za-z0-9_.]*)
    |(?P<mark>[{}()\[\],:=@])
    |(?P<end>\Z)
    |(?P<bad>.))""",
    re.VERBOSE | re.DOTALL,
)
_DTYPES = {d.name: d for d in IR_DTYPES}


@dataclass(slots=True)
class _Token:
    kind: str  # a group of _TOKEN
    text: str
    at: int


_NAMES = {"value": "a value such as %1", "string": "a string", "int": "an integer", "word": "a name"}


def parse_graph(text: str, source: str = "<text>") -> Graph:
    """The one graph in `text`. Raises IRSyntaxError, which shows the line, a caret and what was expected."""
    graphs = parse_graphs(text, source)
    if len(graphs) != 1:
        raise IRSyntaxError(f"{source}: expected one graph, found {len(graphs)}")
    return graphs[0]


def parse_graphs(text: str, source: str = "<text>") -> list[Graph]:
    """All graphs in `text`, in order. `source` names the text in errors, for instance a file name."""
    if len(text) > MAX_TEXT:
        raise IRSyntaxError(f"{source}: text of {len(text)} characters; at most {MAX_TEXT} are read")
    return _Parser(text, source).graphs()


class _Parser:
    """One pass over the text with one token of look-ahead."""

    def __init__(self, text: str, source: str) -> None:
        self.source_text = text
        self.source = source
        self.position = 0
        self.token = self._scan()

    # tokens and errors

    def _scan(self) -> _Token:
        match = _TOKEN.match(self.source_text, self.position)
        assert match is not None and match.lastgroup is not None
        kind = match.lastgroup
        if kind == "bad":
            self.fail(f"unexpected character {match[kind]!r}", match.start(kind))
        self.position = match.end()
        return _Token(kind, match[kind], match.start(kind))

    def fail(self, message: str, at: int) -> NoReturn:
        """Raise IRSyntaxError for the place `at` in the text."""
        text = self.source_text
        first = text.rfind("\n", 0, at) + 1
        last = text.find("\n", at)
        line, column = text.count("\n", 0, at) + 1, at - first + 1
        shown, caret = text[first : len(text) if last < 0 else last], at - first
        if len(shown) > _EXCERPT:
            cut = max(0, caret - _EXCERPT // 2)
            shown, caret = shown[cut : cut + _EXCERPT], caret - cut
        shown = "".join(c if c.isprintable() else " " for c in shown)
        raise IRSyntaxError(f"{self.source}:{line}:{column}: {message}\n  {shown}\n  {' ' * caret}^")

    def found(self) -> str:
        return "the end of the text" if self.token.kind == "end" else f"`{self.token.text[:40]}`"

    def take(self) -> _Token:
        token, self.token = self.token, self._scan()
        return token

    def expect(self, kind: str, what: str = "") -> _Token:
        if self.token.kind != kind:
            self.fail(f"expected {what or _NAMES[kind]}, found {self.found()}", self.token.at)
        return self.take()

    def accept(self, text: str) -> bool:
        """Take the mark or word `text` if it comes next."""
        if self.token.text == text and self.token.kind in ("mark", "word"):
            self.take()
            return True
        return False

    def need(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected `{text}`, found {self.found()}", self.token.at)

    def integer(self) -> int:
        token = self.expect("int")
        if len(token.text) > _MAX_DIGITS:
            self.fail(f"integer of {len(token.text)} characters is too long", token.at)
        return int(token.text)

    def string(self) -> str:
        return json.loads(self.expect("string").text)

    # grammar

    def graphs(self) -> list[Graph]:
        result = []
        while self.token.kind != "end":
            result.append(self.graph())
        return result

    def graph(self) -> Graph:
        self.need("graph")
        self.need("@")
        name = self.string() if self.token.kind == "string" else self.expect("word", "the graph's name").text
        self.need("(")
        builder, values = Builder(), {}
        inputs: list[Node] = []
        while not self.accept(")"):
            if inputs:
                self.need(",")
            inputs.append(self.parameter(builder, values, len(inputs)))
        self.need("{")
        while not self.accept("return"):
            self.statement(builder, values)
        outputs: list[Node] = []
        if self.token.kind == "value":
            outputs.append(self.operand(values))
            while self.accept(","):
                outputs.append(self.operand(values))
        self.need("}")
        return Graph(tuple(inputs), tuple(outputs), name)

    def parameter(self, builder: Builder, values: dict[str, Node], index: int) -> Node:
        name = self.new_value(values)
        self.need(":")
        type = self.tensor_type()
        with builder.at(self.locations()):
            node = builder.input(index, type, "" if name.isdigit() else name)
        values[name] = node
        return node

    def new_value(self, values: dict[str, Node]) -> str:
        token = self.expect("value", "a value such as %1, or `return`" if values else "")
        name = token.text[1:]
        if name in values:
            self.fail(f"%{name} is defined twice", token.at)
        if not (name.isdigit() or not (name[0].isdigit() or name[0] == ".")):
            self.fail(f"%{name} is neither a number nor a name", token.at)
        return name

    def operand(self, values: dict[str, Node]) -> Node:
        token = self.expect("value")
        node = values.get(token.text[1:])
        if node is None:
            self.fail(f"{token.text[:40]} is not defined{_did_you_mean(token.text[1:], values, '%')}", token.at)
        return node

    def statement(self, builder: Builder, values: dict[str, Node]) -> None:
        name = self.new_value(values)
        self.need("=")
        op_at = self.token.at
        record = self.operator()
        operands: list[Node] = []
        if self.token.kind == "value":
            operands.append(self.operand(values))
            while self.accept(","):
                operands.append(self.operand(values))
        if (record.arity is not None and len(operands) != record.arity) or (record.arity is None and not operands):
            wanted = "at least one operand" if record.arity is None else f"{record.arity} operand(s)"
            self.fail(f"{record.name} takes {wanted}, {len(operands)} given", op_at)
        given = self.attributes(record) if self.accept("{") else {}
        missing = [a.name for a in record.attrs if a.name not in given]
        if missing:
            self.fail(f"{record.name} lacks the attribute(s) {', '.join(missing)}", op_at)
        typed = self.accept(":")
        type_at = self.token.at
        written = self.tensor_type() if typed else None
        self.node(builder, values, name, record, tuple(operands), given, written, op_at, type_at)

    def operator(self) -> OpDef:
        token = self.expect("word", "an operator")
        record = OPS.get(token.text)
        if record is None:
            self.fail(f"unknown operator `{token.text[:40]}`{_did_you_mean(token.text, OPS)}", token.at)
        if record.name == "input":
            self.fail("inputs stand in the head of the graph: graph @main(%x: f32[2])", token.at)
        return record

    def node(
        self,
        builder: Builder,
        values: dict[str, Node],
        name: str,
        record: OpDef,
        operands: tuple[Node, ...],
        given: dict[str, tuple[AttrValue, int]],
        written: TensorType | None,
        op_at: int,
        type_at: int,
    ) -> None:
        """Make the node from its parsed parts, inferring the type again."""
        dtype = operands[0].dtype if operands else written.dtype if written else None
        attrs: dict[str, AttrValue] = {}
        for attr in record.attrs:
            value, at = given[attr.name]
            wants_float = attr.kind == "float" or (attr.kind == "scalar" and dtype is not None and dtype.is_float)
            attrs[attr.name] = float(value) if wants_float and type(value) is int else value
            problem = check_attr(attr, attrs[attr.name], dtype)
            if problem:
                self.fail(f"{record.name}: {problem}", at)
        with builder.at(self.locations()):
            try:
                if record.name in TYPE_GIVEN:
                    if written is None:
                        self.fail(f"{record.name} needs its type written after it", self.token.at)
                    ordered = tuple((a.name, attrs[a.name]) for a in record.attrs)
                    node = builder.make(record.name, operands, ordered, written)
                    check_node(node)
                else:
                    node = builder.apply(record.name, operands, attrs)
            except IRSyntaxError:
                raise
            except GraphcError as error:
                self.fail(str(error), op_at)
        if written is not None and node.type != written:
            self.fail(f"{record.name} gives {node.type}, the text says {written}", type_at)
        problem = check_type(node.type)
        if problem:
            self.fail(f"{record.name}: {problem}", op_at)
        values[name] = node

    def attributes(self, record: OpDef) -> dict[str, tuple[AttrValue, int]]:
        """`{name = value, ...}` after its opening brace: each value with its place in the text."""
        kinds = {a.name: a for a in record.attrs}
        given: dict[str, tuple[AttrValue, int]] = {}
        while not self.accept("}"):
            if given:
                self.need(",")
            token = self.expect("word", "an attribute's name")
            if token.text not in kinds:
                allowed = f"it has: {', '.join(kinds)}" if kinds else "it has none"
                self.fail(f"{record.name} has no attribute `{token.text[:40]}`; {allowed}", token.at)
            if token.text in given:
                self.fail(f"attribute `{token.text}` is given twice", token.at)
            self.need("=")
            at = self.token.at
            given[token.text] = self.attribute(kinds[token.text]), at
        return given

    def attribute(self, attr: Attr) -> AttrValue:
        token = self.token
        if token.kind == "string":
            return self.string()
        if token.kind == "int":
            return self.integer()
        if token.kind == "float":
            return float(self.take().text)
        if token.kind == "word" and token.text in ("true", "false"):
            return self.take().text == "true"
        if token.kind == "word" and attr.kind == "dtype":
            return self.dtype()
        if self.accept("["):
            return self.integers()
        self.fail(f"expected a value of kind {attr.kind} for `{attr.name}`, found {self.found()}", token.at)

    def integers(self) -> tuple[int, ...]:
        """Integers up to the closing bracket."""
        numbers: list[int] = []
        while not self.accept("]"):
            if numbers:
                self.need(",")
            if len(numbers) == MAX_RANK:
                self.fail(f"more than {MAX_RANK} integers in a list", self.token.at)
            numbers.append(self.integer())
        return tuple(numbers)

    def dtype(self) -> DType:
        token = self.expect("word", "an element type such as f32")
        if token.text not in _DTYPES:
            self.fail(f"unknown element type `{token.text[:40]}`{_did_you_mean(token.text, _DTYPES)}", token.at)
        return _DTYPES[token.text]

    def tensor_type(self) -> TensorType:
        at = self.token.at
        dtype = self.dtype()
        self.need("[")
        shape = self.integers()
        device = "cpu"
        if self.accept("@"):
            device = self.expect("word", "a device's name").text
            if self.token.text == ":":
                self.take()
                device += f":{self.integer()}"
        type = TensorType(dtype, shape, device)
        problem = check_type(type)
        if problem:
            self.fail(problem, at)
        return type

    def locations(self) -> frozenset[Location]:
        """`loc("file":line, ...)` if it comes next."""
        if not self.accept("loc"):
            return frozenset()
        self.need("(")
        places: list[Location] = []
        while not self.accept(")"):
            if places:
                self.need(",")
            file = self.string()
            self.need(":")
            places.append(Location(file, self.integer()))
        return frozenset(places)


def _did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name[:80], list(known)[:2000], n=4)
    return f"; did you mean {', '.join(prefix + c for c in close)}?" if close else ""
