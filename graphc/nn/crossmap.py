"""CrossMapLRN2d: normalisation by the squares of neighbouring channels, with the window of Lua's Torch."""

from __future__ import annotations

from typing import Any

from graphc import Tensor, einsum, tensor
from graphc.autograd import Function
from graphc.errors import InputError
from graphc.nn.module import Module


def _windows(channels: int, size: int) -> tuple[list[list[float]], list[list[float]]]:
    """Which channels (columns) stand in the sum for each channel: in the result, and in the gradient.

    The result's window is `int((size - 1) / 2)` to both sides, and keeps the first channel for good, as PyTorch's does.
    """
    reach = int((size - 1) / 2 + 1)
    before = int(size - (size - 1) / 2)
    places = range(channels)
    sums = [[float(abs(c - j) < reach or (j == 0 and c >= reach)) for j in places] for c in places]
    slopes = [[float(c - before <= j <= c + size - 1 - before) for j in places] for c in places]
    return sums, slopes


class _CrossMap(Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        if input.dim() != 4:
            raise InputError(f"CrossMapLRN2d: Expected input to be 4D, got {input.dim()}D instead.")
        sums, slopes = _windows(input.size(1), size)
        weights = tensor(sums, dtype=input.dtype, device=input.device)
        scale = einsum("cj,njhw->nchw", weights, input * input) * (alpha / size) + k
        ctx.slopes, ctx.settings = slopes, (size, alpha, beta)
        output = input * scale**-beta
        ctx.save_for_backward(input, output)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        input, output = ctx.saved_tensors
        size, alpha, beta = ctx.settings
        ratio = grads[0] * output / ctx.scale
        around = einsum("cj,njhw->nchw", tensor(ctx.slopes, dtype=input.dtype, device=input.device), ratio)
        made = ctx.scale**-beta * grads[0] - input * around * (2 * alpha * beta / size)
        return made, None, None, None, None


class CrossMapLRN2d(Module):
    """Divides `[batch, channels, height, width]` by `(k + alpha/size · squares of size channels around)^beta`."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        return _CrossMap.apply(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
