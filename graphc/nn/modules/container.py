"""Containers, where PyTorch has them."""

from graphc.nn.containers import Container, ModuleDict, ModuleList, Sequential
from graphc.nn.parameter_containers import ParameterDict, ParameterList

__all__ = ["Container", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]
