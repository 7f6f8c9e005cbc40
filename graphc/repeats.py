"""The table of calls that recorded the same before, laid out for native code.

`graphc.tensors.learning` fills it, `graphc.native.recording` reads it.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

# Words of an entry, in order. Its key: the user's code object and the place in it, the function, whether gradients are
# on and whether they flow, and inference mode, the default dtype, the device of what is made from nothing, how many
# arguments have names, the number of parts that the arguments have, and two words for each. Then what the call gave, by
# its kind:
#
# RECORDED   a value (see VALUE), the type and strides of its tensor, bytes, and checks of values (0 or a tuple)
# SHOWN      a view: type, strides, chain and offset, of which tensor, whether it has a lineage of its own, its depth
# SAME       one of the tensors
# SEVERAL    a tuple of views: where what is told of each begins (less what an entry has before that), of which tensor,
#            how many
# OTHERWISE  none of the last three
# LEFT       Python makes all calls whose keys begin so, as the key is of a call without arguments, but for those that
#            native code can serve (`graphc.native.serving`): where what it needs for that is, or 0, stands for a recipe
# OWNING     as the key of LEFT: calls whose keys begin so have leaves of their own, numbers and keys of random draws
#            that are read when the program runs: where what tells of them is stands for a recipe
# RECIPE     several values, several tensors, or a write: where the recipe begins, bytes, and checks of values
KEY = ("code", "place", "function", "grad", "default", "device", "named", "count")

CALL_WORDS = len(KEY) - 1  # of a key that tell the call, whatever its arguments are

# A value: its node, the name of the gradient's node, whether gradients flow, how many parents it has and which they
# are, a byte each (the number of a tensor, WHOLE for the whole memory that is written, from EARLIER on a value of the
# recipe), the views that it was made through (0 or a tuple), which parent it overwrote, whose writes it counts.
VALUE = ("node", "name", "flows", "parents", "which", "through", "replaced", "counts")
NO_WRITES, OWN_WRITES, WRITTEN = range(3)
WHOLE, EARLIER = 127, 128
MADE = (
    *("kind", *VALUE, "type", "strides", "nbytes", "checks"),
    *("chain", "offset", "apart", "depth"),
    *("views", "several"),
    "recipe",
)
RECORDED, SHOWN, SAME, OTHERWISE, SEVERAL, RECIPE, LEFT, OWNING = range(8)

# A recipe begins with: how many values there are, how many operations recorded them, how many tensors are given, and
# what packs these (0 for one alone, None for a tuple). Then whether a tensor is written, and what it must be: its
# place among the arguments, its type, strides, chain and offset, whether it has no root, is a leaf that requires
# gradients, has a history, counts the writes of its memory, counts writes at all. Then the node of the whole memory (0:
# it is not read) and room for what keeps that, which value is written, whether it is the history then, what is told of
# other arguments that show the memory (a tuple), and whether the call gives None. Behind that come room for the objects
# that are made, the values, and of each tensor that is given its value, type and strides.
RECIPE_HEAD = (
    *("values", "records", "results", "packer"),
    *("writes", "target", "type", "strides", "chain", "offset", "rootless", "requires", "history", "own"),
    *("counted", "whole", "kept", "value", "flows", "sharers", "nothing"),
)
RESULT = ("value", "type", "strides")
MOST_VALUES = 16
RECIPE_ROOM = len(RECIPE_HEAD)
RECIPE_VALUES = RECIPE_ROOM + 2 * MOST_VALUES
IN_RECIPE = {name: 8 * place for place, name in enumerate(RECIPE_HEAD)}
IN_VALUE = {name: 8 * place for place, name in enumerate(VALUE)}
IN_RESULT = {name: 8 * place for place, name in enumerate(RESULT)}

# What tells of leaves of a call's own begins with the places of the numbers among the parts of the arguments, a bit
# each, and how many leaves there are. Of each: the place of the number, or DRAWN for the key of a draw of the default
# generator, its type, and where the record of `take` for its memory is.
OWN_HEAD = ("numbers", "count")
OWN = ("place", "type", "take")
DRAWN = -1
IN_OWN = {name: 8 * place for place, name in enumerate(OWN)}

ARGUMENT = ("what", "class")
ARGUMENTS = 20
KEY_WORDS = len(KEY) + ARGUMENTS * len(ARGUMENT)
WORDS = KEY_WORDS + len(MADE)

# In place of a class, of a tensor: these bits, and from SAME_AS on which of the tensors before it is kept by the same.
BLOCKED = 1  # its node lets no gradient through
CHAINED = 2  # it is a view: a part with its chain follows
SAME_AS = 4

# What stands before the entries: what native code was wanting for the last call, whether it is at work; the key that it
# looked for; the parts of the arguments that it was given, and how many; where in
# `keeps` the first is that it holds; how many entries of calls without arguments there are; whether Python
# collected what is garbage before the call; how many leaves of its own the call got, and where in `held` they begin.
HEAD = ("wanted", "busy", *[""] * KEY_WORDS, *[""] * ARGUMENTS, "given", "first", "bare", "collects", "own", "held")
HEAD_KEY, HEAD_GIVEN = 2, 2 + KEY_WORDS

# What may be wanted: an entry, to know in which order the function reads its arguments, an entry of a view.
ENTRY, ORDER, VIEW = 1, 2, 3
FLOWS, ENABLED, INFERENCE = 1, 2, 4  # bits of a key's word about gradients

# Offsets in bytes: in a key, in an entry, and in the head.
IN_KEY = {name: 8 * place for place, name in enumerate(KEY)}
IN_ENTRY = {name: 8 * (KEY_WORDS + place) for place, name in enumerate(MADE)}
IN_HEAD = {name: 8 * HEAD.index(name) for name in (*HEAD[:2], *HEAD[-6:])}

MOST_TRIES = 3  # to learn how native code repeats a call
MOST_FAILED = 16  # calls in a row at one place of which nothing was learned; then one in so many is looked at:
TRIED_AGAIN = 64
FEW = 512  # entries up to which each view is entered when it is seen first
PLACES = 1 << 15  # entries there is room for
LOOKED_AT = 8  # places behind that of its key at which an entry may stand
HASHED = 0x9E3779B97F4A7C15  # 2**64 by the golden ratio, odd: its products spread keys over the upper bits
SHIFT = 64 - (PLACES.bit_length() - 1)  # leaves as many bits as a place has
_MASK = (1 << 64) - 1


Numbers = Mapping[int, object]


class Service(Protocol):
    """What native code needs, at `address`, to serve calls for operands of any sizes."""

    address: int

    def taken(self) -> int:
        """How many calls native code served since the last time; from then on it may serve more."""
        ...

    def lead_to(self, following: Any) -> None:
        """Let native code try a following service, or none, for calls that this is not for."""
        ...


class Repeats:
    """The table of one recorder, at `address`. An entry whose first word is 0 is empty. `keeps` holds what keeps the
    nodes valid that native code looked at last.
    """

    __slots__ = (
        "_codes",
        "_failed",
        "_hopeless",
        "_kept",
        "_met",
        "_owned",
        "_services",
        "_used",
        "_words",
        "address",
        "keeps",
    )

    def __init__(self) -> None:
        count = len(HEAD) + WORDS * PLACES
        # Memory that takes room only where entries are. A child process has its own.
        memory = mmap.mmap(-1, 8 * count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._words = (ctypes.c_uint64 * count).from_buffer(memory)
        self._kept: list[tuple[object, ...]] = []  # what the entries point to
        self._used: list[int] = []  # where these begin
        self._services: dict[int, Service] = {}
        self._hopeless: dict[tuple[int, ...], int] = {}  # keys of calls that native code cannot repeat
        self._failed: dict[tuple[int, ...], int] = {}  # by the places of calls, whose code is kept
        self._codes: dict[int, object] = {}
        self._met: set[int] = set()  # hashes of keys of views
        # How often it was told which leaves of their own calls have, and the last numbers that they were for.
        self._owned: dict[tuple[int, ...], tuple[int, Numbers]] = {}
        self.keeps: list[object] = []
        self.address = ctypes.addressof(self._words)

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all entries."""
        for begin in self._used:
            self._words[begin] = 0
        self._words[IN_HEAD["bare"] // 8] = 0
        self._used.clear()
        self._kept.clear()
        self._services.clear()
        self._hopeless.clear()
        self._failed.clear()
        self._codes.clear()
        self._met.clear()
        self._owned.clear()

    def wanted(self) -> int:
        """What native code was wanting for the call that is made now, told once; 0 for nothing."""
        what = self._words[0]
        self._words[0] = 0
        return what

    def call(self) -> tuple[int, ...]:
        """What the last call was, as its key begins: the code, the place in it, the function, about gradients, under
        which defaults it was made, and how many arguments have names.
        """
        return tuple(self._words[HEAD_KEY : HEAD_KEY + CALL_WORDS])

    def key(self) -> list[int]:
        """The key of the last call."""
        return self._words[HEAD_KEY : HEAD_KEY + KEY_WORDS]

    @property
    def given(self) -> int:
        """How many parts the arguments of the last call have."""
        return self._words[IN_HEAD["given"] // 8]

    def was_read(self) -> bool:
        """Whether native code read arguments of the last call."""
        return self._words[HEAD_KEY + KEY.index("count")] > 0

    def leave(self, what: tuple[int, ...], keep: tuple[object, ...], service: Service | None) -> None:
        """Leave calls that begin so (see `call`) to Python from now on, but for those that native code serves. `keep`
        is what the addresses point to.
        """
        begin = self._bare(what, LEFT, keep)
        if begin is not None:
            self._serve(begin, service)

    def _bare(self, what: tuple[int, ...], kind: int, keep: tuple[object, ...]) -> int | None:
        """Where the entry of such calls, whatever their arguments, begins, which is made one of `kind`; None if there
        is no room for it.
        """
        key = [*what, *[0] * (KEY_WORDS - len(what))]
        begin = self._entry(key)
        if begin is None:
            self.add(key, {"kind": kind}, keep)
            begin = self._entry(key)
            if begin is None:
                return None
            self._words[IN_HEAD["bare"] // 8] += 1
        self._words[begin + IN_ENTRY["kind"] // 8] = kind
        return begin

    def end_services(self) -> None:
        """Let Python make all calls that are left to it."""
        for begin in [*self._services]:
            self._serve(begin, None)

    def _serve(self, begin: int, service: Service | None) -> None:
        self._words[begin + IN_ENTRY["recipe"] // 8] = 0 if service is None else service.address
        self._services.pop(begin, None)
        if service is not None:
            self._services[begin] = service

    def own(self, key: list[int]) -> list[int]:
        """The nodes of the leaves of its own that native code made for the last call, which has this key."""
        words = used(key)
        count = len(ARGUMENT) * self._words[IN_HEAD["own"] // 8]
        return words[len(words) - count :: len(ARGUMENT)]

    def may_own(self, what: tuple[int, ...], numbers: Numbers) -> bool:
        """Whether it may be told which leaves of their own calls have that begin so (see `call`), for `numbers` among
        their arguments, by their places: not if it was before, several times, nor before all of them were seen to
        change. A number that a function makes may be the very object that is another argument, but not twice.
        """
        count, before = self._owned.get(what, (0, {}))
        self._owned[what] = count, numbers
        if numbers.keys() != before.keys() or any(before[place] == value for place, value in numbers.items()):
            return False
        self._owned[what] = count + 1, numbers
        return count < MOST_TRIES

    def give_own(self, what: tuple[int, ...], address: int, keep: tuple[object, ...]) -> None:
        """Calls that begin so have leaves of their own, which native code finds at `address`."""
        begin = self._bare(what, OWNING, keep)
        if begin is not None:
            self._serve(begin, None)
            self._words[begin + IN_ENTRY["recipe"] // 8] = address
            self._kept.append(keep)
            self._failed.pop(what, None)

    def take_back(self, what: tuple[int, ...]) -> bool:
        """Leave these calls no longer; whether the last, which was one, was left."""
        if not self._words[IN_HEAD["bare"] // 8] or self.was_read():
            return False
        begin = self._entry([*what, 0])
        if begin is None or self._words[begin + IN_ENTRY["kind"] // 8] != LEFT:
            return False
        self._words[begin + IN_ENTRY["kind"] // 8] = OTHERWISE
        self._serve(begin, None)
        return True

    def comes_again(self, key: list[int]) -> bool:
        """Whether a view is worth an entry: where there are many, if it was seen before. Rows of a long tensor, one
        after the other, are seen once, and entering one takes longer than making it.
        """
        return len(self._kept) <= FEW or self.was_met(key)

    def was_met(self, key: list[int]) -> bool:
        """Whether that key was asked about before."""
        this = hash(tuple(used(key)))
        if this in self._met:
            return True
        if len(self._met) >= PLACES:
            self._met.clear()
        self._met.add(this)
        return False

    def note_hopeless(self, key: list[int]) -> None:
        """Native code cannot repeat the call with this key, as it is now."""
        if len(self._hopeless) >= PLACES:
            self._hopeless.clear()
            self._failed.clear()
            self._codes.clear()
        known, place = tuple(used(key)), tuple(key[:CALL_WORDS])
        self._hopeless[known] = self._hopeless.get(known, 0) + 1
        self._failed[place] = self._failed.get(place, 0) + 1
        self._codes[key[0]] = ctypes.cast(key[0], ctypes.py_object).value

    def is_hopeless(self, key: list[int]) -> bool:
        """Whether that was found several times, or for all calls at that place, as where a number always changes.
        Addresses may be those of other objects since: then a call is not repeated that could be, which costs time only.
        """
        place = tuple(key[:CALL_WORDS])
        failed = self._failed.get(place, 0)
        if failed >= MOST_FAILED:
            self._failed[place] = failed + 1
            if failed % TRIED_AGAIN:
                return True
        return self._hopeless.get(tuple(used(key)), 0) >= MOST_TRIES

    def add(self, key: list[int], made: Mapping[str, int], keep: tuple[object, ...]) -> None:
        """Enter what a call with this key gave; words that are not told are 0. `keep` is what the addresses point to
        that nothing else keeps.
        """
        if 2 * len(self._kept) > PLACES:
            self.clear()
        for begin in _places(key):
            if self._words[begin] == 0:
                self._words[begin : begin + WORDS] = [*key, *[made.get(name, 0) for name in MADE]]
                self._kept.append(keep)
                self._used.append(begin)
                self._failed.pop(tuple(key[:CALL_WORDS]), None)
                return
        self.clear()

    def _entry(self, key: list[int]) -> int | None:
        """Where the entry of a key without arguments begins: calls that are left to Python, or were."""
        words = used(key)
        for begin in _places(key):
            if self._words[begin : begin + len(words)] == words:
                return begin
        return None


def _places(key: list[int]) -> Iterator[int]:
    """Where the entry of a key may begin."""
    first = place_of(key)
    return (len(HEAD) + WORDS * (at % PLACES) for at in range(first, first + LOOKED_AT))


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
