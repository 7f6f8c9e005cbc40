"""The memory behind tensors as an object of the user's: bytes, and whether two tensors share them."""

from __future__ import annotations

from collections.abc import Iterator

from graphc.devices import Device, device_object
from graphc.memory import bytes_of
from graphc.tensors.core import TensorBase


class UntypedStorage:
    """Bytes behind a tensor, shared by its views; equal for tensors over one memory."""

    def __init__(self, tensor: TensorBase) -> None:
        self._storage = tensor._storage

    @property
    def device(self) -> Device:
        """Where the bytes are."""
        return device_object(self._storage.type.device)

    def nbytes(self) -> int:
        """Number of bytes."""
        return self._storage.type.nbytes

    size = __len__ = nbytes

    def element_size(self) -> int:
        """1: a byte."""
        return 1

    def data_ptr(self) -> int:
        """Address of the first byte."""
        return self._storage.looked_at().ptr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and self._storage is other._storage

    def __hash__(self) -> int:
        return id(self._storage)

    def tolist(self) -> list[int]:
        """The bytes."""
        return bytes_of(self._storage.looked_at()).tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.tolist())

    def __getitem__(self, index: int) -> int:
        return self.tolist()[index]

    def __repr__(self) -> str:
        return f"[torch.storage.UntypedStorage(device={self.device}) of size {self.nbytes()}]"
