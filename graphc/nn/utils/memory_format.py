"""Memory formats of the weights of convolutions. Tensors here are row-major, so the values stay where they are."""

from __future__ import annotations

from typing import Any

from graphc.nn.conv import Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d


def _convert(module: Any, memory_format: Any, kinds: tuple[type, ...]) -> Any:
    for part in module.modules():
        if isinstance(part, kinds):
            part.weight.data = part.weight.detach().clone(memory_format=memory_format)
    return module


def convert_conv2d_weight_memory_format(module: Any, memory_format: Any) -> Any:
    """Copies the weights of all convolutions of images, in the format where that is possible; gives the module."""
    return _convert(module, memory_format, (Conv2d, ConvTranspose2d))


def convert_conv3d_weight_memory_format(module: Any, memory_format: Any) -> Any:
    """Copies the weights of all convolutions of volumes, in the format where that is possible; gives the module."""
    return _convert(module, memory_format, (Conv3d, ConvTranspose3d))
