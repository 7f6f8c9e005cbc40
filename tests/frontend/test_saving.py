"""`save` and `load`: containers, shared memory, errors; files are never unpickled."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc import nn


def through_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    return torch.load(io.BytesIO(file.getvalue()))


def contents(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def test_containers_numbers_and_strings_come_back() -> None:
    value = {
        "list": [1, 2.5, True, None, "text", -math.inf],
        "tuple": (torch.Size([2, 3]), torch.float16, torch.device("cpu")),
        3: OrderedDict([("b", b"ab"), ("a", {})]),
        ("key", 1): [],
    }
    found = through_file(value)
    assert found == value
    assert type(found[3]) is OrderedDict and type(found["tuple"]) is tuple
    assert math.isnan(through_file(math.nan))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool])
def test_tensors_of_every_kind_come_back(dtype: Any) -> None:
    value = (torch.arange(6) % 2).to(dtype).view(2, 3)
    found = through_file(value)
    assert found.dtype is dtype
    assert found.tolist() == value.tolist()


def test_pending_and_empty_and_leaf_tensors() -> None:
    value = [torch.ones(2) + 1, torch.zeros(0, 3), torch.ones(2, requires_grad=True), torch.tensor(5)]
    found = through_file(value)
    assert [t.tolist() for t in found] == [[2.0, 2.0], [], [1.0, 1.0], 5]
    assert [tuple(t.shape) for t in found] == [(2,), (0, 3), (2,), ()]
    assert [t.requires_grad for t in found] == [False, False, True, False]


def test_what_shares_memory_shares_it_again() -> None:
    base = torch.arange(12.0).view(3, 4)
    views = [base, base.t()[1:, ::2], base[1], base.expand(2, 3, 4), base.view(2, 6)]
    found = through_file(views)
    found[0][0, 1] = 99
    base[0, 1] = 99
    assert [t.tolist() for t in found] == [t.tolist() for t in views]
    assert [t.stride() for t in found] == [t.stride() for t in views]


def test_state_dicts_of_modules(tmp_path: Path) -> None:
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(net.state_dict(), tmp_path / "net")
    other.load_state_dict(torch.load(tmp_path / "net", weights_only=True, map_location="cpu"))
    assert torch.equal(other.weight, net.weight)


def test_other_safetensors_files_are_dicts_of_tensors() -> None:
    from safetensors.numpy import save

    found = torch.load(io.BytesIO(save({"a": np.arange(3), "b": np.ones((2, 2), np.float32)})))
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b"].shape == (2, 2)


def test_the_file_is_a_safetensors_file() -> None:
    from safetensors.numpy import load

    assert load(contents([torch.ones(2)]))["storage.0"].tolist() == [1.0, 1.0]


def test_a_pickle_file_is_refused() -> None:
    for data in (pickle.dumps({"a": 1}), b"PK\x03\x04" + bytes(100)):
        with pytest.raises(ValueError, match="never unpickles"):
            torch.load(io.BytesIO(data))


def test_every_truncation_is_an_error() -> None:
    data = contents([torch.ones(3), "x"])
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"truncated|damaged"):
            torch.load(io.BytesIO(data[:length]))


def forged(change: Any) -> io.BytesIO:
    """A file whose description of the object was changed."""
    data = contents([torch.arange(4.0)[1:]])
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["graphc"])
    change(inner)
    header["__metadata__"]["graphc"] = json.dumps(inner)
    text = json.dumps(header).encode()
    return io.BytesIO(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["object"]["list"][0]["tensor"].update(storage=7),
        lambda h: h["object"]["list"][0]["tensor"].update(view=[[400], [1], 0]),
        lambda h: h["object"]["list"][0]["tensor"].update(view=[[2], [-1], 3]),
        lambda h: h["object"]["list"][0]["tensor"].update(view=[[-2], [1], 0]),
        lambda h: h["object"]["list"][0]["tensor"].update(view=[[2], [1], -1]),
        lambda h: h["object"]["list"][0]["tensor"].update(view=[["evil"], [1], 0]),
        lambda h: h["object"].update(other=1),
        lambda h: h.update(object={"unknown": 1}),
        lambda h: h.update(version=99),
        lambda h: h.pop("storages"),
    ],
)
def test_a_description_that_does_not_fit_is_an_error(change: Any) -> None:
    assert torch.load(forged(lambda h: None))[0].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="damaged"):
        torch.load(forged(change))


def test_an_unknown_object_is_named_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"the object\['a'\]\[1\] is a builtins\.object"):
        torch.save({"a": [1, object()]}, io.BytesIO())
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="holds itself"):
        torch.save(loop, io.BytesIO())


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    torch.save([1], path)
    with pytest.raises(TypeError):
        torch.save([object()], path)
    assert torch.load(path) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_symbolic_link_stays_and_the_file_behind_it_is_written(tmp_path: Path) -> None:
    real, link, dangling = tmp_path / "folder" / "real", tmp_path / "link", tmp_path / "dangling"
    real.parent.mkdir()
    real.write_bytes(b"old")
    link.symlink_to(real)
    dangling.symlink_to(real.with_name("new"))
    for path in (link, dangling):
        torch.save([2], path)
        assert path.is_symlink() and torch.load(path) == [2]
    assert torch.load(real) == [2]
    assert sorted(p.name for p in real.parent.iterdir()) == ["new", "real"]


def test_what_is_no_regular_file_is_left_alone(tmp_path: Path) -> None:
    pipe, folder, link = tmp_path / "pipe", tmp_path / "folder", tmp_path / "link"
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(pipe)
    for path, what in ((pipe, "a device, a pipe or a socket"), (link, "a device"), (folder, "a folder")):
        with pytest.raises(ValueError, match=f"{path} is {what}"):
            torch.save([1], path)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and link.is_symlink() and folder.is_dir()
    assert len(list(tmp_path.iterdir())) == 3


def test_errors_of_the_system_name_the_path_that_was_given(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        torch.save([1], path)
    assert caught.value.filename == str(path)
