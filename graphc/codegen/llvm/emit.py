"""Kernel IR to LLVM IR text, one statement at a time.

The text is built as strings: this is on the way of the first step of every program. There are no fast-math flags; the
only freedom taken is the one that the kernel spells out (`fma`, the order of sums).
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.kernel import Fence, For, If, Kernel, Load, Op, Prefetch, Stmt, Store, Value
from graphc.codegen.llvm.function import Function
from graphc.codegen.llvm.memory import Memory
from graphc.codegen.llvm.operations import translate
from graphc.codegen.llvm.spelling import memory_element, register_type
from graphc.codegen.target import Target
from graphc.errors import CompileError

OWN_ALIGNMENT = 64  # bytes: a cache line


def emit_kernel(kernel: Kernel, target: Target) -> str:
    """An LLVM module with `void NAME(ptr buffer0, ..., i64 lo, i64 hi)`: the body for each index in [lo, hi)."""
    return _KernelEmitter(kernel, target).module()


def attributes(target: Target) -> str:
    """The attribute group `#0` of every function made for `target`."""
    parts = ["nounwind", f'"target-cpu"="{target.cpu}"']
    if target.features:
        parts.append(f'"target-features"="{target.features}"')
    if target.vector_bytes >= 64:
        parts.append('"prefer-vector-width"="512"')
    return "attributes #0 = { " + " ".join(parts) + " }"


class _KernelEmitter:
    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.kernel = kernel
        self.f = Function(target)
        self.memory = Memory(self.f, kernel)

    def module(self) -> str:
        kernel, f = self.kernel, self.f
        for number, buffer in enumerate(kernel.own):
            element = memory_element(buffer.dtype)
            f.run(f"%own{number} = alloca [{buffer.size} x {element}], align {OWN_ALIGNMENT}")
        f.run("%some = icmp slt i64 %lo, %hi")
        f.run("br i1 %some, label %index, label %done")
        scope = f.open("index")
        index = f.fresh(kernel.index.name)
        f.run(f"{index} = phi i64 [ %lo, %entry ], [ %next, %@LATCH ]")
        phi = len(scope.lines) - 1
        f.define(kernel.index, index)
        f.bounded.add(kernel.index)
        self.block(kernel.body)
        scope.lines[phi] = scope.lines[phi].replace("@LATCH", scope.label)
        f.run(f"%next = add nsw i64 {index}, 1")
        f.run("%more = icmp slt i64 %next, %hi")
        f.run("br i1 %more, label %index, label %done")
        f.close()
        parameters = [self._parameter(i) for i in range(len(kernel.params))]
        lines = [
            f'source_filename = "{kernel.name}"',
            f'target triple = "{f.target.triple}"',
            "",
            f"define void @{kernel.name}({', '.join([*parameters, 'i64 %lo', 'i64 %hi'])}) #0 {{",
            "entry:",
            *f.scopes[0].lines,
            *scope.lines,
            "done:",
            *(["  fence seq_cst"] if f.streams else []),  # other threads may read what went past the caches
            "  ret void",
            "}",
            "",
            *f.declarations,
            attributes(f.target),
            *(["!0 = !{i32 1}"] if f.streams else []),
        ]
        lines[2:2] = f.globals
        return "\n".join(lines) + "\n"

    def _parameter(self, number: int) -> str:
        param = self.kernel.params[number]
        access = " readonly" if param.mode == "in" else ""
        return f"ptr noalias{access} %p{number}"

    def block(self, statements: Sequence[Stmt]) -> None:
        """Translate `statements` into the current scope."""
        f, memory = self.f, self.memory
        for statement in statements:
            if isinstance(statement, Op):
                translate(f, statement)
            elif isinstance(statement, Load):
                memory.load(statement)
            elif isinstance(statement, Store):
                memory.store(statement)
            elif isinstance(statement, Prefetch):
                memory.prefetch(statement)
            elif isinstance(statement, Fence):
                f.fence()
            elif isinstance(statement, For):
                self._for(statement)
            elif isinstance(statement, If):
                self._if(statement)
            else:
                raise CompileError(f"not a kernel statement: {statement!r}")

    def _bound(self, bound: int | Value) -> tuple[str, int | None]:
        """The text of a loop bound, and its number when it is constant."""
        if isinstance(bound, Value):
            return self.f.names[bound], self.f.integers.get(bound)
        return str(bound), bound

    def _for(self, loop: For) -> None:
        f = self.f
        lo, low = self._bound(loop.lo)
        hi, high = self._bound(loop.hi)
        trips = None if low is None or high is None else max(0, -((low - high) // loop.step))
        if trips is not None and trips <= 1:
            self._straight(loop, low or 0, trips)
            return
        number = f.number()
        label, after = f"loop{number}", f"after{number}"
        outer = f.scopes[-1]
        guard = None
        if trips is None:
            guard = f.emit(f"icmp slt i64 {lo}, {hi}")
        inits = [f.names[v] for v in loop.inits]
        scope = f.open(label)
        variable = f.fresh(loop.var.name)
        f.define(loop.var, variable)
        f.bounded.add(loop.var)
        step = f.fresh()
        phis = [(loop.var, variable, lo, step)]
        for phi, init in zip(loop.phis, inits, strict=True):
            name = f.fresh(phi.name)
            f.define(phi, name)
            phis.append((phi, name, init, ""))
        first = len(scope.lines)
        self.block(loop.body)
        f.run(f"{step} = add nsw i64 {variable}, {loop.step}")
        condition = f.emit(f"icmp slt i64 {step}, {hi}")
        f.run(f"br i1 {condition}, label %{label}, label %{after}")
        yields = [step, *(f.names[v] for v in loop.yields)]
        scope.lines[first:first] = [
            f"  {name} = phi {register_type(value.type)} [ {init}, %{outer.label} ], [ {new}, %{scope.label} ]"
            for (value, name, init, _), new in zip(phis, yields, strict=True)
        ]
        f.close()
        if guard is None:
            f.run(f"br label %{label}")
        else:
            f.run(f"br i1 {guard}, label %{label}, label %{after}")
        outer.lines.extend(scope.lines)
        before = outer.label
        f.label(after)
        for result, init, new in zip(loop.results, inits, yields[1:], strict=True):
            if guard is not None:
                type = register_type(result.type)
                new = f.emit(f"phi {type} [ {init}, %{before} ], [ {new}, %{scope.label} ]", result.name)
            f.define(result, new)

    def _straight(self, loop: For, low: int, trips: int) -> None:
        """A loop that runs once or never."""
        f = self.f
        f.define(loop.var, str(low))
        f.integers[loop.var] = low
        for phi, init in zip(loop.phis, loop.inits, strict=True):
            f.define(phi, f.names[init])
        if trips:
            self.block(loop.body)
        for result, last in zip(loop.results, loop.yields if trips else loop.inits, strict=True):
            f.define(result, f.names[last])

    def _if(self, statement: If) -> None:
        f = self.f
        number = f.number()
        condition = f.names[statement.condition]
        outer = f.scopes[-1]
        scope = f.open(f"then{number}")
        self.block(statement.body)
        f.run(f"br label %endif{number}")
        f.close()
        f.run(f"br i1 {condition}, label %then{number}, label %endif{number}")
        outer.lines.extend(scope.lines)
        f.label(f"endif{number}")
