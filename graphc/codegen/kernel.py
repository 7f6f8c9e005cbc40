"""Kernel IR: the fully scheduled form of one kernel. Explicit loops, vectors and memory accesses, in SSA form.

A kernel runs its body once for each value of `index` in `[0, grid)`; calls with disjoint sub-ranges may run at the
same time. Back ends translate it one statement at a time; every choice (vector width, tiles, order) has been made
before.

On a device that the host drives (CUDA), `threads` says what an index of the range is. 1: one thread; a vector is so
many registers of it, and memory of the kernel's own is the thread's. More: a block of that many threads, which run the
body together; a vector has that many lanes, one in each thread; scalars are the same in all threads, which compute them
all; memory of the kernel's own is shared by the block. Each access to a buffer comes, as the text says, after those
before it: the back end puts barriers where threads need them. The lanes of one store go to different elements, and a
block stores an element of a buffer that its kernel never loads only once.

Scalars of type i64 serve as indices. Values are scalars (`lanes == 1`) or vectors. A bool is one bit in a register
and one byte in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.ir.record import record
from graphc.ir.types import DType, boolean, i64


class VType:
    """The type of a kernel value: `f32` (scalar) or `f32x16` (vector). There is one object per type, so `is` and `==`
    agree: types are part of the key under which each operation is looked up.
    """

    __slots__ = ("dtype", "lanes")

    dtype: DType
    lanes: int

    def __new__(cls, dtype: DType, lanes: int = 1) -> VType:
        known = _vtypes.get((dtype, lanes))
        if known is not None:
            return known
        self = super().__new__(cls)
        self.dtype, self.lanes = dtype, lanes
        return _vtypes.setdefault((dtype, lanes), self)

    def __reduce__(self) -> tuple[object, ...]:
        return VType, (self.dtype, self.lanes)

    def __str__(self) -> str:
        return self.dtype.name if self.lanes == 1 else f"{self.dtype.name}x{self.lanes}"

    __repr__ = __str__


_vtypes: dict[tuple[DType, int], VType] = {}


INDEX = VType(i64)


@dataclass(eq=False, slots=True)
class Value:
    """An SSA value: the result of a statement, a loop variable or a loop-carried value. Compared by identity."""

    type: VType
    name: str = ""  # a hint; the printer makes names unique


@record
class Param:
    """A buffer of `size` elements. Parameters never overlap: what is updated in place is one parameter, "inout".

    Mode "own" is memory of the kernel itself, not a parameter: each call has its own, with arbitrary contents.
    """

    name: str
    dtype: DType
    size: int
    mode: str  # "in", "out", "inout" or "own"


@record
class Affine:
    """An element index: `const + sum(value * coefficient)` over i64 scalars."""

    const: int = 0
    terms: tuple[tuple[Value, int], ...] = ()


@record
class Op:
    """`result = name(args)`. Names and meanings are in `OPERATIONS`; `attr` is the literal of `const`, or the number of
    a lane, `table` what `lookup` looks up in.
    """

    result: Value
    name: str
    args: tuple[Value, ...] = ()
    attr: float | int | bool | None = None
    table: tuple[float, ...] | None = None


@record
class Load:
    """Read `result.type` from `buffer`.

    Lane `j` reads element `index + j * stride` (or `index + offsets[j]`, an i64 vector, when `offsets` is given;
    `stride` is then 0). A vector of stride 0 without offsets is not allowed: load a scalar and splat it. Lanes where
    `mask` (bool vector, or bool scalar for a scalar load) is false read nothing and give zero.
    """

    result: Value
    buffer: Param
    index: Affine
    stride: int = 1
    offsets: Value | None = None
    mask: Value | None = None


@record
class Store:
    """Write `value` to `buffer`; lanes, `stride`, `offsets` and `mask` as for `Load`.

    What `streams` goes past the caches: a whole vector of neighbours, from a multiple of its lanes on, to a buffer that
    begins at a cache line and that the kernel does not read.
    """

    buffer: Param
    index: Affine
    value: Value
    stride: int = 1
    offsets: Value | None = None
    mask: Value | None = None
    streams: bool = False


@record
class Prefetch:
    """Say that the cache line of element `index` is read soon. The element need not exist."""

    buffer: Param
    index: Affine


@record
class Fence:
    """What is loaded after it is loaded anew: no sooner, and not with equal loads before it. A request to the back end,
    which otherwise fills registers with what is wanted later; results do not depend on it.
    """


@record
class For:
    """`for var = lo to hi step step`, carrying values: `phis[i]` starts as `inits[i]`, becomes `yields[i]`; after the
    loop it is `results[i]`.

    Bounds are numbers or i64 values; a loop that runs zero times gives its `inits`.
    """

    var: Value
    lo: int | Value
    hi: int | Value
    step: int
    body: tuple[Stmt, ...]
    phis: tuple[Value, ...] = ()
    inits: tuple[Value, ...] = ()
    yields: tuple[Value, ...] = ()
    results: tuple[Value, ...] = ()


@record
class If:
    """Run `body` when the scalar bool `condition` holds. It has no results: it may only store."""

    condition: Value
    body: tuple[Stmt, ...]


@record
class Mma:
    """In a block: each warp of 32 threads adds the product of a 16 x k and a k x 8 matrix to a 16 x 8 matrix of f32.

    With g = lane // 4 and t = lane % 4 of the warp, `c` and `results` hold elements (g, 2t), (g, 2t + 1), (g + 8, 2t)
    and (g + 8, 2t + 1). For `dtype` f16 or bf16, k is 16, and each i32 of `a` and `b` holds two neighbours along k, the
    first in its low half: `a` rows g and g + 8 at step 2t, then both at step 2t + 8; `b` column g at steps 2t and
    2t + 8. For f32, k is 8, and an i32 holds the bits of one element, which is rounded to tf32 before (10 bits of
    mantissa, to the nearest, ties away from zero; infinities and NaN stay): `a` rows g and g + 8 at step t, then both
    at step t + 4; `b` column g at steps t and t + 4.
    """

    results: tuple[Value, ...]
    dtype: DType
    a: tuple[Value, ...]
    b: tuple[Value, ...]
    c: tuple[Value, ...]


@record
class Exchange:
    """In a block: each thread gets the `value` of the thread of its warp whose number differs in the one bit `bits`."""

    result: Value
    value: Value
    bits: int


@record
class Exp2:
    """In a block: 2 ** `value`, f32, with a relative error of at most 2**-22; 0 where that is below 2**-126."""

    result: Value
    value: Value


@record
class LoadMatrix:
    """In a block: each warp reads one matrix of 8 rows of 16 bytes for each of `results` (1, 2 or 4), i32 each.

    Thread i of the warp names row i % 8 of matrix i // 8 (those past the last one name nothing): eight elements of 16
    bits, or four of f32, from `index + offsets` on, a multiple of as many. With g and t as for `Mma`, its result holds
    elements (g, 2t) and (g, 2t + 1) of each matrix of 16-bit elements, or when `transposed` (2t, g) and (2t + 1, g);
    the bits of element (g, t) of one of f32, which cannot be transposed.
    """

    results: tuple[Value, ...]
    buffer: Param
    index: Affine
    offsets: Value
    transposed: bool = False


@record
class AsyncCopy:
    """In a block: each thread copies `count` elements (16 bytes, aligned) from `source` at `source_index +
    source_offsets` to `buffer`, memory of the block, at `index + offsets`; zeros where `mask` does not hold.

    The elements are there after an `Await` that waits for them, not before.
    """

    buffer: Param
    index: Affine
    offsets: Value
    source: Param
    source_index: Affine
    source_offsets: Value
    count: int
    mask: Value | None = None


@record
class Await:
    """End a group of copies (perhaps an empty one), and wait until at most `pending` groups are under way, the last
    ones.
    """

    pending: int


@record
class Lines:
    """Where 64 steps of a matrix of 16-bit elements lie in memory of a block, from element `index + offsets` on, which
    is the same in all threads of a warp group: in lines of 128 bytes, of which the first of `buffer` begins at a
    multiple of 1024 bytes. Piece p of 16 bytes of line l stands at place p ^ l % 8 of the line (both counted in the
    buffer), so that what is read together lies in different banks. Only copies fill them.

    A line has the steps of one row (or column) when `turned`; otherwise 64 rows (columns) of one step, and the next 64
    of them follow 64 lines later.
    """

    buffer: Param
    index: Affine
    offsets: Value
    turned: bool


@record
class GroupMma:
    """In a block: each group of four warps begins to add the product of a 64 x 64 and a 64 x n matrix to a 64 x n
    matrix of f32; `left` are the rows of the first one, `right` the columns of the second one, f16 or bf16.

    n is twice the number of `results`: with w = number of the warp in its group, g = lane // 4 and t = lane % 4 of the
    warp, result (and `c`) 4j + 2h + k is element (16w + g + 8h, 8j + 2t + k). Until an `AwaitGroups` gives them out,
    results are only carried on, as `c` of the next product or by a loop: each once, and memory that is read may not be
    written.
    """

    results: tuple[Value, ...]
    left: Lines
    right: Lines
    c: tuple[Value, ...]


@record
class AwaitGroups:
    """Wait until at most `pending` of the thread's `GroupMma` are under way, the last ones. When none is, `values`,
    which they gave, are ready as `results`.
    """

    pending: int
    values: tuple[Value, ...] = ()
    results: tuple[Value, ...] = ()


# What only blocks of threads do.
OfBlock = Mma | Exchange | Exp2 | LoadMatrix | AsyncCopy | Await | GroupMma | AwaitGroups
Stmt = Op | Load | Store | Prefetch | Fence | For | If | OfBlock


@record
class Kernel:
    """A kernel: buffers, the size of its parallel range, and what to do for one `index` of it. `own` are small buffers
    that are no parameters. `threads` is 1 but in kernels whose index stands for a block of threads; `aligned` says of
    these that their parameters begin at multiples of 16 bytes, `resident` how many blocks should find room in a
    multiprocessor at once (0: as it comes).
    """

    name: str
    params: tuple[Param, ...]
    grid: int
    index: Value
    body: tuple[Stmt, ...]
    flops: int = 0  # arithmetic of the whole kernel, for the decision to use threads and for reports
    bytes: int = 0  # memory traffic of the whole kernel, likewise
    own: tuple[Param, ...] = ()
    threads: int = 1
    aligned: bool = False
    resident: int = 0


def statements(body: Sequence[Stmt]) -> Iterator[Stmt]:
    """All statements of `body` in their order, each before those inside it."""
    for statement in body:
        yield statement
        if isinstance(statement, (For, If)):
            yield from statements(statement.body)


# name -> (number of operands, meaning). All operands have one type unless said otherwise.
OPERATIONS: dict[str, tuple[int, str]] = {
    "const": (0, "the literal `attr`, in every lane"),
    "splat": (1, "a scalar in every lane"),
    "lanes": (0, "0, 1, 2, ... across the lanes (integer vector)"),
    "add": (2, "sum; integers wrap"),
    "sub": (2, "difference; integers wrap"),
    "mul": (2, "product; integers wrap"),
    "div": (2, "IEEE quotient (float)"),
    "fma": (3, "a * b + c rounded once (float)"),
    "fma_pairs": (3, "c + a[1] * b[1], then + a[0] * b[0], for two pbf16 and f32; subnormals may count as 0"),
    "neg": (1, "negation; integers wrap"),
    "abs": (1, "absolute value; integers wrap"),
    "sqrt": (1, "IEEE square root"),
    "floor": (1, "towards minus infinity (float)"),
    "ceil": (1, "towards plus infinity (float)"),
    "trunc": (1, "towards zero (float)"),
    "rint": (1, "nearest, half to even (float)"),
    "maximum": (2, "the larger; NaN if either is NaN; +0 over -0"),
    "minimum": (2, "the smaller; NaN if either is NaN; -0 over +0"),
    "fmax": (2, "a > b ? a : b (float): the second when unordered or equal"),
    "fmin": (2, "a < b ? a : b (float): the second when unordered or equal"),
    "sdiv": (2, "truncating signed quotient; the divisor is neither 0 nor an overflowing -1"),
    "srem": (2, "remainder of sdiv, same conditions"),
    "udiv": (2, "unsigned quotient; the divisor is not 0"),
    "urem": (2, "unsigned remainder; the divisor is not 0"),
    "and": (2, "bitwise and (integer, bool)"),
    "or": (2, "bitwise or (integer, bool)"),
    "xor": (2, "bitwise exclusive or (integer, bool)"),
    "not": (1, "bitwise complement (integer, bool)"),
    "shl": (2, "shift left; the count is in [0, bits)"),
    "lshr": (2, "logical shift right, likewise"),
    "ashr": (2, "arithmetic shift right, likewise"),
    "eq": (2, "a == b -> bool; false when unordered"),
    "ne": (2, "a != b -> bool; true when unordered"),
    "lt": (2, "a < b -> bool; false when unordered; u8 and bool compare unsigned"),
    "le": (2, "a <= b -> bool; likewise"),
    "gt": (2, "a > b -> bool; likewise"),
    "ge": (2, "a >= b -> bool; likewise"),
    "select": (3, "bool a ? b : c"),
    "cast": (
        1,
        "conversion to the result dtype: float to int truncates and is in range; int to int wraps; to bool is != 0",
    ),
    "bitcast": (1, "the same bits as another dtype of the same size"),
    "reduce_add": (1, "vector -> scalar, pairwise halves: lane i + lane i+n/2 first"),
    "reduce_mul": (1, "likewise"),
    "reduce_maximum": (1, "likewise, with `maximum`"),
    "reduce_minimum": (1, "likewise, with `minimum`"),
    "reduce_or": (1, "likewise (integer, bool)"),
    "reduce_and": (1, "likewise (integer, bool)"),
    "zip_low": (2, "lanes of the two lower halves in turn: a[0], b[0], a[1], b[1], ... (vectors)"),
    "zip_high": (2, "likewise of the two upper halves"),
    "unpack_low": (2, "within every 16 bytes what `zip_low` does in the whole vector (vectors of 16 bytes and more)"),
    "unpack_high": (2, "likewise `zip_high`"),
    "even_segments": (2, "segments of 16 bytes: number 0, 2, ... of a, then those of b (vectors of 32 bytes and more)"),
    "odd_segments": (2, "likewise number 1, 3, ..."),
    "splice": (2, "the lanes of both one after the other, as many as one has from number `attr` on (vectors)"),
    "extract": (1, "as many lanes of a vector as the result has, from number `attr` on"),
    "scale": (
        2,
        "a * 2**n rounded once, for a not far from 1; b is 1.5 * 2**m + 2 * bias + n (float; m bits of mantissa are "
        "stored; |n| < 2 * bias - 60)",
    ),
    "lookup": (
        1,
        "element i mod n of `table`, whose size n is a power of two; i is an integer of as many bits as the result "
        "(f32, f64)",
    ),
    "floordiv": (2, "i64 scalar index arithmetic: quotient of non-negative numbers"),
    "mod": (2, "i64 scalar index arithmetic: remainder of non-negative numbers"),
}

COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
LANE_REDUCTIONS = frozenset({"reduce_add", "reduce_mul", "reduce_maximum", "reduce_minimum", "reduce_or", "reduce_and"})
SHUFFLES = frozenset(
    ("zip_low", "zip_high", "unpack_low", "unpack_high", "even_segments", "odd_segments", "splice")
)  # fmt: skip
NUMBERED = frozenset({"const", "extract", "splice"})  # operations with an `attr`
SEGMENT = 16  # bytes within which processors move elements fastest


def shuffled(op: Op) -> list[int]:
    """Which lanes a shuffle of two vectors takes: those of the second are counted on from the first's."""
    name, type = op.name, op.result.type
    lanes = type.lanes
    if name == "splice":
        first = int(op.attr or 0)
        return list(range(first, first + lanes))
    if name in ("even_segments", "odd_segments"):
        size = SEGMENT // type.dtype.itemsize
        segments = range(int(name == "odd_segments"), 2 * lanes // size, 2)
        return [segment * size + i for segment in segments for i in range(size)]
    size = lanes if name in ("zip_low", "zip_high") else SEGMENT // type.dtype.itemsize
    start = size // 2 if name.endswith("_high") else 0
    firsts = [group + start + i for group in range(0, lanes, size) for i in range(size // 2)]
    return [lane for first in firsts for lane in (first, lanes + first)]


Number = float | int | bool


def result_type(name: str, args: Sequence[Value], to: DType | None) -> VType:
    """The type of operation `name` on `args`; `to` is the result dtype of `cast` and `bitcast`."""
    type = args[-1].type
    if name in COMPARISONS:
        return VType(boolean, type.lanes)
    if name in LANE_REDUCTIONS or name == "extract":
        return VType(type.dtype)
    return type if to is None else VType(to, type.lanes)
