"""The shipped digits: their checksum, split, preparation and loading."""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np
import pytest

import graphc as torch
from graphc.utils.data import DataLoader
from graphc.vision import transforms
from graphc.vision.datasets import Digits
from graphc.vision.datasets import digits as datasets


@pytest.fixture(scope="module")
def train() -> Digits:
    return Digits()


@pytest.fixture(scope="module")
def test() -> Digits:
    return Digits(train=False)


def test_the_file_is_small_and_its_contents_are_the_documented_ones() -> None:
    content = resources.files("graphc.vision").joinpath("digits.npz").read_bytes()
    assert len(content) < 100_000
    images, labels = datasets._digits()
    assert images.shape == (1797, 8, 8) and labels.shape == (1797,) and images.max() == 16
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_DIGITS_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match=r"digits.npz is damaged: its SHA-256 is b2dab7b5.*reinstall graphc"):
        Digits()


def test_the_split_is_fixed_and_balanced(train: Digits, test: Digits) -> None:
    assert len(train) == 1437 and len(test) == 360
    assert np.bincount(test.targets.numpy()).tolist() == [36, 36, 36, 36, 37, 36, 36, 36, 35, 36]
    images, labels = datasets._digits()
    chosen = datasets._is_test(labels)
    assert np.flatnonzero(chosen).tolist() == sorted(sorted(range(1797), key=lambda i: (labels[i], i))[::5])
    assert labels[~chosen].tolist() == train.targets.tolist()
    together = np.concatenate([images[chosen], images[~chosen]])
    assert sorted(map(bytes, together)) == sorted(map(bytes, images))


def test_images_are_resized_and_normalised(train: Digits, test: Digits) -> None:
    values = train.data.numpy()
    assert values.shape == (1437, 1, 32, 32) and values.dtype == np.float32
    assert abs(values.mean()) < 1e-5 and abs(values.std() - 1) < 1e-5
    assert 0 < abs(test.data.numpy().mean()) < 0.1
    small = Digits(size=8)
    images, labels = datasets._digits()
    first = images[~datasets._is_test(labels)][0] / 16
    np.testing.assert_allclose(small.data[0, 0].numpy() * small.std + small.mean, first, atol=1e-6)
    double = Digits(size=16).data[0, 0].numpy() * Digits(size=16).std + Digits(size=16).mean
    padded = np.pad(first, 1, mode="edge")
    corner = 0.5625 * padded[1, 1] + 0.1875 * (padded[0, 1] + padded[1, 0]) + 0.0625 * padded[0, 0]
    np.testing.assert_allclose(double[0, 0], corner, atol=1e-6)
    inner = 0.5625 * first[3, 3] + 0.1875 * (first[4, 3] + first[3, 4]) + 0.0625 * first[4, 4]
    np.testing.assert_allclose(double[7, 7], inner, atol=1e-6)


def test_samples_and_batches(train: Digits) -> None:
    image, label = train[5]
    assert image.shape == (1, 32, 32) and isinstance(label, int)
    images, labels = next(iter(DataLoader(train, 64)))
    assert images.shape == (64, 1, 32, 32) and images.dtype == torch.float32 and labels.dtype == torch.int64
    assert np.array_equal(images[5].numpy(), image.numpy()) and labels[5].item() == label
    assert repr(train) == "Dataset Digits\n    Number of datapoints: 1437\n    Split: Train\n    Size: 32x32"
    with pytest.raises(ValueError, match="size should be a positive integer value, but got size=0"):
        Digits(size=0)


def test_transforms(train: Digits) -> None:
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize([train.mean], [train.std])])
    same = Digits(transform=steps, target_transform=lambda label: label + 100)
    image, label = same[7]
    assert label == train[7][1] + 100
    assert np.abs(image.numpy() - train[7][0].numpy()).max() < 0.5 / 255 / train.std + 1e-5
    images, labels = next(iter(DataLoader(same, 4)))
    assert images.shape == (4, 1, 32, 32) and labels.tolist() == [train[i][1] + 100 for i in range(4)]
    assert "Normalize(mean=" in repr(steps) and repr(steps).startswith("Compose(\n    ToTensor()\n")


def test_single_transforms() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    scaled = transforms.ToTensor()(picture)
    assert scaled.shape == (3, 2, 2) and scaled[1, 0, 1].item() == pytest.approx(4 / 255)
    assert transforms.ToTensor()(np.ones((2, 3))).dtype == torch.float64
    with pytest.raises(TypeError, match="pic should be PIL Image or ndarray"):
        transforms.ToTensor()([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"pic should be 2/3 dimensional\. Got 1 dimensions"):
        transforms.ToTensor()(np.ones(3))
    with pytest.raises(ValueError, match="std evaluated to zero"):
        transforms.Normalize([0], [0])(torch.ones(1, 2, 2))
    with pytest.raises(TypeError, match="should be a float tensor"):
        transforms.Normalize([0], [1])(torch.ones(1, 2, 2, dtype=torch.int64))
    assert transforms.Lambda(len)([1, 2]) == 2
