"""`save` and `load`: containers of tensors in one safetensors file, never pickle.

The file is a safetensors file: any reader of that format finds each storage as a tensor `storage.N`. Its metadata
holds, under `graphc`, a JSON text that says how containers, numbers and views of the storages are put together. So
tensors that share memory share it again after `load`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.devices import Device, use_device
from graphc.errors import DeviceError, InputError, KindError
from graphc.ir.types import bf16, dtype_by_name
from graphc.storage import Storage
from graphc.tensors.core import TensorBase, alias, from_array
from graphc.tensors.retyping import memory_as
from graphc.tensors.size import Size
from graphc.tensors.striding import as_strided

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

VERSION = 1
_LARGEST_HEADER = 1 << 30

FileLike = str | os.PathLike[str] | IO[bytes]


class _Writer:
    """Objects as JSON, with their storages by number."""

    def __init__(self) -> None:
        self.storages: list[Storage] = []
        self._places: dict[int, int] = {}
        self._open: set[int] = set()

    def place(self, storage: Storage) -> int:
        if id(storage) not in self._places:
            self._places[id(storage)] = len(self.storages)
            self.storages.append(storage)
        return self._places[id(storage)]

    def encode(self, value: Any, path: str) -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, TensorBase):
            return self._tensor(value)
        kind = type(value)
        if kind is int:
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if kind is bytes:
            return {"bytes": value.hex()}
        if kind is Size:
            return {"size": list(value)}
        if kind is dtypes.dtype:
            return {"dtype": value.name}
        if kind is Device:
            return {"device": str(value)}
        if kind in (list, tuple, dict, OrderedDict):
            return self._container(value, path)
        raise KindError(
            f"save: the object at {path} is a {kind.__module__}.{kind.__qualname__}; graphc stores tensors, numbers, "
            "str, bytes, None, list, tuple, dict and OrderedDict of such (a module's or an optimizer's state_dict())"
        )

    def _container(self, value: Any, path: str) -> Any:
        if id(value) in self._open:
            raise InputError(f"save: the container at {path} holds itself")
        self._open.add(id(value))
        name = type(value).__name__
        if isinstance(value, dict):
            pairs = [[self.encode(k, f"a key of {path}"), self.encode(v, f"{path}[{k!r}]")] for k, v in value.items()]
            found = {name: pairs}
        else:
            found = {name: [self.encode(v, f"{path}[{i}]") for i, v in enumerate(value)]}
        self._open.discard(id(value))
        return found

    def _tensor(self, tensor: TensorBase) -> Any:
        view = [list(tensor._type.shape), list(tensor._strides), tensor._offset]
        place, requires_grad = self.place(tensor._storage), tensor._lineage.requires_grad
        found = {"storage": place, "view": view, "requires_grad": requires_grad}
        if tensor._type.dtype is not tensor._storage.type.dtype:
            found["dtype"] = tensor._type.dtype.name
        return {"tensor": found}


def save(obj: object, f: FileLike, **ignored: Any) -> None:
    """Write `obj`, a tensor or nested containers of tensors, numbers and strings, to a path or an open binary file.

    A path gets the new contents at once or not at all. TypeError, which names type and place, for other objects.
    PyTorch's arguments about pickling are taken and have no effect.
    """
    data = _serialised(obj)
    if not isinstance(f, str | os.PathLike):
        f.write(data)
        return
    write_whole(Path(f), data)


def write_whole(path: Path, data: bytes) -> None:
    """Give the file `path` these contents at once or not at all: a temporary file beside it is renamed at the end.

    A symbolic link stays, the file that it leads to is written. InputError for what is no regular file; OSError with
    `path` in it when the system refuses.
    """
    target = replaceable(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):  # it names the temporary file, which nobody asked for
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def replaceable(path: Path) -> Path:
    """The regular file that `path` leads to, which need not be there yet. InputError when something else is there."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        what = "a folder" if target.is_dir() else "a device, a pipe or a socket"
        raise InputError(f"{path} is {what}, which a file does not replace: give another path")
    return target


def _serialised(obj: object) -> bytes:
    from safetensors import numpy as files

    writer = _Writer()
    tree = writer.encode(obj, "the object")
    arrays = {f"storage.{i}": _portable(s.array()) for i, s in enumerate(writer.storages)}
    header = {"version": VERSION, "storages": [s.type.dtype.name for s in writer.storages]}
    devices = [s.type.device for s in writer.storages]
    if set(devices) > {"cpu"} or (devices and "cpu" not in devices):
        header["devices"] = devices
    text = json.dumps({**header, "object": tree}, separators=(",", ":"))
    return files.save(arrays, {"graphc": text})


def _portable(array: np.ndarray) -> np.ndarray:
    """bfloat16, which NumPy's side of the format does not know, as its bits."""
    array = np.ascontiguousarray(array)
    return array.view(np.uint16) if array.dtype == bf16.numpy else array


# reading


def load(f: FileLike, map_location: Any = None, **ignored: Any) -> Any:
    """What `save` wrote; of another safetensors file, a dict of its tensors.

    Tensors go to the devices that they were on, or to those that `map_location` names: one for all, a dict from names
    to names, or a function of a storage on the CPU and its device's name that gives the storage, or None to put it
    there. ValueError, which says what is wrong, for PyTorch's pickle files (nothing is ever unpickled), for damaged and
    for truncated files. PyTorch's arguments about pickling are taken and have no effect.
    """
    if map_location is not None and not callable(map_location) and not isinstance(map_location, dict):
        map_location = use_device(map_location)
    if isinstance(f, str | os.PathLike):
        name, data = str(f), Path(f).read_bytes()
    else:
        name, data = getattr(f, "name", "the file"), f.read()
    return _read(data, name, map_location)


def _read(data: bytes, name: Any, map_location: Any) -> Any:
    import safetensors

    if data[:4] == b"PK\x03\x04" or data[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise InputError(
            f"load: {name} is a pickle file, as torch.save writes it; graphc never unpickles, since such files can run "
            "any code. Convert it with PyTorch: safetensors.torch.save_file(torch.load(...), path)"
        )
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_LARGEST_HEADER, len(data) - 8):
        raise InputError(f"load: {name} is no safetensors file, or a truncated one ({len(data):,} bytes)")
    try:
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        entries = dict(safetensors.deserialize(data))
    except (safetensors.SafetensorError, ValueError, AttributeError) as error:
        raise InputError(f"load: {name} is damaged or truncated: {error}") from None
    if "graphc" not in metadata:
        return {key: _placed(_foreign(key, entry, name), "cpu", map_location) for key, entry in entries.items()}
    try:
        header = json.loads(metadata["graphc"])
        if header["version"] > VERSION:
            raise InputError(f"it was written by a newer graphc (version {header['version']} of the format)")
        flats = [_flat(entries[f"storage.{i}"], dtype) for i, dtype in enumerate(header["storages"])]
        devices = header.get("devices", ["cpu"] * len(flats))
        flats = [_placed(flat, device, map_location) for flat, device in zip(flats, devices, strict=True)]
        return _decode(header["object"], flats)
    except DeviceError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"load: {name} is damaged: {error}") from None


_DTYPES = {
    **{"F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "I64": "i64", "I32": "i32"},
    **{"I16": "i16", "I8": "i8", "U8": "u8", "BOOL": "bool"},
}


def _foreign(key: str, entry: Any, name: Any) -> Tensor:
    if entry["dtype"] not in _DTYPES:
        raise InputError(f"load: tensor {key!r} of {name} has the dtype {entry['dtype']}, which graphc does not have")
    return _flat(entry, _DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _placed(flat: Tensor, device: str, map_location: Any) -> Tensor:
    """`flat`, which was on `device`, where it is to go."""
    if isinstance(map_location, dict):
        device = str(map_location.get(device, device))
    elif callable(map_location):
        chosen: Any = map_location(flat.untyped_storage(), device)
        device = device if chosen is None else str(chosen.device)
    elif map_location is not None:
        device = map_location
    if device == "cpu":
        return flat
    try:
        place = use_device(device)
    except DeviceError as error:
        raise DeviceError(
            "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False "
            f"({error.message}). If you are running on a CPU-only machine, please use torch.load with "
            "map_location=torch.device('cpu') to map your storages to the CPU."
        ) from None
    return flat.to(place)


def _flat(entry: Any, name: str) -> Tensor:
    dtype = dtype_by_name(name)
    return from_array(np.frombuffer(bytes(entry["data"]), dtype.numpy), dtype)


def _decode(tree: Any, flats: list[Tensor]) -> Any:
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    ((kind, value),) = tree.items()
    if kind in ("list", "tuple"):
        items = [_decode(v, flats) for v in value]
        return items if kind == "list" else tuple(items)
    if kind in ("dict", "OrderedDict"):
        pairs = [(_decode(k, flats), _decode(v, flats)) for k, v in value]
        return dict(pairs) if kind == "dict" else OrderedDict(pairs)
    if kind == "tensor":
        return _tensor(value, flats)
    return _SIMPLE[kind](value)


_SIMPLE: dict[str, Any] = {
    "float": float,
    "bytes": bytes.fromhex,
    "size": Size,
    "dtype": dtypes.dtype_named,
    "device": Device,
}


def _tensor(found: dict[str, Any], flats: list[Tensor]) -> Tensor:
    shape, strides, offset = found["view"]
    flat = flats[found["storage"]]
    if "dtype" in found:
        flat = memory_as(flat._storage, dtype_by_name(found["dtype"]))
    made = alias(as_strided(flat, tuple(shape), tuple(strides), offset))
    return made.requires_grad_() if found["requires_grad"] else made
