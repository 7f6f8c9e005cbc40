"""Data sets of images, under torchvision's names."""

from graphc.vision.datasets.base import VisionDataset
from graphc.vision.datasets.cifar import CIFAR10, CIFAR100
from graphc.vision.datasets.digits import Digits
from graphc.vision.datasets.folder import DatasetFolder, FakeData, ImageFolder
from graphc.vision.datasets.mnist import MNIST, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "DatasetFolder",
    "Digits",
    "FakeData",
    "FashionMNIST",
    "ImageFolder",
    "VisionDataset",
]
