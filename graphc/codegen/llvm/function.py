"""The text of one LLVM function while it is being written: nested blocks, fresh names, declarations, constants."""

from __future__ import annotations

from graphc.codegen.kernel import Value
from graphc.codegen.llvm.spelling import register_type, suffix
from graphc.codegen.target import Target

# Stores of a straight piece that LLVM orders together: each is compared with all others, so a thousand take a second.
TOGETHER = 128


class Scope:
    """A straight piece of the function: the body of a loop or of an `If`, or the function itself.

    Statements of an inner scope are kept apart until the inner scope ends, so that address arithmetic which only needs
    values of the outer one can still be put in front of it. `known` numbers the address arithmetic done here.
    """

    __slots__ = ("known", "label", "lines")

    def __init__(self, label: str) -> None:
        self.label = label  # the LLVM block that the next line goes to
        self.lines: list[str] = []
        self.known: dict[tuple[object, ...], str] = {}


class Function:
    """Writes instructions. `names` gives the operand text of each value, `depths` the scope that defines it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.features = frozenset(f[1:] for f in target.features.split(",") if f.startswith("+"))
        self.x86 = target.triple.startswith(("x86_64", "i386", "i686"))
        self.scopes = [Scope("entry")]
        self.names: dict[Value, str] = {}
        self.depths: dict[Value, int] = {}
        self.integers: dict[Value, int] = {}  # i64 scalars that are constants
        self.constants: dict[Value, float] = {}  # float constants, scalars and vectors
        self.bounded: set[Value] = set()  # i64 scalars that count something, far from overflow
        self.declarations: dict[str, None] = {}
        self.globals: dict[str, None] = {}  # definitions of constants in memory
        self.streams = False  # whether something is stored past the caches
        self._count = 0
        self._stores = 0  # since the last label or fence

    def fresh(self, hint: str = "") -> str:
        """A new register name."""
        self._count += 1
        return f"%{hint}.{self._count}" if hint and hint.isidentifier() and hint.isascii() else f"%v{self._count}"

    def number(self) -> int:
        """A new number for labels."""
        self._count += 1
        return self._count

    def emit(self, instruction: str, hint: str = "") -> str:
        """Append `name = instruction` to the current scope; the name."""
        name = self.fresh(hint)
        self.scopes[-1].lines.append(f"  {name} = {instruction}")
        return name

    def run(self, line: str) -> None:
        """Append an instruction without a result."""
        self.scopes[-1].lines.append(f"  {line}")

    def store(self, line: str) -> None:
        """Append a store, and a fence where there are many."""
        if self._stores == TOGETHER:
            self.fence()
        self.run(line)
        self._stores += 1

    def fence(self) -> None:
        """Let LLVM schedule nothing across this place: a label that nobody jumps to, without an instruction."""
        self.run('call void @llvm.codeview.annotation(metadata !{!"fence"})')
        self.declarations["declare void @llvm.codeview.annotation(metadata)"] = None
        self._stores = 0

    def label(self, name: str) -> None:
        """Start a new LLVM block inside the current scope."""
        self._stores = 0
        scope = self.scopes[-1]
        scope.lines.append(f"{name}:")
        scope.label = name

    def define(self, value: Value, name: str) -> None:
        """`value` is `name` from here on, in the current scope."""
        self.names[value] = name
        self.depths[value] = len(self.scopes) - 1

    def open(self, label: str) -> Scope:
        """Enter an inner scope whose first block is `label`."""
        self._stores = 0
        scope = Scope(label)
        scope.lines.append(f"{label}:")
        self.scopes.append(scope)
        return scope

    def close(self) -> Scope:
        """Leave the innermost scope; its lines are not yet in the outer one."""
        self._stores = 0
        return self.scopes.pop()

    def typed(self, value: Value) -> str:
        """`type name` of a value."""
        return f"{register_type(value.type)} {self.names[value]}"

    def call(self, stem: str, type: str, operands: list[str], extra: str = "", hint: str = "") -> str:
        """Call the intrinsic `llvm.STEM.SUFFIX` (operands and result have one type); `extra` is one more operand."""
        name = f"@llvm.{stem}.{suffix(type)}"
        parameters = ", ".join([type] * len(operands))
        if extra:
            parameters += ", " + extra.split(" ", 1)[0]
        self.declarations[f"declare {type} {name}({parameters})"] = None
        arguments = ", ".join(f"{type} {o}" for o in operands)
        return self.emit(f"call {type} {name}({arguments}{', ' + extra if extra else ''})", hint)

    def splat(self, scalar: str, element: str, lanes: int, hint: str = "") -> str:
        """The scalar register `scalar` in every lane."""
        vector = f"<{lanes} x {element}>"
        first = self.emit(f"insertelement {vector} poison, {element} {scalar}, i64 0")
        return self.emit(f"shufflevector {vector} {first}, {vector} poison, <{lanes} x i32> zeroinitializer", hint)

    def zero_address(self) -> str:
        """The address of eight bytes of zeros, for scalar loads whose mask is false."""
        self.globals["@zeros = private unnamed_addr constant [8 x i8] zeroinitializer, align 8"] = None
        return "@zeros"


def vector_of(element: str, lanes: int) -> str:
    """`element` or `<lanes x element>`."""
    return element if lanes == 1 else f"<{lanes} x {element}>"
