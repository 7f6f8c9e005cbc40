"""The table of calls that recorded the same before, laid out for native code.

`graphc.tensors.learning` fills it, `graphc.native.recording` reads it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

# Words of an entry, in order. Its key: the user's code object and the place in it, the function, whether gradients are
# on and whether they flow, the default dtype, the device of what is made from nothing, how many arguments have names,
# the number of parts that the arguments have, and two words for each. Then what the call gave, by its kind:
#
# RECORDED   a node with its type and strides, the name of the gradient's node, bytes, whether gradients flow, how many
#            parents the value has and which of the tensors they are, a byte each, the views that it was made through
#            (0 or a tuple), and checks of values (0 or a tuple)
# SHOWN      a view: type, strides, chain and offset, of which tensor, whether it has a lineage of its own, its depth
# SAME       one of the tensors
# SEVERAL    a tuple of views: where what is told of each begins (less what an entry has before that), of which tensor,
#            how many
# OTHERWISE  none of the last three
KEY = ("code", "place", "function", "grad", "default", "device", "named", "count")
MADE = (
    *("kind", "node", "type", "strides", "name", "nbytes", "flows", "parents", "which", "through", "checks"),
    *("chain", "offset", "apart", "depth"),
    *("views", "several"),
)
RECORDED, SHOWN, SAME, OTHERWISE, SEVERAL = range(5)
ARGUMENT = ("what", "class")
ARGUMENTS = 20
KEY_WORDS = len(KEY) + ARGUMENTS * len(ARGUMENT)
WORDS = KEY_WORDS + len(MADE)

# In place of a class, of a tensor: these bits, and from SAME_AS on which of the tensors before it is kept by the same.
BLOCKED = 1  # its node lets no gradient through
CHAINED = 2  # it is a view: a part with its chain follows
SAME_AS = 4
VERSIONS = 64  # tensors that were written more often are not told apart

# What stands before the entries: what native code was wanting for the last call, whether it is at work; the key that it
# looked for; the parts of the arguments that it was given, and how many; where in
# `keeps` the first is that it holds.
HEAD = ("wanted", "busy", *[""] * KEY_WORDS, *[""] * ARGUMENTS, "given", "first")
HEAD_KEY, HEAD_GIVEN = 2, 2 + KEY_WORDS

# What may be wanted: an entry, to know in which order the function reads its arguments, an entry of a view.
ENTRY, ORDER, VIEW = 1, 2, 3
FLOWS, ENABLED = 1, 2  # bits of a key's word about gradients

# Offsets in bytes: in a key, in an entry, and in the head.
IN_KEY = {name: 8 * place for place, name in enumerate(KEY)}
IN_ENTRY = {name: 8 * (KEY_WORDS + place) for place, name in enumerate(MADE)}
IN_HEAD = {name: 8 * HEAD.index(name) for name in ("wanted", "busy", "given", "first")}

PLACES = 1 << 11  # entries there is room for
LOOKED_AT = 8  # places behind that of its key at which an entry may stand
HASHED = 0x9E3779B97F4A7C15  # 2**64 by the golden ratio, odd: its products spread keys over the upper bits
SHIFT = 64 - 11  # leaves as many bits as a place has
_MASK = (1 << 64) - 1


class Repeats:
    """The table of one recorder, at `address`. An entry whose first word is 0 is empty. `keeps` holds what keeps the
    nodes valid that native code looked at last.
    """

    __slots__ = ("_kept", "_words", "address", "keeps")

    def __init__(self) -> None:
        self._words = (ctypes.c_uint64 * (len(HEAD) + WORDS * PLACES))()
        self._kept: list[tuple[object, ...]] = []  # what the entries point to
        self.keeps: list[object] = []
        self.address = ctypes.addressof(self._words)

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all entries."""
        begin = 8 * len(HEAD)
        ctypes.memset(self.address + begin, 0, ctypes.sizeof(self._words) - begin)
        self._kept.clear()

    def wanted(self) -> int:
        """What native code was wanting for the call that is made now, told once; 0 for nothing."""
        what = self._words[0]
        self._words[0] = 0
        return what

    def key(self) -> list[int]:
        """The key of the last call."""
        return self._words[HEAD_KEY : HEAD_KEY + KEY_WORDS]

    def add(self, key: list[int], made: Mapping[str, int], keep: tuple[object, ...]) -> None:
        """Enter what a call with this key gave; words that are not told are 0. `keep` is what the addresses point to
        that nothing else keeps.
        """
        if 2 * len(self._kept) > PLACES:
            self.clear()
        first = place_of(key)
        for at in range(first, first + LOOKED_AT):
            begin = len(HEAD) + WORDS * (at % PLACES)
            if self._words[begin] == 0:
                self._words[begin : begin + WORDS] = [*key, *[made.get(name, 0) for name in MADE]]
                self._kept.append(keep)
                return
        self.clear()


def used(key: list[int]) -> list[int]:
    """The words of a key without those of arguments that the call does not have."""
    return key[: len(KEY) + len(ARGUMENT) * key[KEY.index("count")]]


def place_of(key: list[int]) -> int:
    """Where in the table the search for a key begins."""
    mixed = 0
    for word in used(key):
        mixed = ((mixed ^ word) * HASHED) & _MASK
        mixed ^= mixed >> 32
    return (mixed * HASHED & _MASK) >> SHIFT
