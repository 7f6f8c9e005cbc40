"""Sequences of different lengths as one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import UsageError
from graphc.functional import pad
from graphc.recording import current
from graphc.tensors.core import from_array, wants_grad
from graphc.tensors.joining import stack

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def pad_sequences(sequences: Sequence[Tensor], batch_first: bool, value: float, side: str) -> Tensor:
    """Tensors (length, *) filled up with `value` to the longest and joined: (batch, time, *) or (time, batch, *).

    What is already computed and takes no gradient is copied at once, as from any data: a program for every combination
    of lengths would be compiled anew for nearly every batch. Everything else is recorded.
    """
    first = sequences[0]._type
    longest = max(s._type.shape[0] for s in sequences)
    rest = first.shape[1:]
    for place, sequence in enumerate(sequences):
        if sequence._type.shape[1:] != rest:
            raise UsageError(
                f"The size of tensor a ({longest}) must match: sequence {place} has shape "
                f"{list(sequence._type.shape)}, the first one {list(first.shape)}; only first dimensions may differ"
            )
    computed = all(s._storage.value is None and s._type.dtype is first.dtype for s in sequences)
    if computed and not wants_grad(sequences) and current().capture is None:
        made = np.full((len(sequences), longest, *rest), value, first.dtype.numpy)
        for row, sequence in zip(made, sequences, strict=True):
            size = sequence._type.shape[0]
            row[longest - size if side == "left" else 0 :][:size] = sequence._array()
        return from_array(made if batch_first else made.swapaxes(0, 1), first.dtype, first.device)
    padded: list[Tensor] = []
    for sequence in sequences:
        missing = longest - sequence._type.shape[0]
        ends = [0, 0] * len(rest) + ([missing, 0] if side == "left" else [0, missing])
        padded.append(pad(sequence, ends, value=value))
    return stack(padded, 0 if batch_first else 1)
