"""The operations of the kernel IR in CUDA C (their meanings: `kernel.OPERATIONS`).

Integers wrap: what may overflow is computed in unsigned types, as C++ leaves signed overflow undefined. Index
arithmetic that is known to fit is left signed, which the compiler can reorder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.cuda.function import LANE, Function
from graphc.codegen.cuda.spelling import REGISTER, UNSIGNED, literal
from graphc.codegen.kernel import COMPARISONS, LANE_REDUCTIONS, SEGMENT, SHUFFLES, Op, shuffled
from graphc.codegen.target import WARP
from graphc.errors import CompileError
from graphc.ir.types import DType, f32, f64, i64

_SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_QUOTIENTS = {"udiv": "/", "urem": "%", "floordiv": "/", "mod": "%"}
_FLOAT_FUNCTIONS = {
    "abs": "fabs",
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "rint": "rint",
    "fma": "fma",
}
_AS_FLOAT = {
    "f32": "__int_as_float",
    "i32": "__float_as_int",
    "f64": "__longlong_as_double",
    "i64": "__double_as_longlong",
}
# Types in which threads exchange values and combine them.
_EXCHANGED = {"f64": "double", "f32": "float", "i64": "long long"}


def translate(f: Function, op: Op) -> None:
    """Append the statements of `op` and define its result. Exchanges between threads: see `exchange`."""
    if op.name == "const":
        assert op.attr is not None
        f.define(op.result, (literal(op.attr, op.result.type.dtype),) * f.width(op.result))
        return
    special = _SPECIAL.get(op.name)
    if special is not None:
        special(f, op)
        return
    handler = _HANDLERS.get(op.name)
    if handler is None:
        raise CompileError(f"the kernel IR has no operation named {op.name!r}")
    arguments = [f.registers[a] for a in op.args]
    expressions = [handler(f, op, lane) for lane in zip(*arguments, strict=True)]
    if expressions == list(arguments[0]) and f.type(op.args[0]) == f.type(op.result):
        f.define(op.result, arguments[0])  # nothing to do: another type of the same representation
    else:
        f.define_each(op.result, expressions)


def exchanges(op: Op, threads: int) -> bool:
    """Whether the threads of a block exchange values through shared memory for `op`."""
    if threads == 1 or op.args == () or op.args[0].type.lanes == 1:
        return False
    if op.name == "extract" or op.name in SHUFFLES:
        return True
    return op.name in LANE_REDUCTIONS and threads > WARP


def exchange_bytes(op: Op, threads: int) -> int:
    """The shared memory that `op`, which exchanges, needs."""
    itemsize = 8 if op.args[0].type.dtype.bits == 64 else 4
    if op.name == "extract":
        return itemsize
    if op.name in LANE_REDUCTIONS:
        return itemsize * (threads + threads // WARP + WARP)
    return 2 * itemsize * threads


def exchange(f: Function, op: Op, scratch: str) -> None:
    """An operation across the lanes of a block, one in each thread. It contains a barrier when it uses `scratch`."""
    dtype = op.args[0].type.dtype
    type = _EXCHANGED.get(dtype.name, "int")
    arguments = ", ".join(f.scalar(a) if type == "int" else f"({type}){f.scalar(a)}" for a in op.args)
    place = f"({type}*){scratch}" if scratch else f"({type}*)0"
    if op.name in LANE_REDUCTIONS:
        call = f"gc_block_reduce<{f.threads}, {_combiner(op.name, dtype)}, {type}>({arguments}, {place})"
    elif op.name == "extract":
        call = f"gc_block_extract<{type}>({arguments}, {int(op.attr or 0)}, {place})"
    else:
        call = f"gc_block_shuffle<{f.threads}, {type}>({arguments}, {_source_lane(op, f.threads)}, {place})"
    f.define_each(op.result, [_as(f.type(op.result), type, call)])


def _source_lane(op: Op, threads: int) -> str:
    """Which of the lanes of both vectors a thread takes in a shuffle, see `shuffled`."""
    if op.name == "splice":
        return f"{LANE} + {int(op.attr or 0)}"
    size, half = SEGMENT // op.result.type.dtype.itemsize, int(op.name in ("odd_segments", "unpack_high", "zip_high"))
    if op.name in ("even_segments", "odd_segments"):
        return f"(2 * ({LANE} / {size}) + {half}) * {size} + {LANE} % {size}"
    size = threads if op.name in ("zip_low", "zip_high") else size
    return f"{LANE} % 2 * {threads} + {LANE} / {size} * {size} + {half * size // 2} + {LANE} % {size} / 2"


def _as(target: str, source: str, expression: str) -> str:
    """`expression` of C type `source` as `target`."""
    return expression if target == source else f"({target}){expression}"


def _combiner(name: str, dtype: DType) -> str:
    kind = name[len("reduce_") :]
    if dtype.kind == "bool" and kind in ("maximum", "minimum"):
        kind = "or" if kind == "maximum" else "and"
    return f"gc_{kind}"


def _binary(f: Function, op: Op, args: Sequence[str]) -> str:
    left, right = args
    dtype, symbol = op.result.type.dtype, _SYMBOLS[op.name]
    if dtype.is_float or dtype.kind == "bool":
        return f"{left} {symbol} {right}"
    return _wrapping(f, op, f"{left} {symbol} {right}", symbol, args)


def _wrapping(f: Function, op: Op, plain: str, symbol: str, args: Sequence[str]) -> str:
    """`args` combined in unsigned arithmetic; `plain` where nothing can overflow."""
    dtype, type = op.result.type.dtype, f.type(op.result)
    if dtype is i64 and type == "int" and all(map(f.is_int, op.args)):
        return plain
    if dtype.bits < 32:
        return f"({type})({plain})"
    unsigned = UNSIGNED[dtype.name]
    return f"({type})(" + f" {symbol} ".join(f"({unsigned}){a}" for a in args) + ")"


def _quotient(f: Function, op: Op, args: Sequence[str]) -> str:
    left, right = args
    if op.name in ("sdiv", "srem"):
        wide = "(long long)" if f.type(op.result) == "long long" else ""
        return _as_result(f, op, f"{wide}{left} {'/' if op.name == 'sdiv' else '%'} {right}")
    # Quotients of what is not negative: where a result fits, so it is known to be.
    small = op.result.type.dtype is i64 and all(map(f.is_int, (*op.args, op.result)))
    unsigned = "unsigned" if small else UNSIGNED[op.result.type.dtype.name]
    return f"({f.type(op.result)})(({unsigned}){left} {_QUOTIENTS[op.name]} ({unsigned}){right})"


def _as_result(f: Function, op: Op, expression: str) -> str:
    """`expression`, which C may compute in another integer type, in the type of the result."""
    type = f.type(op.result)
    return f"({type})({expression})" if type not in ("long long", "bool") else expression


def _shift(f: Function, op: Op, args: Sequence[str]) -> str:
    left, right = args
    dtype = op.result.type.dtype
    if op.name == "ashr":
        return _as_result(f, op, f"({REGISTER[dtype.name]}){left} >> {right}")
    unsigned = UNSIGNED[dtype.name]
    return f"({f.type(op.result)})(({unsigned}){left} {'<<' if op.name == 'shl' else '>>'} {right})"


def _scale(f: Function, op: Op, args: Sequence[str]) -> str:
    """Two factors: each is a normal number, and only the last product rounds."""
    number, power = args
    short, fraction = ("", 23) if op.result.type.dtype is f32 else ("LL", 52)
    to, back = _AS_FLOAT["f64" if short else "f32"], _AS_FLOAT["i64" if short else "i32"]
    unsigned = UNSIGNED["i64" if short else "i32"]
    bits = f.let(unsigned, f"({unsigned}){back}({power})")
    factors = (f"{to}((({unsigned})({part})) << {fraction})" for part in (f"{bits} >> 1", f"{bits} - ({bits} >> 1)"))
    return " * ".join([number, *factors])


def _neg(f: Function, op: Op, args: Sequence[str]) -> str:
    if op.result.type.dtype.is_float:
        return f"-{args[0]}"
    return _wrapping(f, op, f"0 - {args[0]}", "-", ("0", args[0]))


def _abs(f: Function, op: Op, args: Sequence[str]) -> str:
    if op.result.type.dtype.kind == "uint":
        return args[0]
    if op.result.type.dtype.is_float:
        return _function(f, op, args)
    return f"{args[0]} < 0 ? {_neg(f, op, args)} : {args[0]}"


def _not(f: Function, op: Op, args: Sequence[str]) -> str:
    if op.result.type.dtype.kind == "bool":
        return f"!{args[0]}"
    return _as_result(f, op, f"~{args[0]}")


def _function(f: Function, op: Op, args: Sequence[str]) -> str:
    suffix = "" if op.result.type.dtype is f64 else "f"
    return f"{_FLOAT_FUNCTIONS[op.name]}{suffix}({', '.join(args)})"


def _extreme(f: Function, op: Op, args: Sequence[str]) -> str:
    left, right = args
    dtype = op.result.type.dtype
    if dtype.kind == "bool":
        return f"{left} {'|' if op.name == 'maximum' else '&'} {right}"
    if dtype.is_float:
        return f"gc_{op.name}::of({left}, {right})"
    return _as_result(f, op, f"{left} {'>' if op.name == 'maximum' else '<'} {right} ? {left} : {right}")


def _choose(f: Function, op: Op, args: Sequence[str]) -> str:
    left, right = args
    return f"{left} {'>' if op.name == 'fmax' else '<'} {right} ? {left} : {right}"


def _compare(f: Function, op: Op, args: Sequence[str]) -> str:
    return f"{args[0]} {_COMPARE[op.name]} {args[1]}"


def _select(f: Function, op: Op, args: Sequence[str]) -> str:
    if f.zeroed.get(args[1]) == args[0] and args[2] in ("0", "0.0f"):
        return args[1]  # it is zero there already
    return f"{args[0]} ? {args[1]} : {args[2]}"


def _splat(f: Function, op: Op) -> None:
    f.define(op.result, f.registers[op.args[0]] * f.width(op.result))


def _lookup(f: Function, op: Op, args: Sequence[str]) -> str:
    """An element of a constant in memory, which stays in the nearest cache."""
    table, dtype = op.table or (), op.result.type.dtype
    numbers = ", ".join(literal(v, dtype) for v in table)
    name = f.table(f.type(op.result), len(table), numbers)
    return f"{name}[{args[0]} & {len(table) - 1}]"


def _lanes(f: Function, op: Op) -> None:
    type = f.type(op.result)
    if not f.is_block or op.result.type.lanes == 1:
        f.define(op.result, tuple(map(str, range(f.width(op.result)))))
    elif type == "int":
        f.define(op.result, (LANE,))
    else:
        f.define_each(op.result, [f"({type}){LANE}"])


def _extract(f: Function, op: Op) -> None:
    first = int(op.attr or 0)
    f.define(op.result, f.registers[op.args[0]][first : first + f.width(op.result)])


def _shuffle(f: Function, op: Op) -> None:
    lanes = [register for a in op.args for register in f.registers[a]]
    f.define(op.result, tuple(lanes[lane] for lane in shuffled(op)))


def _reduce(f: Function, op: Op) -> None:
    """Halves are combined until one lane is left: the order of a sum is the same on every machine."""
    if f.is_block and op.args[0].type.lanes > 1:
        exchange(f, op, "")
        return
    lanes = list(f.registers[op.args[0]])
    source = op.args[0].type.dtype
    combiner, type = _combiner(op.name, source), _EXCHANGED.get(source.name, "int")
    while len(lanes) > 1:
        half = len(lanes) // 2
        pairs = zip(lanes[:half], lanes[half:], strict=True)
        lanes = [f.let(type, f"{combiner}::of(({type}){a}, ({type}){b})") for a, b in pairs]
    f.define_each(op.result, [_as(f.type(op.result), type, lanes[0])])


def _cast(f: Function, op: Op, args: Sequence[str]) -> str:
    return convert(args[0], op.args[0].type.dtype, op.result.type.dtype, f.type(op.result))


def convert(text: str, source: DType, target: DType, type: str) -> str:
    """The operand `text` of type `source` as `target`, whose register has the C type `type`."""
    if source is target:
        return text
    if target.is_float and target.bits == 16:
        # f64 is rounded once; wide integers are rounded to f32 first, as NumPy does.
        wide = text if source in (f32, f64) else convert(text, source, f32, "float")
        return f"gc_{'double' if source is f64 else 'float'}_to_{target.name}({wide})"
    if source.is_float and source.bits == 16:
        if target.kind == "bool":
            return f"({text} & 0x7fff) != 0"
        return convert(f"gc_{source.name}_to_float({text})", f32, target, type)
    if target.kind == "bool":
        return f"{text} != 0"
    return f"({type}){text}"


def _bitcast(f: Function, op: Op, args: Sequence[str]) -> str:
    source, target = op.args[0].type.dtype, op.result.type.dtype
    if source.is_float == target.is_float and REGISTER[source.name] == REGISTER[target.name]:
        return args[0]
    if target.bits >= 32:
        return f"{_AS_FLOAT[target.name]}({args[0]})"
    return f"({f.type(op.result)}){args[0]}"


_Handler = Callable[[Function, Op, Sequence[str]], str]
_HANDLERS: dict[str, _Handler] = {
    **dict.fromkeys(_SYMBOLS, _binary),
    **dict.fromkeys(("sdiv", "srem", *_QUOTIENTS), _quotient),
    **dict.fromkeys(("shl", "lshr", "ashr"), _shift),
    **dict.fromkeys(_FLOAT_FUNCTIONS, _function),
    **dict.fromkeys(("maximum", "minimum"), _extreme),
    **dict.fromkeys(("fmax", "fmin"), _choose),
    **dict.fromkeys(COMPARISONS, _compare),
    "scale": _scale,
    "neg": _neg,
    "abs": _abs,
    "not": _not,
    "select": _select,
    "cast": _cast,
    "bitcast": _bitcast,
    "lookup": _lookup,
}
# Operations that are not done lane by lane.
_SPECIAL: dict[str, Callable[[Function, Op], None]] = {
    **dict.fromkeys(LANE_REDUCTIONS, _reduce),
    **dict.fromkeys(SHUFFLES, _shuffle),
    "splat": _splat,
    "lanes": _lanes,
    "extract": _extract,
}
