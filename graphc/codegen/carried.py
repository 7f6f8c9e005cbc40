"""Which values of a loop are products of lines that may still be under way when a round ends."""

from __future__ import annotations

from graphc.codegen.kernel import For, GroupMma, Value


def unfinished(loop: For) -> frozenset[Value]:
    """The carried values of `loop` that a `GroupMma` of its body gives to the next round."""
    given = {result for s in loop.body if isinstance(s, GroupMma) for result in s.results}
    return frozenset(phi for phi, last in zip(loop.phis, loop.yields, strict=False) if last in given)
