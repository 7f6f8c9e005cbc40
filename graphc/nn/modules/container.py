"""Containers, where PyTorch has them."""

from graphc.nn.containers import ModuleDict, ModuleList, Sequential
from graphc.nn.parameter_containers import ParameterDict, ParameterList

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]
