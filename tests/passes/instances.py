"""Random graphs in which a given rewrite rule applies, made from the rule's own pattern."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir import DTYPES, OPS, Builder, DType, Graph, Node, TensorType
from graphc.ir.ops.source import row_major_index
from graphc.ir.types import bf16, boolean, f16, f32, f64, i32, i64
from graphc.passes.pattern import Pattern, Rule
from tests.fuzz.attrs import random_attrs

SPECIAL_FLOATS = (
    0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 5e-324, -1e-310, 1e-45, 6e-8, 1e-38, 2.0, 0.5, -0.75, 3.0, 1e30,
    -3e38, 60000.0, 7.25,
)  # fmt: skip
CONSTANT_FLOATS = (*SPECIAL_FLOATS, 4.0, -8.0, 0.25)

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_DIMENSIONS = (1, 1, 2, 3, 4)


class Unfit(Exception):
    """The choices made so far do not fit the pattern."""


class Instance:
    """One try to make nodes that match a pattern."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.builder = Builder()
        self.inputs: list[Node] = []
        self.names: dict[str, Node] = {}
        self.dtype = rng.choice(DTYPES)
        self.shape = (200,) if rng.random() < 0.5 else self.random_shape()

    def random_shape(self) -> tuple[int, ...]:
        return tuple(self.rng.choice(_DIMENSIONS) for _ in range(self.rng.randint(0, 4)))

    def input(self, type: TensorType) -> Node:
        node = self.builder.input(len(self.inputs), type)
        self.inputs.append(node)
        return node

    def constant(self, type: TensorType) -> Node:
        return self.builder.constant(random_number(self.rng, type.dtype), type)

    def node(self, pattern: Pattern, want: TensorType | None) -> Node:
        """A node for `pattern`, of type `want` if that is given. Raises Unfit."""
        if pattern.name in self.names:
            made = self.names[pattern.name]
        else:
            made = self.fresh(pattern, want)
        if want is not None and made.type != want:
            raise Unfit
        if pattern.name:
            self.names[pattern.name] = made
        return made

    def fresh(self, pattern: Pattern, want: TensorType | None) -> Node:
        type = want or TensorType(self.dtype, self.random_shape())
        if pattern.value is not None:
            return self.literal(pattern.value, type)
        if not pattern.ops:
            return self.input(type)
        op = self.rng.choice(pattern.ops)
        if op == "constant":
            return self.constant(type)
        if op == "iota":
            if type.dtype is boolean:
                raise Unfit
            return self.builder.iota(self.rng.randrange(type.rank), type)
        if pattern.operands is None:
            operands = self.open_operands(op, type)
        else:
            operands = tuple(
                self.node(p, t) for p, t in zip(pattern.operands, self.operand_types(op, pattern, want), strict=True)
            )
        attrs = {**random_attrs(self.rng, op, [o.type for o in operands]), **dict(pattern.attrs)}
        if op == "cast":
            attrs["dtype"] = want.dtype if want else self.rng.choice(DTYPES)
        if op == "bitcast":
            same_size = [d for d in DTYPES if d is not boolean and d.bits == operands[0].dtype.bits]
            if operands[0].dtype is boolean or (want is not None and want.dtype not in same_size):
                raise Unfit
            attrs["dtype"] = want.dtype if want else self.rng.choice(same_size)
        if op == "pad" and operands[0].op in ("constant", "pad") and self.rng.random() < 0.7:
            attrs["value"] = operands[0].attr("value")
        return self.builder.apply(op, operands, attrs)

    def literal(self, value: float | int | bool, type: TensorType) -> Node:
        if isinstance(value, bool) != (type.dtype is boolean) or (type.dtype.kind == "uint" and value < 0):
            raise Unfit
        if type.dtype.is_integer and not isinstance(value, int):
            raise Unfit
        return self.builder.constant(value, type)

    def operand_types(self, op: str, pattern: Pattern, want: TensorType | None) -> list[TensorType | None]:
        """The types to ask of operands: those of elementwise operators follow from the result's."""
        assert pattern.operands is not None
        count = len(pattern.operands)
        if OPS[op].kind != "elementwise":
            if op == "contract":
                shapes = [tuple(self.rng.choice((1, 2, 3)) for _ in range(self.rng.randint(1, 3))) for _ in range(2)]
                return [TensorType(self.dtype, shape) for shape in shapes]
            free = None if pattern.operands[0].ops else TensorType(self.dtype, self.random_shape())
            return [free, TensorType(i32, self.random_shape())][:count]
        type = want or TensorType(self.dtype, self.shape)
        if op in _COMPARISONS:
            return [type.with_dtype(self.dtype)] * count
        if op == "select":
            return [type.with_dtype(boolean), type, type]
        if op == "cast":
            return [type.with_dtype(self.rng.choice([boolean, *DTYPES]))]
        return [type] * count

    def open_operands(self, op: str, type: TensorType) -> tuple[Node, ...]:
        """Operands of an operator whose rule leaves them open."""
        rng = self.rng
        if op == "concat":
            constant = self.constant(type)
            same = rng.random() < 0.5
            return tuple(constant if same else self.input(type) for _ in range(rng.randint(1, 3)))
        small = type.with_shape(tuple(1 if rng.random() < 0.5 else n for n in type.shape))
        form = rng.choice(["constant", "broadcast", "mixed"])

        def operand(dtype: DType) -> Node:
            if form == "constant" or (form == "mixed" and rng.random() < 0.4):
                return self.constant(type.with_dtype(dtype))
            return self.builder.broadcast(self.input(small.with_dtype(dtype)), type.shape)

        count = OPS[op].arity or 2
        dtypes = [boolean, type.dtype, type.dtype] if op == "select" else [type.dtype] * count
        return tuple(operand(dtype) for dtype in dtypes)


def random_number(rng: random.Random, dtype: DType) -> float | int | bool:
    if dtype.is_float:
        return float(rng.choice(CONSTANT_FLOATS))
    if dtype.kind == "bool":
        return rng.random() < 0.5
    info = np.iinfo(dtype.numpy)
    return int(rng.choice([0, 1, 2, 3, -1 if info.min else 255, int(info.min), int(info.max), rng.randint(0, 100)]))


def random_array(rng: np.random.Generator, type: TensorType, tame: bool = False) -> np.ndarray:
    """Special and ordinary values mixed; with `tame`, small whole numbers, whose sums are exact."""
    dtype = type.dtype
    if dtype.kind == "bool":
        return np.asarray(rng.random(type.shape) < 0.5)
    if tame:
        return np.asarray(rng.integers(0 if dtype.kind == "uint" else -4, 5, type.shape)).astype(dtype.numpy)
    if dtype.is_float:
        with np.errstate(all="ignore"):
            special = rng.choice(np.array(SPECIAL_FLOATS), type.shape)
            return np.asarray(np.where(rng.random(type.shape) < 0.6, special, rng.normal(0, 3, type.shape))).astype(
                dtype.numpy
            )
    info = np.iinfo(dtype.numpy)
    special = rng.choice(np.array([0, 1, 2, info.min, info.max, info.max - 1, info.min + 1], dtype.numpy), type.shape)
    plain = rng.integers(info.min, info.max, type.shape, dtype.numpy, endpoint=True)
    return np.asarray(np.where(rng.random(type.shape) < 0.6, special, plain)).astype(dtype.numpy)


def max_pool_gradient(instance: Instance) -> Node:
    """The gradient of relu and max pooling, as autodiff writes it, with the mask written in one of two ways."""
    rng, b = instance.rng, instance.builder
    type = TensorType(rng.choice([f32, f64]), (2, rng.randint(2, 5), rng.randint(2, 5)))
    x = instance.input(type)
    negative = b.elementwise("le", x, 0)
    windows = b.apply("window", (b.select(negative, 0, x),), random_attrs(rng, "window", [type]))
    axes = tuple(range(3, windows.type.rank))
    pooled = b.reduce_max(windows, axes, "first")
    ct = b.constant(1, pooled.type) if rng.random() < 0.3 else instance.input(pooled.type)
    winner = b.argmax(windows, axes, i32)
    place = row_major_index(b, windows.type.with_dtype(i32), axes)
    chosen = b.elementwise("eq", place, b.expand_dims(winner, axes, windows.shape))
    spread = b.select(chosen, b.expand_dims(ct, axes, windows.shape), 0.0)
    if ct.op == "constant":
        spread = b.select(chosen, b.constant(1, windows.type), 0.0)
    attrs = dict(windows.attrs)
    attrs.pop("size")
    folded = b.apply("fold", (spread,), {**attrs, "shape": type.shape})
    if rng.random() < 0.5:
        return b.select(negative, 0, folded)
    return b.select(b.elementwise("gt", x, 0), folded, 0)


def bordered_gradient(instance: Instance) -> Node:
    """The gradient of relu behind that of pooling whose windows leave a border over."""
    rng, b = instance.rng, instance.builder
    rows, columns = rng.randint(1, 3), rng.randint(1, 3)
    windows = instance.input(TensorType(rng.choice([f32, f64]), (2, rows, columns, 2, 2)))
    folded = b.fold(windows, (2, 2 * rows, 2 * columns), (1, 2), (2, 2), (1, 1))
    low, high = ((0, rng.randint(0, 1), rng.randint(0, 1)) for _ in range(2))
    padded = b.pad(folded, low, high)
    x = instance.input(padded.type)
    if rng.random() < 0.5:
        return b.select(b.elementwise("le", x, 0), 0, padded)
    return b.select(b.elementwise("gt", x, 0), padded, 0)


_EMPTY = (
    "add",
    "neg",
    "eq",
    "reshape",
    "permute",
    "broadcast",
    "slice",
    "concat",
    "reduce_sum",
    "reduce_prod",
    "contract",
)


def empty(instance: Instance, ops: Sequence[str] = _EMPTY, dtype: DType | None = None) -> Node:
    """Some operator on tensors without elements."""
    rng = instance.rng
    shape = [*instance.random_shape(), 0]
    rng.shuffle(shape)
    type = TensorType(dtype or instance.dtype, tuple(shape))
    op = rng.choice(ops)
    operands = tuple(instance.input(type) for _ in range(OPS[op].arity or 2))
    return instance.builder.apply(op, operands, random_attrs(rng, op, [type] * len(operands)))  # type: ignore[arg-type]


def unwritten(instance: Instance) -> Node:
    """Something written to no places of a tensor."""
    rng, op = instance.rng, instance.rng.choice(("index_add", "index_set", "scatter_add", "scatter_set"))
    shape = (*instance.random_shape(), rng.randint(1, 3))
    dtype = instance.dtype if op.endswith("set") or instance.dtype is not boolean else f32
    axis = rng.randrange(len(shape))
    part = tuple(0 if d == axis else n for d, n in enumerate(shape))
    places = TensorType(i32, part if op.startswith("scatter") else (0,))
    operands = (TensorType(dtype, shape), places, TensorType(dtype, part))
    return instance.builder.apply(op, tuple(map(instance.input, operands)), {"axis": axis})


def written_by_rows(instance: Instance) -> Node:
    """Elements added or stored, most of them all of a row at one place."""
    rng, b = instance.rng, instance.builder
    shape, dtype = (*instance.random_shape(), rng.randint(1, 3)), instance.dtype
    op = "scatter_set" if dtype is boolean else rng.choice(("scatter_add", "scatter_set"))
    axis, count = rng.randrange(len(shape)), rng.randint(1, 4)
    part = tuple(count if d == axis else n for d, n in enumerate(shape))
    along = tuple(n if d == axis or rng.random() < 0.2 else 1 for d, n in enumerate(part))
    places = b.broadcast(instance.input(TensorType(rng.choice((i32, i64)), along)), part)
    x, source = instance.input(TensorType(dtype, shape)), instance.input(TensorType(dtype, part))
    return b.apply(op, (x, places, source), {"axis": axis})


def spaced_slice(instance: Instance) -> Node:
    """A slice of a padded tensor that lies inside, or nearly."""
    x = instance.input(
        TensorType(instance.dtype, tuple(instance.rng.randint(1, 4) for _ in range(instance.rng.randint(1, 2))))
    )
    padded = instance.builder.apply("pad", (x,), random_attrs(instance.rng, "pad", [x.type]))  # type: ignore[arg-type]
    rng = instance.rng
    start = tuple(rng.choice([low, low, low + 1]) for low in padded.ints("low"))
    step = tuple(between + 1 for between in padded.ints("interior"))
    size = tuple(rng.randint(1, n) for n in x.shape)
    return instance.builder.slice(padded, start, size, step)


def cut_padding(instance: Instance) -> Node:
    """A slice of a padded tensor, anywhere in it."""
    rng = instance.rng
    x = instance.input(TensorType(instance.dtype, tuple(rng.randint(1, 4) for _ in range(rng.randint(1, 2)))))
    low, high = (tuple(rng.randint(0, 2) for _ in x.shape) for _ in range(2))
    padded = instance.builder.pad(x, low, high)
    start = tuple(rng.randint(0, n - 1) for n in padded.shape)
    size = tuple(rng.randint(1, n - s) for n, s in zip(padded.shape, start, strict=True))
    return instance.builder.slice(padded, start, size, (1,) * len(size))


def written_part(instance: Instance) -> Node:
    """A slice, forwards or backwards, of a value of which a part was replaced, often of that part or beside it."""
    rng, b = instance.rng, instance.builder
    part = TensorType(boolean, tuple(rng.randint(1, 4) for _ in range(rng.randint(1, 2))))
    mask = b.apply("pad", (b.constant(True, part),), {**random_attrs(rng, "pad", [part]), "value": False})  # type: ignore[arg-type]
    written = b.select(mask, *(instance.input(mask.type.with_dtype(instance.dtype)) for _ in range(2)))
    start, size, step = [], [], []
    for n, low, between, count in zip(mask.shape, mask.ints("low"), mask.ints("interior"), part.shape, strict=True):
        first = rng.choice([low, low, low + between + 1, rng.randint(0, max(n - 1, 0))])
        by = rng.choice([between + 1, between + 1, 1, -1])
        room = (n - 1 - first) // by if by > 0 else first
        start.append(first)
        size.append(rng.randint(1, max(1, min(room + 1, count))))
        step.append(by)
    return b.slice(written, tuple(start), tuple(size), tuple(step))


def sliced_product(instance: Instance) -> Node:
    """A slice of a product in another shape: with dimensions of one place more or less, or with two as one."""
    rng = instance.rng
    k, *shape = (rng.randint(1, 4) for _ in range(4))
    a, b, c = shape
    x, y = (instance.input(TensorType(instance.dtype, s)) for s in ((a, k), (k, b, c)))
    product = instance.builder.contract(x, y, "a k, k b c -> a b c")
    made = rng.choice([(a, 1, b, c), (a, b, c, 1), (1, a * b, c), (a, b * c)])
    size = tuple(rng.randint(1, n) for n in made)
    start = tuple(rng.randint(0, n - m) for n, m in zip(made, size, strict=True))
    return instance.builder.slice(instance.builder.reshape(product, made), start, size, (1,) * len(made))


def rounded_product(instance: Instance, biased: bool = False) -> Node:
    """A product in another shape, perhaps with a value for each column added, in 16 bits."""
    rng, b = instance.rng, instance.builder
    k, m, n, o = (rng.randint(1, 4) for _ in range(4))
    x, y = (instance.input(TensorType(f32, shape)) for shape in ((m * n, k), (o, k)))
    made = b.reshape(b.contract(x, y, "a k, o k -> a o"), rng.choice([(m, n, o), (n, 1, m, o), (m * n, o)]))
    if biased:
        made = b.add(made, b.broadcast(instance.input(TensorType(f32, (o,))), made.shape))
    return b.cast(made, rng.choice([f16, bf16]))


CUSTOM: dict[str, Callable[[Instance], Node]] = {
    "no-elements": empty,
    "any-of-nothing": lambda instance: empty(instance, ("reduce_max",), boolean),
    "all-of-nothing": lambda instance: empty(instance, ("reduce_min",), boolean),
    "sum-of-nothing": lambda instance: empty(instance, ("reduce_sum",)),
    "product-of-nothing": lambda instance: empty(instance, ("reduce_prod",)),
    "write-of-nothing": unwritten,
    "scatter_add-by-rows": written_by_rows,
    "scatter_set-by-rows": written_by_rows,
    "contract-of-nothing": lambda instance: empty(instance, ("contract",)),
    "slice-pad": spaced_slice,
    "slice-pad-less": cut_padding,
    "slice-written": written_part,
    "slice-reshape": sliced_product,
    "round-reshaped-product": rounded_product,
    "round-reshaped-biased": lambda instance: rounded_product(instance, biased=True),
    "relu-mask-of-what-windows-cover": bordered_gradient,
    "relu-mask-of-what-windows-cover-gt": bordered_gradient,
    "relu-mask-after-max-pool": max_pool_gradient,
    "relu-mask-after-max-pool-gt": max_pool_gradient,
}


def instances(rule: Rule, seed: int, attempts: int) -> Iterator[tuple[Graph, Graph]]:
    """Pairs of graphs: a node to which `rule` applies, and what the rule makes of it."""
    rng = random.Random(f"{rule.name}:{seed}")
    for _ in range(attempts):
        instance = Instance(rng)
        try:
            custom = CUSTOM.get(rule.name)
            node = custom(instance) if custom else instance.node(rule.before, None)
            after = rule.apply(instance.builder, node)
        except (Unfit, ShapeError, DTypeError, ValueError):
            continue
        if after is not None:
            yield Graph(tuple(instance.inputs), (node,)), Graph(tuple(instance.inputs), (after,))
