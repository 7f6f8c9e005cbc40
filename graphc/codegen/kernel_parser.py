"""The text form of kernels, read. The grammar is in `kernel_text`; every error has line, column and a caret."""

from __future__ import annotations

import re
from typing import NoReturn

from graphc.codegen.kernel import (
    INDEX,
    OPERATIONS,
    Affine,
    AsyncCopy,
    Await,
    AwaitGroups,
    Exchange,
    Exp2,
    Fence,
    For,
    GroupMma,
    If,
    Kernel,
    Lines,
    Load,
    LoadMatrix,
    Mma,
    Number,
    OfBlock,
    Op,
    Param,
    Prefetch,
    Stmt,
    Store,
    Value,
    VType,
)
from graphc.errors import IRSyntaxError
from graphc.ir.record import record
from graphc.ir.types import IR_DTYPES

MAX_TEXT = 1 << 26  # characters
_MAX_DEPTH = 64  # nested loops
_MAX_DIGITS = 20  # more than any 64-bit integer needs
_MAX_LANES = 1024

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|//[^\n]*)
    |(?P<value>%[A-Za-z0-9_]+)
    |(?P<symbol>@[A-Za-z_][A-Za-z0-9_.]*)
    |(?P<float>[0-9]+\.[0-9]*(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)
    |(?P<int>[0-9]+)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>->|[{}()\[\],:=+*-])""",
    re.VERBOSE,
)
_KINDS = {"value": "a value such as %x", "symbol": "a name such as @kernel", "int": "an integer", "word": "a word"}
_DTYPES = {d.name: d for d in IR_DTYPES}
_TYPE = re.compile(rf"({'|'.join(_DTYPES)})(?:x([1-9][0-9]{{0,3}}))?")


@record
class _Token:
    kind: str  # a group of _TOKEN, or "end"
    text: str
    at: int


def parse_kernel(text: str, source: str = "<kernel>") -> Kernel:
    """The kernel in `text`. Raises IRSyntaxError, which shows the line, a caret and what was expected.

    Names, scopes and the shape of each statement are checked here; `kernel_verify.verify_kernel` checks types and
    meaning.
    """
    if len(text) > MAX_TEXT:
        raise IRSyntaxError(f"{source}: text of {len(text)} characters; at most {MAX_TEXT} are read")
    return _KernelParser(text, source).kernel()


class _KernelParser:
    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.position = 0
        self.token = self._scan()
        self.buffers: dict[str, Param] = {}
        self.scopes: list[dict[str, Value]] = [{}]
        self.seen: set[str] = set()

    def _scan(self) -> _Token:
        while self.position < len(self.text):
            match = _TOKEN.match(self.text, self.position)
            if match is None:
                self.fail(f"unexpected character {self.text[self.position]!r}", self.position)
            start, self.position = self.position, match.end()
            if match.lastgroup != "space":
                return _Token(match.lastgroup or "", match.group(), start)
        return _Token("end", "", len(self.text))

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        """Raise IRSyntaxError for the place `at`, by default the current token."""
        at = self.token.at if at is None else at
        first = self.text.rfind("\n", 0, at) + 1
        last = self.text.find("\n", at)
        line, column = self.text.count("\n", 0, at) + 1, at - first + 1
        shown = "".join(c if c.isprintable() else " " for c in self.text[first : len(self.text) if last < 0 else last])
        start = max(0, column - 81)
        raise IRSyntaxError(
            f"{self.source}:{line}:{column}: {message}\n  {shown[start : start + 160]}\n  {' ' * (column - 1 - start)}^"
        )

    def found(self) -> str:
        return "the end of the text" if self.token.kind == "end" else f"`{self.token.text[:40]}`"

    def take(self) -> _Token:
        token, self.token = self.token, self._scan()
        return token

    def expect(self, kind: str) -> _Token:
        if self.token.kind != kind:
            self.fail(f"expected {_KINDS[kind]}, found {self.found()}")
        return self.take()

    def accept(self, text: str) -> bool:
        if self.token.text == text and self.token.kind in ("mark", "word"):
            self.take()
            return True
        return False

    def need(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected `{text}`, found {self.found()}")

    def integer(self, signed: bool = False) -> int:
        """An integer; with `signed`, perhaps after a minus."""
        minus = signed and self.accept("-")
        token = self.expect("int")
        if len(token.text) > _MAX_DIGITS:
            self.fail("the integer is too long", token.at)
        return -int(token.text) if minus else int(token.text)

    # names

    def new_name(self) -> str:
        token = self.expect("value")
        if token.text in self.seen:
            self.fail(f"{token.text} is defined twice", token.at)
        self.seen.add(token.text)
        return token.text

    def define(self, name: str, type: VType) -> Value:
        value = Value(type, name[1:])
        self.scopes[-1][name] = value
        return value

    def use(self) -> Value:
        token = self.expect("value")
        for scope in reversed(self.scopes):
            if token.text in scope:
                return scope[token.text]
        what = "is a buffer, not a value" if token.text in self.buffers else "is not defined here"
        self.fail(f"{token.text} {what}", token.at)

    def buffer(self) -> Param:
        token = self.expect("value")
        if token.text not in self.buffers:
            self.fail(f"{token.text} is not a buffer; there are {', '.join(self.buffers) or 'none'}", token.at)
        return self.buffers[token.text]

    def type(self) -> VType:
        token = self.expect("word")
        match = _TYPE.fullmatch(token.text)
        lanes = int(match[2] or 1) if match else 0
        if match is None or lanes > _MAX_LANES:
            self.fail(f"expected a type such as f32 or f32x16, found `{token.text[:40]}`", token.at)
        return VType(_DTYPES[match[1]], lanes)

    # structure

    def kernel(self) -> Kernel:
        self.need("kernel")
        name = self.expect("symbol").text[1:]
        self.need("(")
        params: list[Param] = []
        if not self.accept(")"):
            params.append(self.param())
            while self.accept(","):
                params.append(self.param())
            self.need(")")
        flops = self.integer() if self.accept("flops") else 0
        size = self.integer() if self.accept("bytes") else 0
        threads = self.integer() if self.accept("threads") else 1
        aligned = self.accept("aligned")
        resident = self.integer() if self.accept("resident") else 0
        self.need("{")
        own: list[Param] = []
        while self.accept("own"):
            own.append(self.param("own"))
        self.need("parallel")
        index = self.define(self.new_name(), INDEX)
        self.need("=")
        zero = self.token.at
        if self.integer():
            self.fail("a parallel range starts at 0", zero)
        self.need("to")
        grid = self.integer()
        body, yields = self.block(0)
        if yields:
            self.fail("a parallel range carries no values, so it has no `yield`")
        self.need("}")
        if self.token.kind != "end":
            self.fail(f"expected the end of the text, found {self.found()}")
        return Kernel(name, tuple(params), grid, index, body, flops, size, tuple(own), threads, aligned, resident)

    def param(self, mode: str = "") -> Param:
        """A buffer; its mode follows if it is not given."""
        name = self.new_name()
        self.need(":")
        at = self.token.at
        dtype = self.type()
        if dtype.lanes != 1:
            self.fail("buffers have elements, not vectors", at)
        self.need("[")
        size = self.integer()
        self.need("]")
        if not mode and self.token.text not in ("in", "out", "inout"):
            self.fail(f"expected in, out or inout, found {self.found()}")
        self.buffers[name] = Param(name[1:], dtype.dtype, size, mode or self.take().text)
        return self.buffers[name]

    def block(self, depth: int) -> tuple[tuple[Stmt, ...], tuple[Value, ...]]:
        """The statements between braces, and what is yielded.

        The caller has opened the scope of loop variables, if any.
        """
        if depth > _MAX_DEPTH:
            self.fail(f"loops are nested more than {_MAX_DEPTH} deep")
        self.need("{")
        self.scopes.append({})
        body: list[Stmt] = []
        yields: list[Value] = []
        while not self.accept("}"):
            if self.accept("yield"):
                yields = self.values()
                self.need("}")
                break
            body.append(self.statement(depth))
        self.scopes.pop()
        return tuple(body), tuple(yields)

    def values(self) -> list[Value]:
        values = [self.use()]
        while self.accept(","):
            values.append(self.use())
        return values

    def statement(self, depth: int) -> Stmt:
        if self.token.kind == "value":
            return self.definition()
        if self.accept("store"):
            buffer, index = self.place()
            self.need(",")
            value = self.use()
            stride, offsets, mask = self.access()
            streams = self.accept("streams")
            self.need(":")
            at = self.token.at
            if self.type() != value.type:
                self.fail(f"the stored value has type {value.type}", at)
            return Store(buffer, index, value, stride, offsets, mask, streams)
        if self.accept("prefetch"):
            return Prefetch(*self.place())
        if self.accept("fence"):
            return Fence()
        if self.accept("for"):
            return self.loop(depth)
        if self.accept("if"):
            condition = self.use()
            body, yields = self.block(depth + 1)
            if yields:
                self.fail("an `if` has no results, so it has no `yield`")
            return If(condition, body)
        if self.token.text in ("mma", "exchange", "exp2", "matrix", "copy", "await"):
            return self.of_block()
        self.fail(f"expected a statement, `yield` or `}}`, found {self.found()}")

    def of_block(self) -> OfBlock:
        """A statement that only blocks of threads have."""
        word = self.take().text
        if word == "await":
            return self.awaiting()
        if word == "mma" and self.accept("group"):
            left = self.lines()
            self.need(",")
            right = self.lines()
            self.need(",")
            c = self.listed()
            return GroupMma(self.results(), left, right, c)
        if word == "mma":
            dtype = self.type().dtype
            a = self.listed()
            self.need(",")
            b = self.listed()
            self.need(",")
            c = self.listed()
            return Mma(self.results(), dtype, a, b, c)
        if word in ("exchange", "exp2"):
            value = self.use()
            bits = 0
            if word == "exchange":
                self.need("bits")
                bits = self.integer()
            results = self.results()
            if len(results) != 1:
                self.fail(f"{len(results)} results of one value")
            return Exchange(results[0], value, bits) if word == "exchange" else Exp2(results[0], value)
        buffer, index, offsets = self.scattered()
        if word == "matrix":
            transposed = self.accept("transposed")
            return LoadMatrix(self.results(), buffer, index, offsets, transposed)
        self.need(",")
        source, source_index, source_offsets = self.scattered()
        self.need("count")
        count = self.integer()
        mask = self.use() if self.accept("mask") else None
        return AsyncCopy(buffer, index, offsets, source, source_index, source_offsets, count, mask)

    def awaiting(self) -> Await | AwaitGroups:
        """What is waited for."""
        if not self.accept("groups"):
            return Await(self.integer())
        pending = self.integer()
        if self.token.text != "(":
            return AwaitGroups(pending)
        values = self.listed()
        return AwaitGroups(pending, values, self.results())

    def lines(self) -> Lines:
        """A place of lines."""
        return Lines(*self.scattered(), self.accept("turned"))

    def scattered(self) -> tuple[Param, Affine, Value]:
        """A place and its offsets."""
        buffer, index = self.place()
        self.need("offsets")
        return buffer, index, self.use()

    def listed(self) -> tuple[Value, ...]:
        """Values in parentheses."""
        self.need("(")
        values = self.values()
        self.need(")")
        return tuple(values)

    def results(self) -> tuple[Value, ...]:
        """Defined values with their types, after an arrow."""
        self.need("->")
        self.need("(")
        found: list[Value] = []
        while True:
            name = self.new_name()
            self.need(":")
            found.append(self.define(name, self.type()))
            if not self.accept(","):
                break
        self.need(")")
        return tuple(found)

    def definition(self) -> Op | Load:
        name = self.new_name()
        self.need("=")
        at = self.token.at
        op = self.expect("word").text
        if op == "load":
            buffer, index = self.place()
            stride, offsets, mask = self.access()
            self.need(":")
            return Load(self.define(name, self.type()), buffer, index, stride, offsets, mask)
        if op not in OPERATIONS:
            self.fail(f"no operation is named `{op[:40]}`", at)
        args: list[Value] = []
        attr: Number | None = None
        table: tuple[float, ...] | None = None
        while self.token.text != ":":
            if args or attr is not None:
                self.need(",")
            if attr is not None or table is not None:
                self.fail("nothing follows the numbers of an operation")
            if self.token.kind == "value":
                args.append(self.use())
            elif self.accept("["):
                table = self.numbers()
            else:
                attr = self.number()
        self.need(":")
        return Op(self.define(name, self.type()), op, tuple(args), attr, table)

    def numbers(self) -> tuple[float, ...]:
        """Numbers up to the bracket that ends them."""
        found = [float(self.number())]
        while self.accept(","):
            found.append(float(self.number()))
        self.need("]")
        return tuple(found)

    def number(self) -> Number:
        minus = self.accept("-")
        if self.token.kind == "int":
            value: Number = self.integer()
        elif self.token.kind == "float" or self.token.text in ("inf", "nan"):
            value = float(self.take().text)
        elif self.token.text in ("true", "false") and not minus:
            return self.take().text == "true"
        else:
            self.fail(f"expected a value or a number, found {self.found()}")
        return -value if minus else value

    def place(self) -> tuple[Param, Affine]:
        buffer = self.buffer()
        self.need("[")
        constant = 0
        terms: list[tuple[Value, int]] = []
        sign = -1 if self.accept("-") else 1
        while True:
            if self.token.kind == "value":
                value = self.use()
                terms.append((value, sign * (self.integer() if self.accept("*") else 1)))
            else:
                constant += sign * self.integer()
            if self.accept("+"):
                sign = 1
            elif self.accept("-"):
                sign = -1
            else:
                break
        self.need("]")
        return buffer, Affine(constant, tuple(terms))

    def access(self) -> tuple[int, Value | None, Value | None]:
        stride = self.integer(signed=True) if self.accept("stride") else 1
        offsets = self.use() if self.accept("offsets") else None
        mask = self.use() if self.accept("mask") else None
        return stride, offsets, mask

    def bound(self) -> int | Value:
        return self.use() if self.token.kind == "value" else self.integer(signed=True)

    def loop(self, depth: int) -> For:
        at = self.token.at
        variable = self.new_name()
        self.need("=")
        lo = self.bound()
        self.need("to")
        hi = self.bound()
        self.need("step")
        step = self.integer()
        carried: list[tuple[str, VType]] = []
        inits: list[Value] = []
        if self.accept("carry"):
            self.need("(")
            while True:
                name = self.new_name()
                self.need("=")
                inits.append(self.use())
                self.need(":")
                carried.append((name, self.type()))
                if not self.accept(","):
                    break
            self.need(")")
        self.scopes.append({})
        var = self.define(variable, INDEX)
        phis = tuple(self.define(name, type) for name, type in carried)
        body, yields = self.block(depth + 1)
        self.scopes.pop()
        if len(yields) != len(phis):
            self.fail(f"the loop carries {len(phis)} values and yields {len(yields)}", at)
        results: tuple[Value, ...] = ()
        if phis:
            results = self.results()
            if len(results) != len(phis):
                self.fail(f"the loop carries {len(phis)} values and has {len(results)} results", at)
        return For(var, lo, hi, step, body, phis, tuple(inits), yields, results)
