"""Work for several threads in parts of about the same size."""

from __future__ import annotations

from collections.abc import Sequence


def balanced(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The numbers of `sizes` in at most `count` parts of about the same size, each part in order; the largest part
    first.

    The largest are dealt out first, so that no thread is left with one of them at the end.
    """
    parts: list[list[int]] = [[] for _ in range(min(count, len(sizes)))]
    total = [0] * len(parts)
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        least = total.index(min(total))
        parts[least].append(number)
        total[least] += sizes[number]
    return [sorted(parts[part]) for part in sorted(range(len(parts)), key=lambda part: -total[part])]
