"""The text of one CUDA function while it is being written."""

from __future__ import annotations

from graphc.codegen.cuda.ranges import Spans, find_spans
from graphc.codegen.cuda.spelling import REGISTER
from graphc.codegen.kernel import Kernel, Value
from graphc.codegen.target import Target

LANE = "lane"  # the number of a thread in its block, in block kernels


class Function:
    """Writes statements. `registers` gives the operand texts of each value: one for each lane in a thread kernel, one
    in a block kernel, whose threads have a lane each.
    """

    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.target = target
        self.threads = kernel.threads
        self.is_block = kernel.threads > 1
        self.spans: Spans = find_spans(kernel)
        self.lines: list[str] = []
        self.registers: dict[Value, tuple[str, ...]] = {}
        self.zeroed: dict[str, str] = {}  # registers of loads that give zero unless another register holds
        self._scopes: list[dict[str, str]] = [{}]  # what `once` has named, of each block that is open
        self._count = 0

    def run(self, line: str) -> None:
        """Append a line."""
        self.lines.append("  " * len(self._scopes) + line)

    def open(self, line: str) -> None:
        """Append a line that ends with a brace; what follows stands inside."""
        self.run(line)
        self._scopes.append({})

    def close(self) -> None:
        """End what `open` began."""
        self._scopes.pop()
        self.run("}")

    def fresh(self, hint: str = "") -> str:
        """A new name."""
        self._count += 1
        return f"{hint}_{self._count}" if hint and hint.isidentifier() and hint.isascii() else f"v{self._count}"

    def let(self, type: str, expression: str, hint: str = "") -> str:
        """Append `const type name = expression;`; the name."""
        name = self.fresh(hint)
        self.run(f"const {type} {name} = {expression};")
        return name

    def once(self, type: str, expression: str, hint: str = "") -> str:
        """Like `let`; what is in scope already is not computed again."""
        for scope in self._scopes:
            if expression in scope:
                return scope[expression]
        name = self._scopes[-1][expression] = self.let(type, expression, hint)
        return name

    def table(self, type: str, size: int, numbers: str) -> str:
        """The name of a constant array in memory; equal ones in scope are one."""
        for scope in self._scopes:
            if numbers in scope:
                return scope[numbers]
        name = self._scopes[-1][numbers] = self.fresh("table")
        self.run(f"static const {type} {name}[{size}] = {{{numbers}}};")
        return name

    def is_int(self, value: Value) -> bool:
        """Whether an i64 value is an `int` in its register."""
        span = self.spans.get(value)
        return span is not None and span.is_int

    def type(self, value: Value) -> str:
        """The C type of the registers of `value`."""
        return "int" if self.is_int(value) else REGISTER[value.type.dtype.name]

    def width(self, value: Value) -> int:
        """The number of registers of `value` in each thread."""
        return 1 if self.is_block else value.type.lanes

    def define(self, value: Value, registers: tuple[str, ...]) -> None:
        """`value` is in `registers` from here on."""
        self.registers[value] = registers

    def define_each(self, value: Value, expressions: list[str]) -> None:
        """`value` is made of `expressions`; equal ones are computed once."""
        known: dict[str, str] = {}
        for expression in expressions:
            if expression not in known:
                known[expression] = self.let(self.type(value), expression, value.name)
        self.registers[value] = tuple(known[e] for e in expressions)

    def scalar(self, value: Value) -> str:
        """The register of a scalar."""
        return self.registers[value][0]
