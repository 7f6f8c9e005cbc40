"""Blocks of device memory: cut from segments, free ones by size, neighbours joined."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphc_runtime.devices.cuda_streams import Stream

GRANULE = 512
# Tiers, which have segments of their own. Programs keep single numbers (losses, flags of checks) for long; apart from
# the rest these do not move it.
SCALARS, SHORT, LARGE = range(3)
SCALAR = 8  # bytes, at most
SMALL = 1 << 20  # bytes of a block of the second tier, at most


class Block:
    """A part of a segment, or memory of another library, which `owner` holds. `live`: in use, or waiting for streams
    that use it, or an arena. `counted`: bytes that it has in the statistics.
    """

    __slots__ = (
        *("address", "size", "stream", "shelf", "owner", "live", "counted", "what", "others", "previous", "following"),
        "give_back",
    )

    def __init__(
        self, address: int, size: int, stream: Stream, give_back: Callable[[Block], None], shelf: Shelf | None
    ) -> None:
        self.address = address
        self.size = size
        self.stream = stream
        self.give_back = give_back  # `append` of the list of returned blocks: what a finalizer calls
        self.shelf = shelf
        self.owner: object = None
        self.live = False
        self.counted = 0
        self.what: object = ""  # what it is for, while it is live
        self.others: set[Stream] | None = None  # streams besides its own that used it
        self.previous: Block | None = None  # neighbours in the segment
        self.following: Block | None = None

    def __lt__(self, other: Block) -> bool:
        # For heaps by address, which may have two entries of one block.
        return self.address < other.address


class Shelf:
    """The free blocks of one stream and one tier, by size.

    Of blocks of one size the lowest address is taken: then a loop, whatever it drops in which order, soon finds its
    memory where it lay one or two rounds before, which graphs want.
    """

    def __init__(self, stream: Stream, tier: int) -> None:
        self.stream = stream
        self.tier = tier
        self.segments: list[Block] = []  # the first block of each
        # Heaps by address. An entry holds while its block is free and has that size.
        self._by_size: dict[int, list[tuple[int, Block]]] = {}
        self._sizes: list[int] = []  # sorted; some may have no blocks
        self._loose: list[Block] = []  # put here since neighbours were last joined

    def put(self, block: Block) -> None:
        block.live = False
        self._loose.append(block)
        self._insert(block)

    def take(self, size: int) -> Block | None:
        """A block of at least `size` bytes; what is over stays here."""
        block = self._pop(size)
        if block is not None:
            return block
        self._join()
        sizes = self._sizes
        at = bisect_left(sizes, size)
        while at < len(sizes):
            block = self._pop(sizes[at])
            if block is not None:
                return self._split(block, size)
            del self._by_size[sizes.pop(at)]
        return None

    def add_segment(self, block: Block, size: int) -> Block:
        """Take over a fresh segment and give a block of `size` bytes of it."""
        block.live = True
        self.segments.append(block)
        return self._split(block, size)

    def free_segments(self) -> list[tuple[int, int]]:
        """Take out the segments that are free throughout: their addresses and sizes."""
        self._join()
        whole = [b for b in self.segments if not b.live and b.following is None]
        self.segments = [b for b in self.segments if b.live or b.following is not None]
        found = [(block.address, block.size) for block in whole]
        for block in whole:
            block.size = 0
        return found

    def blocks(self) -> Iterator[Block]:
        for first in self.segments:
            block: Block | None = first
            while block is not None:
                yield block
                block = block.following

    def _insert(self, block: Block) -> None:
        blocks = self._by_size.get(block.size)
        if blocks is None:
            self._by_size[block.size] = [(block.address, block)]
            insort(self._sizes, block.size)
        else:
            heapq.heappush(blocks, (block.address, block))

    def _pop(self, size: int) -> Block | None:
        blocks = self._by_size.get(size)
        while blocks:
            block = heapq.heappop(blocks)[1]
            if not block.live and block.size == size:
                block.live = True
                return block
        return None

    def _split(self, block: Block, size: int) -> Block:
        over = block.size - size
        if over < GRANULE or (self.tier == LARGE and over <= SMALL):
            return block
        rest = Block(block.address + size, over, self.stream, block.give_back, self)
        rest.previous, rest.following = block, block.following
        if rest.following is not None:
            rest.following.previous = rest
        block.following, block.size = rest, size
        self._insert(rest)
        return block

    def _join(self) -> None:
        """Make one block of free neighbours. Not done at once, since a loop takes the same sizes again."""
        loose, self._loose = self._loose, []
        for block in loose:
            if block.live or not block.size:
                continue
            joined, size = block, block.size
            while (right := joined.following) is not None and not right.live:
                self._absorb(joined, right)
            while (left := joined.previous) is not None and not left.live:
                self._absorb(left, joined)
                joined = left
            if joined.size != size:
                self._insert(joined)

    def _absorb(self, block: Block, right: Block) -> None:
        block.size += right.size
        right.size = 0
        block.following = right.following
        if right.following is not None:
            right.following.previous = block
