"""Short names for operators, written once over an abstract `apply` and `make`.

The builder inherits them; gradient rules, decompositions and the front end use them. Elementwise methods want
operands of one type; a Python number among them becomes a constant of the other operand's type. Nothing is broadcast
silently.
"""

from __future__ import annotations

from abc import abstractmethod

from graphc.ir.node import AttrValue, Node
from graphc.ir.types import DType, TensorType

Operand = Node | float | int | bool
Ints = tuple[int, ...]


class OpMethods:
    """Operator methods over `apply` (infers the type) and `make` (type given)."""

    @abstractmethod
    def apply(self, op: str, inputs: tuple[Node, ...], attrs: dict[str, AttrValue] | None = None) -> Node: ...

    @abstractmethod
    def make(
        self, op: str, inputs: tuple[Node, ...], attrs: tuple[tuple[str, AttrValue], ...], type: TensorType
    ) -> Node: ...

    # sources

    def input(self, index: int, type: TensorType, name: str = "") -> Node:
        """Input number `index` of the graph; `name` is a hint for printing."""
        return self.make("input", (), (("index", index), ("name", name)), type)

    def constant(self, value: float | int | bool, type: TensorType) -> Node:
        """A tensor of `type` with every element `value` (converted to the dtype's kind)."""
        kind = type.dtype.kind
        literal = float(value) if kind == "float" else bool(value) if kind == "bool" else int(value)
        return self.make("constant", (), (("value", literal),), type)

    def iota(self, axis: int, type: TensorType) -> Node:
        """The index along `axis` at each element."""
        return self.make("iota", (), (("axis", axis),), type)

    def random_bits(self, key: Node, type: TensorType, word: int = 0) -> Node:
        """i32 bits that depend on `key` (i64[2]: seed and offset) and the element's row-major index alone.

        There are two words of them for each element: 0 and 1. With 2 each element has one, in half the time. The key is
        moved to the device of `type`.
        """
        return self.make("random_bits", (self.transfer(key, type.device),), (("word", word),), type)

    def random_normal(self, key: Node, type: TensorType) -> Node:
        """Normal numbers, f32 or f64, that depend on `key` and the row-major index alone, as `random_bits`."""
        return self.make("random_normal", (self.transfer(key, type.device),), (), type)

    # elementwise

    def elementwise(self, op: str, *operands: Operand) -> Node:
        """`op` over operands of one shape; numbers become constants of the first node's type (for `select`, of a
        value's).
        """
        for operand in operands:
            if type(operand) is not Node:
                break
        else:
            return self.apply(op, operands)  # type: ignore[arg-type]  # nodes all of them
        nodes = [o for o in operands if isinstance(o, Node)]
        like = nodes[-1].type if op == "select" and len(nodes) > 1 else nodes[0].type
        return self.apply(op, tuple(o if isinstance(o, Node) else self.constant(o, like) for o in operands))

    def neg(self, x: Node) -> Node:
        return self.elementwise("neg", x)

    def exp(self, x: Node) -> Node:
        return self.elementwise("exp", x)

    def log(self, x: Node) -> Node:
        return self.elementwise("log", x)

    def add(self, x: Operand, y: Operand) -> Node:
        return self.elementwise("add", x, y)

    def sub(self, x: Operand, y: Operand) -> Node:
        return self.elementwise("sub", x, y)

    def mul(self, x: Operand, y: Operand) -> Node:
        return self.elementwise("mul", x, y)

    def div(self, x: Operand, y: Operand) -> Node:
        return self.elementwise("div", x, y)

    def select(self, condition: Node, x: Operand, y: Operand) -> Node:
        """`x` where `condition` (bool), else `y`."""
        return self.elementwise("select", condition, x, y)

    def cast(self, x: Node, dtype: DType) -> Node:
        """`x` converted to `dtype`; `x` itself when it has that dtype."""
        return x if x.dtype is dtype else self.apply("cast", (x,), {"dtype": dtype})

    def rounded(self, x: Node, values: DType, gradients: DType) -> Node:
        """`x` as `values` holds it, in its own dtype; its gradient as `gradients` holds that."""
        if values is gradients is x.dtype:
            return x
        return self.apply("rounded", (x,), {"values": values, "gradients": gradients})

    def transfer(self, x: Node, device: str) -> Node:
        """`x` on `device`; a constant is made there."""
        if x.type.device == device:
            return x
        if x.op in ("constant", "iota"):
            return self.make(x.op, (), x.attrs, x.type.on(device))
        return self.apply("transfer", (x,), {"device": device})

    # movement

    def reshape(self, x: Node, shape: Ints) -> Node:
        return x if x.shape == shape else self.apply("reshape", (x,), {"shape": shape})

    def permute(self, x: Node, perm: Ints) -> Node:
        """Dimension `i` of the result is dimension `perm[i]` of `x`."""
        return x if perm == tuple(range(len(perm))) else self.apply("permute", (x,), {"perm": perm})

    def broadcast(self, x: Node, shape: Ints) -> Node:
        """NumPy's `broadcast_to`: aligned at the right, dimensions of size 1 repeat."""
        return x if x.shape == shape else self.apply("broadcast", (x,), {"shape": shape})

    def slice(self, x: Node, start: Ints, size: Ints, step: Ints) -> Node:
        """`result[i] = x[start + i * step]` with `size` elements a dimension; a negative step reverses."""
        return self.apply("slice", (x,), {"start": start, "size": size, "step": step})

    def flip(self, x: Node, axes: Ints) -> Node:
        start = tuple(max(n - 1, 0) if i in axes else 0 for i, n in enumerate(x.shape))
        return self.slice(x, start, x.shape, tuple(-1 if i in axes else 1 for i in range(x.type.rank)))

    def pad(self, x: Node, low: Ints, high: Ints, interior: Ints | None = None, value: float | int | bool = 0) -> Node:
        """`x` with `low`/`high` elements `value` added at the ends and `interior` between neighbours of each
        dimension.
        """
        between = interior or (0,) * len(low)
        if not any(low) and not any(high) and not any(between):
            return x
        kind = x.dtype.kind
        literal = float(value) if kind == "float" else bool(value) if kind == "bool" else int(value)
        return self.apply("pad", (x,), {"low": low, "high": high, "interior": between, "value": literal})

    def concat(self, xs: tuple[Node, ...], axis: int) -> Node:
        return xs[0] if len(xs) == 1 else self.apply("concat", xs, {"axis": axis})

    def window(self, x: Node, axes: Ints, size: Ints, stride: Ints, dilation: Ints) -> Node:
        """Sliding windows: each of `axes` keeps the window's position, the places in the window follow as last
        dimensions.
        """
        return self.apply("window", (x,), {"axes": axes, "size": size, "stride": stride, "dilation": dilation})

    def fold(self, x: Node, shape: Ints, axes: Ints, stride: Ints, dilation: Ints) -> Node:
        """The adjoint of `window`: windows added back into a tensor of `shape`."""
        return self.apply("fold", (x,), {"shape": shape, "axes": axes, "stride": stride, "dilation": dilation})

    # reductions and contraction

    def reduce_sum(self, x: Node, axes: Ints) -> Node:
        return self.apply("reduce_sum", (x,), {"axes": axes}) if axes else x

    def reduce_max(self, x: Node, axes: Ints, ties: str = "even") -> Node:
        """Maximum over `axes`, NaN if any is NaN. `ties` tells the gradient: shared "even"ly or all to the "first"."""
        return self.apply("reduce_max", (x,), {"axes": axes, "ties": ties}) if axes else x

    def scan(self, op: str, x: Node, axis: int, reverse: bool = False) -> Node:
        """`scan_sum`, `scan_prod`, `scan_max` or `scan_min` along `axis`."""
        return self.apply(op, (x,), {"axis": axis, "reverse": reverse})

    def recurrence(self, a: Node, x: Node, axis: int, reverse: bool = False) -> Node:
        """y[k] = a[k] * y[k-1] + x[k] along `axis`."""
        return self.apply("recurrence", (a, x), {"axis": axis, "reverse": reverse})

    def argmax(self, x: Node, axes: Ints, dtype: DType) -> Node:
        """Row-major index, among `axes`, of the first maximum (of the first NaN if there is one)."""
        return self.apply("argmax", (x,), {"axes": axes, "dtype": dtype})

    def contract(self, x: Node, y: Node, spec: str) -> Node:
        """Sum of products by an index formula, such as "b c h+r w+s, o c r s -> b o h w" (docs/ir.md)."""
        return self.apply("contract", (x, y), {"spec": spec})

    # composites used by gradient rules

    def zeros_like(self, x: Node) -> Node:
        return self.constant(0, x.type)

    def expand_dims(self, x: Node, axes: Ints, shape: Ints) -> Node:
        """Undo a reduction: put `axes` (positions in the result) back with size 1 and broadcast to `shape`."""
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        return self.broadcast(self.reshape(x, kept), shape)
