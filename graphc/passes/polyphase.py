"""Windows that step by several places as windows that step by one, over the phases of a dimension.

Place `s * h + r` of a dimension, for the window's place `r = s * j + p`, is place `h + j` of its phase `p`: of every
`s`-th element from number `p` on (Crochiere and Rabiner, "Multirate Digital Signal Processing", 1983). In memory that
is a reshape.
"""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.contraction import ContractSpec, Dim, format_spec, parse_spec
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.passes.positions import fresh


@record
class Polyphase:
    """The contraction `node` with the window along dimension `dim` of operand `side`, whose `positions` step by `step`
    and whose places are those of the label `tap`.
    """

    node: Node
    side: int
    dim: int
    positions: str
    tap: str
    step: int

    @property
    def _spec(self) -> ContractSpec:
        return parse_spec(self.node.text("spec"))

    @property
    def _extents(self) -> dict[str, int]:
        return self._spec.extents(self.node.inputs[0].shape, self.node.inputs[1].shape)

    @property
    def taps(self) -> int:
        """Places of the window in a phase, zeros among them in some phases if the window has not as many in each."""
        return -(-self._extents[self.tap] // self.step)

    def contraction(self, b: Builder) -> Node:
        """The contraction over phases, which steps by one along dimension `dim` of operand `side`.

        A result for each place of the window has a dimension for the places in a phase and then one for the phases.
        """
        spec = self._spec
        phase = fresh(spec.labels)
        operands: list[Node] = []
        dims: list[tuple[Dim, ...]] = []
        for number, (x, own) in enumerate(zip(self.node.inputs, spec.operands, strict=True)):
            if number == self.side:
                d, count = self.dim, self._extents[self.positions] + self.taps - 1
                terms: Dim = ((self.positions, 1), (self.tap, 1))
            elif ((self.tap, 1),) in own:
                d, count = own.index(((self.tap, 1),)), self.taps
                terms = ((self.tap, 1),)
            else:
                operands.append(x)
                dims.append(own)
                continue
            operands.append(self._split(b, x, d, count))
            dims.append((*own[:d], terms, ((phase, 1),), *own[d + 1 :]))
        out = [label for old in spec.out for label in ((old, phase) if old == self.tap else (old,))]
        return b.contract(operands[0], operands[1], format_spec(dims[0], dims[1], tuple(out)))

    def result(self, b: Builder, made: Node) -> Node:
        """The result of the contraction from that of `contraction`."""
        spec = self._spec
        if self.tap not in spec.out:
            return made
        d = spec.out.index(self.tap)
        made = b.reshape(made, (*made.shape[:d], made.shape[d] * made.shape[d + 1], *made.shape[d + 2 :]))
        return b.slice(made, (0,) * made.type.rank, self.node.shape, (1,) * made.type.rank)

    def _split(self, b: Builder, x: Node, d: int, count: int) -> Node:
        """`x` with dimension `d` as `count` places of each phase, zeros behind those that it has."""
        rank, missing = x.type.rank, count * self.step - x.shape[d]
        if missing > 0:
            behind = [missing if k == d else 0 for k in range(rank)]
            before, between = [0] * rank, [0] * rank
            if x.op == "pad" and x.attr("value") == 0:  # one that adds all zeros
                before, between = list(x.ints("low")), list(x.ints("interior"))
                behind = [old + new for old, new in zip(x.ints("high"), behind, strict=True)]
                x = x.inputs[0]
            x = b.pad(x, tuple(before), tuple(behind), tuple(between))
        elif missing:
            size = tuple(count * self.step if k == d else n for k, n in enumerate(x.shape))
            x = b.slice(x, (0,) * rank, size, (1,) * rank)
        return b.reshape(x, (*x.shape[:d], count, self.step, *x.shape[d + 1 :]))
