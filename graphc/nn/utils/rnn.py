"""Batches of sequences of different lengths: padded, packed, and the ways between.

A `PackedSequence` made here keeps its padded form, on which the recurrent layers work; the packed data is computed when
somebody asks for it. So a training step over packed batches has one program for each longest length, whatever the
lengths are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Self

from graphc import Tensor, arange, int64, tensor, where, zeros
from graphc.errors import CheckError, InputError, UsageError
from graphc.nn import functional as F
from graphc.sequences import pad_sequences

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


def _batch_sizes(lengths: Sequence[int]) -> list[int]:
    """How many sequences go on at each step."""
    return [sum(length > step for length in lengths) for step in range(max(lengths))]


def _lengths(batch_sizes: Sequence[int]) -> list[int]:
    """The lengths, longest first: the way back."""
    return [sum(size > place for size in batch_sizes) for place in range(batch_sizes[0])]


def inside(steps: int, lengths: Tensor) -> Tensor:
    """Bool (steps, batch): whether a place lies within its sequence."""
    return arange(steps, device=lengths.device).unsqueeze(1) < lengths.unsqueeze(0)


def _like(mask: Tensor, values: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *([1] * (values.dim() - 2)))


class PackedSequence(tuple[Any, ...]):
    """The steps of a batch of sequences, longest first, without padding: a tuple of `data` (all elements, step by
    step), `batch_sizes`, `sorted_indices` and `unsorted_indices`.

    Made by `pack_padded_sequence` and `pack_sequence`.
    """

    _fields = ("data", "batch_sizes", "sorted_indices", "unsorted_indices")
    _padded: tuple[Tensor, Tensor, list[int]] | None  # (time, batch, *), lengths, lengths in Python
    _data: Tensor | None

    def __new__(
        cls,
        data: Any,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> Self:
        if batch_sizes is None:
            if not (isinstance(data, list | tuple) and len(data) == 2):
                raise CheckError("Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        made = super().__new__(cls, (None, batch_sizes, sorted_indices, unsorted_indices))
        made._data = data
        made._padded = None
        return made

    @classmethod
    def of_padded(
        cls, padded: Tensor, lengths: Tensor, sizes: list[int], sorted_indices: Any, unsorted_indices: Any
    ) -> Self:
        """Of (time, batch, *) and the lengths, longest first, as a tensor and as numbers."""
        made = cls(None, tensor(_batch_sizes(sizes), dtype=int64), sorted_indices, unsorted_indices)
        made._padded = (padded, lengths, sizes)
        return made

    def with_padded(self, padded: Tensor) -> PackedSequence:
        """Other elements at the same places."""
        _, lengths, sizes = self.padded
        return PackedSequence.of_padded(padded, lengths, sizes, self[2], self[3])

    @property
    def padded(self) -> tuple[Tensor, Tensor, list[int]]:
        """(time, batch, *) in sorted order, with anything outside the sequences; and the lengths."""
        if self._padded is None:
            assert self._data is not None
            counts = self[1].tolist()
            starts = [sum(counts[:step]) for step in range(len(counts))]
            rows = [
                start + place if place < count else 0
                for start, count in zip(starts, counts, strict=True)
                for place in range(counts[0])
            ]
            data = self._data.index_select(0, tensor(rows, dtype=int64, device=self._data.device))
            sizes = _lengths(counts)
            padded = data.reshape(len(counts), counts[0], *self._data.shape[1:])
            self._padded = (padded, tensor(sizes, dtype=int64), sizes)
        return self._padded

    @property
    def data(self) -> Tensor:
        """All elements, step by step: (sum of lengths, *)."""
        if self._data is None:
            assert self._padded is not None
            padded, _, sizes = self._padded
            width = padded.shape[1]
            rows = [step * width + place for step, count in enumerate(_batch_sizes(sizes)) for place in range(count)]
            flat = padded.reshape(padded.shape[0] * width, *padded.shape[2:])
            made: Tensor = flat.index_select(0, tensor(rows, dtype=int64, device=flat.device))
            self._data = made
            return made
        return self._data

    @property
    def batch_sizes(self) -> Tensor:
        """How many sequences go on at each step."""
        return self[1]

    @property
    def sorted_indices(self) -> Tensor | None:
        """Which sequence stands at each place, if they were sorted."""
        return self[2]

    @property
    def unsorted_indices(self) -> Tensor | None:
        """At which place each sequence stands, if they were sorted."""
        return self[3]

    def __getitem__(self, index: Any) -> Any:
        if index == 0 or index == -4:
            return self.data
        return tuple(self)[index] if isinstance(index, slice) else super().__getitem__(index)

    def __iter__(self) -> Iterator[Any]:
        yield self.data
        for place in (1, 2, 3):
            yield super().__getitem__(place)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"PackedSequence({fields})"

    def __reduce__(self) -> Any:
        return type(self), tuple(self)

    def _converted(self, convert: Callable[[Tensor], Tensor]) -> PackedSequence:
        if self._data is None:
            return self.with_padded(convert(self.padded[0]))
        return type(self)(convert(self._data), *list(self)[1:])

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """With data converted or moved as by `Tensor.to`."""
        return self._converted(lambda t: t.to(*args, **kwargs))

    def float(self) -> PackedSequence:
        """With float32 data."""
        return self._converted(lambda t: t.float())

    def double(self) -> PackedSequence:
        """With float64 data."""
        return self._converted(lambda t: t.double())

    def half(self) -> PackedSequence:
        """With float16 data."""
        return self._converted(lambda t: t.half())

    def long(self) -> PackedSequence:
        """With int64 data."""
        return self._converted(lambda t: t.long())

    def int(self) -> PackedSequence:
        """With int32 data."""
        return self._converted(lambda t: t.int())

    def cpu(self) -> PackedSequence:
        """The sequence itself."""
        return self

    def pin_memory(self) -> PackedSequence:
        """The sequence itself."""
        return self

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on a CUDA device: never."""
        return False

    def is_pinned(self) -> bool:
        """Whether the data is in pinned memory: never."""
        return False


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes `permutation` (int64, one dimension); None for None."""
    if permutation is None:
        return None
    count, device = permutation.numel(), permutation.device
    return zeros(count, dtype=int64, device=device).scatter(0, permutation, arange(count, device=device))


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs (time, batch, *), or (batch, time, *) with `batch_first`. The sequences must come longest first unless
    `enforce_sorted` is false; RuntimeError otherwise and for lengths that are not positive."""
    sizes = [int(n) for n in (lengths.tolist() if isinstance(lengths, Tensor) else lengths)]
    batch_dim = 0 if batch_first else 1
    sorted_indices = None
    if not enforce_sorted:
        order = sorted(range(len(sizes)), key=lambda place: -sizes[place])
        sizes = [sizes[place] for place in order]
        sorted_indices = tensor(order, dtype=int64, device=input.device)
        input = input.index_select(batch_dim, sorted_indices)
    if input.numel() == 0:
        raise UsageError("Cannot pack empty tensors.")
    if len(sizes) != input.shape[batch_dim]:
        raise UsageError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(sizes)} (batch_size="
            f"{input.shape[batch_dim]})"
        )
    if sizes[-1] <= 0:
        raise UsageError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    if any(a < b for a, b in pairwise(sizes)):
        raise UsageError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you "
            "do not need ONNX exportability."
        )
    padded = input.transpose(0, 1) if batch_first else input
    if sizes[0] > padded.shape[0]:
        raise UsageError(f"Expected sequences of at least {sizes[0]} steps, but input has {padded.shape[0]}")
    if sizes[0] < padded.shape[0]:
        padded = padded[: sizes[0]]
    return PackedSequence.of_padded(
        padded, tensor(sizes, dtype=int64), sizes, sorted_indices, invert_permutation(sorted_indices)
    )


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The padded batch, (time, batch, *) or (batch, time, *), in its first order, and the lengths (int64)."""
    padded, lengths, sizes = sequence.padded
    steps = len(sequence.batch_sizes)
    if total_length is not None and total_length < steps:
        raise InputError(
            "Expected total_length to be at least the length of the longest sequence in input, but got "
            f"total_length={total_length} and max sequence length being {steps}"
        )
    made = where(_like(inside(steps, lengths.to(padded.device)), padded), padded, padding_value)
    if total_length is not None and total_length > steps:
        made = F.pad(made, [0, 0] * (made.dim() - 1) + [0, total_length - steps], value=padding_value)
    if batch_first:
        made = made.transpose(0, 1)
    counts = tensor(sizes, dtype=int64)
    if sequence.unsorted_indices is not None:
        return made.index_select(0 if batch_first else 1, sequence.unsorted_indices), counts[sequence.unsorted_indices]
    return made, counts


def pad_sequence(
    sequences: Tensor | Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Joins tensors (length, *) along a new dimension, filled up to the longest: (time, batch, *) or (batch, time,
    *)."""
    if not isinstance(sequences, Iterable):
        raise UsageError(f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}")
    given = tuple(sequences)
    if not given:
        raise UsageError("received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise UsageError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    return pad_sequences(given, batch_first, padding_value, padding_side)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded batch as a list of tensors (length, *)."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[: int(size)] for row, size in zip(rows, lengths.tolist(), strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs a list of tensors (length, *)."""
    sizes = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), sizes, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed batch as a list of tensors (length, *)."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
