"""Data sets from files: the published formats, damage, archives with tricks, and downloads with a server of our own."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from graphc.vision import datasets, transforms
from graphc.vision.datasets.mnist import read_idx
from graphc.vision.download import fetch, take_members

RNG = np.random.default_rng(5)


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def write_mnist(folder: Path, packed: bool, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images, labels = RNG.integers(0, 256, (count, 28, 28), np.uint8), RNG.integers(0, 10, count, np.uint8)
    for kind in ("train", "t10k"):
        for name, array in ((f"{kind}-images-idx3-ubyte", images), (f"{kind}-labels-idx1-ubyte", labels)):
            content = idx(array)
            path = raw / (name + ".gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)
    return images, labels


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_mnist(tmp_path: Path, packed: bool) -> None:
    images, labels = write_mnist(tmp_path, packed)
    found = datasets.MNIST(tmp_path, train=False, transform=transforms.ToTensor())
    image, label = found[3]
    assert len(found) == 6 and label == labels[3] and image.shape == (1, 28, 28)
    np.testing.assert_array_equal(image.numpy()[0], images[3].astype(np.float32) / 255)
    assert found.targets.tolist() == labels.tolist() and found.data.shape == (6, 28, 28)
    assert isinstance(datasets.MNIST(tmp_path)[0][0], Image.Image)
    assert found.classes[3] == "3 - three" and found.class_to_idx["3 - three"] == 3
    assert repr(found) == (
        f"Dataset MNIST\n    Number of datapoints: 6\n    Root location: {tmp_path}\n    Split: Test\n"
        "    StandardTransform\n    Transform: ToTensor()"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no IDX file"),
        (b"\0\0\x0d\x01" + b"\0" * 8, "no IDX file"),
        (b"\0\0\x08\x05" + b"\0" * 20, "no IDX file"),
        (b"\0\0\x08\x02\0\0\0\x02", "ends within its head"),
        (b"\0\0\x08\x01\0\0\0\x04abc", "expected 4 bytes, found 3"),
        (b"\0\0\x08\x01\0\0\0\x02abc", "expected 2 bytes, found more"),
        (b"\0\0\x08\x01\xff\xff\xff\xff", "its sizes are"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RuntimeError, match=said):
        read_idx(tmp_path / "file")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(content))
    with pytest.raises(RuntimeError, match=said):
        read_idx(tmp_path / "packed")


def test_damaged_gzip_files_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(idx(np.arange(200, dtype=np.uint8)))
    for content in (whole[:-12], whole[:20] + bytes(8) + whole[28:], b"no gzip"):
        (tmp_path / "x.gz").write_bytes(content)
        with pytest.raises(RuntimeError, match="damaged"):
            read_idx(tmp_path / "x")


def test_missing_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"You can use download=True"):
        datasets.MNIST(tmp_path)
    with pytest.raises(RuntimeError, match=r"You can use download=True"):
        datasets.CIFAR10(tmp_path)


def write_cifar(folder: Path, count: int = 4) -> list[np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    batches = []
    for name in (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list):
        records = RNG.integers(0, 256, (count, 3073), np.uint8)
        records[:, 0] %= 10
        records.tofile(folder / name)
        batches.append(records)
    return batches


def test_cifar10(tmp_path: Path) -> None:
    batches = write_cifar(tmp_path / "cifar-10-batches-bin")
    found = datasets.CIFAR10(tmp_path, transform=transforms.ToTensor(), target_transform=lambda label: label + 1)
    assert len(found) == 20 and found.data.shape == (20, 32, 32, 3)
    image, label = found[6]
    record = batches[1][2]
    assert label == record[0] + 1
    np.testing.assert_array_equal(image.numpy(), record[1:].reshape(3, 32, 32).astype(np.float32) / 255)
    assert len(datasets.CIFAR10(tmp_path, train=False)) == 4
    assert found.classes[0] == "airplane"


def test_cifar100(tmp_path: Path) -> None:
    records = RNG.integers(0, 256, (3, 3074), np.uint8)
    records[:, 1] %= 100
    (tmp_path / "cifar-100-binary").mkdir()
    records.tofile(tmp_path / "cifar-100-binary" / "train.bin")
    found = datasets.CIFAR100(tmp_path)
    assert found.targets == records[:, 1].tolist() and len(set(found.classes)) == 100
    np.testing.assert_array_equal(found.data[1].transpose(2, 0, 1).ravel(), records[1, 2:])


def test_damaged_cifar_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    write_cifar(folder)
    with (folder / "data_batch_2.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(RuntimeError, match="not whole records of 3073"):
        datasets.CIFAR10(tmp_path)
    (folder / "test_batch.bin").write_bytes(bytes([200]) + bytes(3072))
    with pytest.raises(RuntimeError, match="there is a label 200"):
        datasets.CIFAR10(tmp_path, train=False)


def test_image_folder(tmp_path: Path) -> None:
    for name, colour in (("cat", (255, 0, 0)), ("dog", (0, 255, 0))):
        (tmp_path / name / "deep").mkdir(parents=True)
        Image.new("RGB", (5, 4), colour).save(tmp_path / name / "a.png")
        Image.new("L", (5, 4), 7).save(tmp_path / name / "deep" / "b.PNG")
        (tmp_path / name / "notes.txt").write_text("no image")
    found = datasets.ImageFolder(tmp_path, transform=transforms.ToTensor())
    assert found.classes == ["cat", "dog"] and found.targets == [0, 0, 1, 1] and found.imgs == found.samples
    assert found[2][0][:, 0, 0].tolist() == [0, 1, 0] and found[3][0].shape == (3, 4, 5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no valid file for the classes empty"):
        datasets.ImageFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="any class folder"):
        datasets.ImageFolder(tmp_path / "empty")


def test_made_up_images_repeat() -> None:
    found = datasets.FakeData(5, (3, 8, 9), transform=transforms.ToTensor())
    assert found[2][0].shape == (3, 8, 9) and (found[2][0] == found[2][0]).all().item()
    with pytest.raises(IndexError):
        found[5]


# archives


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for info, content in members:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def test_only_the_expected_members_are_taken(tmp_path: Path) -> None:
    link = tarfile.TarInfo("data/a.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    escaping = [(tarfile.TarInfo(name), b"bad") for name in ("../evil", "/evil", "data/../../evil", "data/b.bin.x")]
    made = archive(tmp_path / "x.tar.gz", [*escaping, (link, b""), (tarfile.TarInfo("data/a.bin"), b"good")])
    take_members(made, {"data/a.bin": 4}, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.bin"]
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"good" and not (tmp_path / "out" / "a.bin").is_symlink()
    assert not list(tmp_path.parent.glob("evil*"))


def test_members_of_another_size_are_refused(tmp_path: Path) -> None:
    made = archive(tmp_path / "x.tar.gz", [(tarfile.TarInfo("data/a.bin"), b"long")])
    for size in (3, 5):
        with pytest.raises(RuntimeError, match=f"expected {size} bytes"):
            take_members(made, {"data/a.bin": size}, tmp_path / "out")
    with pytest.raises(RuntimeError, match=r"it has no file data/b\.bin"):
        take_members(made, {"data/b.bin": 3}, tmp_path / "out")
    made.write_bytes(made.read_bytes()[:40])
    with pytest.raises(RuntimeError, match="damaged"):
        take_members(made, {"data/a.bin": 4}, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


# downloads


class Handler(http.server.BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}
    ranges: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if asked := self.headers.get("Range"):
            self.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        Handler.files.clear()
        Handler.ranges.clear()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


def test_mirrors_are_tried_in_order_and_checked(tmp_path: Path, server: str) -> None:
    content = RNG.bytes(1000)
    Handler.files |= {"/wrong/x": b"other", "/right/x": content}
    urls = [f"{server}/{folder}/x" for folder in ("missing", "wrong", "right")]
    fetch(urls, tmp_path / "deep" / "x", hashlib.sha256(content).hexdigest())
    assert (tmp_path / "deep" / "x").read_bytes() == content
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x"]


def test_a_broken_transfer_is_continued(tmp_path: Path, server: str) -> None:
    content = RNG.bytes(1000)
    Handler.files["/x"] = content
    (tmp_path / "x.part").write_bytes(content[:400])
    fetch([f"{server}/x"], tmp_path / "x", hashlib.sha256(content).hexdigest())
    assert (tmp_path / "x").read_bytes() == content and Handler.ranges == ["bytes=400-"]


def test_offline_says_what_each_mirror_said_and_what_to_do(tmp_path: Path, server: str) -> None:
    urls = [f"{server}/missing", "http://127.0.0.1:9/x", "file:///etc/passwd"]
    with pytest.raises(RuntimeError) as caught:
        fetch(urls, tmp_path / "x", "0" * 64)
    text = str(caught.value)
    assert all(url in text for url in urls)
    assert "404" in text and "not an http address" in text and f"put the file with SHA-256 {'0' * 64} into" in text
    assert not list(tmp_path.iterdir())


def test_cifar_is_downloaded_and_taken_out_of_its_archive(tmp_path: Path, server: str) -> None:
    batches = write_cifar(tmp_path / "made")
    names = (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list)
    members = [
        (tarfile.TarInfo(f"cifar-10-batches-bin/{name}"), batch.tobytes())
        for name, batch in zip(names, batches, strict=True)
    ]
    packed = archive(tmp_path / "packed.tar.gz", members).read_bytes()
    Handler.files["/cifar-10-binary.tar.gz"] = packed

    class Small(datasets.CIFAR10):
        url = f"{server}/cifar-10-binary.tar.gz"
        sha256 = hashlib.sha256(packed).hexdigest()
        per_file = 4

    found = Small(tmp_path / "root", download=True)
    assert len(found) == 20
    Handler.files.clear()
    assert len(Small(tmp_path / "root", train=False, download=True)) == 4  # nothing is fetched again
