"""The text form of kernels. `kernel_parser.parse_kernel` reads it back.

kernel   = "kernel" "@" NAME "(" [param {"," param}] ")" ["flops" INT] ["bytes" INT] ["threads" INT]
           ["aligned"] ["resident" INT] "{"
           {"own" VALUE ":" DTYPE "[" INT "]"} "parallel" VALUE "=" "0" "to" INT block "}"
param    = VALUE ":" DTYPE "[" INT "]" ("in" | "out" | "inout")
block    = "{" {stmt} ["yield" VALUE {"," VALUE}] "}"
stmt     = VALUE "=" OP [operand {"," operand}] ":" type
         | VALUE "=" "load" place access ":" type
         | "store" place "," VALUE access ["streams"] ":" type
         | "prefetch" place
         | "for" VALUE "=" bound "to" bound "step" INT
           ["carry" "(" VALUE "=" VALUE ":" type {"," ...} ")"] block ["->" "(" VALUE ":" type {"," ...} ")"]
         | "if" VALUE block
         | "mma" DTYPE values "," values "," values "->" results
         | "matrix" place "offsets" VALUE ["transposed"] "->" results
         | "copy" place "offsets" VALUE "," place "offsets" VALUE "count" INT ["mask" VALUE]
         | "await" INT
         | "mma" "group" lines "," lines "," values "->" results
         | "await" "groups" INT [values "->" results]
values   = "(" VALUE {"," VALUE} ")"   results = "(" VALUE ":" type {"," VALUE ":" type} ")"
lines    = place "offsets" VALUE ["turned"]
place    = VALUE "[" sum "]"        sum = ["-"] term {("+" | "-") term}      term = VALUE ["*" INT] | INT
access   = ["stride" ["-"] INT] ["offsets" VALUE] ["mask" VALUE]
operand  = VALUE | ["-"] NUMBER | "true" | "false" | "nan" | "inf"
bound    = VALUE | ["-"] INT        type = DTYPE or DTYPE "x" LANES, as in f32x16
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from numbers import Integral

from graphc.codegen.kernel import (
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
)

_NOT_NAME = re.compile(r"[^A-Za-z0-9_]")


def print_kernel(kernel: Kernel) -> str:
    """The text of `kernel`. Parsing it gives an equal kernel, whose text is the same."""
    return "\n".join(line for line, _ in KernelPrinter(kernel).lines()) + "\n"


def format_number(value: Number) -> str:
    """The spelling of a literal: `true`, `3`, `0.5`, `-inf`. Floats are exact."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, Integral) else repr(float(value))


class KernelPrinter:
    """Prints a kernel, also one that the verifier refuses: a value without a definition is shown as `%undefined`."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._names: dict[Value | Param, str] = {}
        self._used: set[str] = set()
        self._counts: dict[str, int] = {}  # how many names were made of one that several values have
        self._next = 0

    def lines(self) -> Iterator[tuple[str, Stmt | None]]:
        """Each line of the text, and the statement that it shows."""
        kernel = self.kernel
        parameters = ", ".join(f"{self._define(p)}: {p.dtype}[{p.size}] {p.mode}" for p in kernel.params)
        header = f"kernel @{kernel.name}({parameters})"
        if kernel.flops:
            header += f" flops {kernel.flops}"
        if kernel.bytes:
            header += f" bytes {kernel.bytes}"
        if kernel.threads != 1:
            header += f" threads {kernel.threads}"
        if kernel.aligned:
            header += " aligned"
        if kernel.resident:
            header += f" resident {kernel.resident}"
        yield header + " {", None
        for buffer in kernel.own:
            yield f"  own {self._define(buffer)}: {buffer.dtype}[{buffer.size}]", None
        yield f"  parallel {self._define(kernel.index)} = 0 to {kernel.grid} {{", None
        yield from self._block(kernel.body, 2)
        yield "  }", None
        yield "}", None

    def _define(self, value: Value | Param) -> str:
        base = _NOT_NAME.sub("_", value.name)
        if not base:
            self._next += 1
            base = str(self._next)
            while base in self._used:
                self._next += 1
                base = str(self._next)
        name = base
        while name in self._used:
            count = self._counts[base] = self._counts.get(base, 0) + 1
            name = f"{base}_{count}"
        self._used.add(name)
        self._names[value] = name
        return "%" + name

    def _use(self, value: Value | Param) -> str:
        return "%" + self._names.get(value, "undefined")

    def _uses(self, values: Sequence[Value]) -> str:
        return ", ".join(self._use(v) for v in values)

    def _block(self, statements: Sequence[Stmt], depth: int) -> Iterator[tuple[str, Stmt | None]]:
        pad = "  " * depth
        for statement in statements:
            if isinstance(statement, For):
                yield from self._for(statement, depth)
            elif isinstance(statement, If):
                yield f"{pad}if {self._use(statement.condition)} {{", statement
                yield from self._block(statement.body, depth + 1)
                yield pad + "}", None
            elif isinstance(statement, Fence):
                yield f"{pad}fence", statement
            elif isinstance(statement, (Op, Load, Store, Prefetch)):
                yield pad + self._simple(statement), statement
            elif isinstance(statement, OfBlock):
                yield pad + self._of_block(statement), statement
            else:
                yield f"{pad}{statement!r}", statement

    def _simple(self, statement: Op | Load | Store | Prefetch) -> str:
        if isinstance(statement, Op):
            operands = [self._use(a) for a in statement.args]
            if statement.attr is not None:
                operands.append(format_number(statement.attr))
            if statement.table is not None:
                operands.append(f"[{', '.join(map(format_number, statement.table))}]")
            text = " ".join([statement.name, ", ".join(operands)]).rstrip()
            return f"{self._define(statement.result)} = {text} : {statement.result.type}"
        place = f"{self._use(statement.buffer)}[{self._sum(statement.index)}]"
        if isinstance(statement, Prefetch):
            return f"prefetch {place}"
        access = "" if statement.stride == 1 else f" stride {statement.stride}"
        if statement.offsets is not None:
            access += f" offsets {self._use(statement.offsets)}"
        if statement.mask is not None:
            access += f" mask {self._use(statement.mask)}"
        if isinstance(statement, Load):
            return f"{self._define(statement.result)} = load {place}{access} : {statement.result.type}"
        access += " streams" if statement.streams else ""
        return f"store {place}, {self._use(statement.value)}{access} : {statement.value.type}"

    def _of_block(self, statement: OfBlock) -> str:
        if isinstance(statement, Await):
            return f"await {statement.pending}"
        if isinstance(statement, AwaitGroups):
            ready = f" ({self._uses(statement.values)}) -> {self._results(statement.results)}"
            return f"await groups {statement.pending}{ready if statement.values else ''}"
        if isinstance(statement, GroupMma):
            left, right = self._lines(statement.left), self._lines(statement.right)
            return f"mma group {left}, {right}, ({self._uses(statement.c)}) -> {self._results(statement.results)}"
        if isinstance(statement, Mma):
            groups = ", ".join(f"({self._uses(group)})" for group in (statement.a, statement.b, statement.c))
            return f"mma {statement.dtype} {groups} -> {self._results(statement.results)}"
        if isinstance(statement, Exchange):
            value = self._use(statement.value)
            return f"exchange {value} bits {statement.bits} -> {self._results((statement.result,))}"
        if isinstance(statement, Exp2):
            return f"exp2 {self._use(statement.value)} -> {self._results((statement.result,))}"
        place = self._scattered(statement)
        if isinstance(statement, LoadMatrix):
            turned = " transposed" if statement.transposed else ""
            return f"matrix {place}{turned} -> {self._results(statement.results)}"
        source = f"{self._use(statement.source)}[{self._sum(statement.source_index)}]"
        mask = "" if statement.mask is None else f" mask {self._use(statement.mask)}"
        offsets = self._use(statement.source_offsets)
        return f"copy {place}, {source} offsets {offsets} count {statement.count}{mask}"

    def _lines(self, lines: Lines) -> str:
        return self._scattered(lines) + (" turned" if lines.turned else "")

    def _scattered(self, place: LoadMatrix | AsyncCopy | Lines) -> str:
        return f"{self._use(place.buffer)}[{self._sum(place.index)}] offsets {self._use(place.offsets)}"

    def _results(self, results: Sequence[Value]) -> str:
        return "(" + ", ".join(f"{self._define(r)}: {r.type}" for r in results) + ")"

    def _sum(self, index: Affine) -> str:
        terms = [
            (coefficient < 0, self._use(value) + ("" if abs(coefficient) == 1 else f"*{abs(coefficient)}"))
            for value, coefficient in index.terms
        ]
        if index.const or not terms:
            terms.append((index.const < 0, str(abs(index.const))))
        (negative, first), *rest = terms
        return ("-" if negative else "") + first + "".join(f" {'-' if minus else '+'} {text}" for minus, text in rest)

    def _bound(self, bound: int | Value) -> str:
        return self._use(bound) if isinstance(bound, Value) else str(bound)

    def _for(self, loop: For, depth: int) -> Iterator[tuple[str, Stmt | None]]:
        pad = "  " * depth
        bounds = f"{self._bound(loop.lo)} to {self._bound(loop.hi)} step {loop.step}"
        inits = [self._use(v) for v in loop.inits]
        header = f"{pad}for {self._define(loop.var)} = {bounds}"
        if loop.phis:
            carried = [f"{self._define(p)} = {i} : {p.type}" for p, i in zip(loop.phis, inits, strict=False)]
            header += f" carry ({', '.join(carried)})"
        yield header + " {", loop
        yield from self._block(loop.body, depth + 1)
        if loop.yields:
            yield f"{pad}  yield {self._uses(loop.yields)}", loop
        end = pad + "}"
        if loop.results:
            end += f" -> {self._results(loop.results)}"
        yield end, None
