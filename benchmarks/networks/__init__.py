"""The networks that are trained, each in a file of its own with all its forms."""

from __future__ import annotations

from benchmarks.networks.lenet import lenet, lenet5
from benchmarks.networks.lstm import lstm
from benchmarks.networks.mlp import mlp
from benchmarks.networks.resnet import resnet18
from benchmarks.networks.transformer import transformer

__all__ = ["lenet", "lenet5", "lstm", "mlp", "resnet18", "transformer"]
