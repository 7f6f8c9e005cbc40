"""Activation layers: each holds the arguments of the function of `nn.functional` that it calls."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

from graphc import Tensor, full
from graphc.errors import CheckError, InputError
from graphc.nn import functional as F
from graphc.nn import init as fill
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter


class _Plain(Module):
    """A function without arguments."""

    function: ClassVar[Callable[..., Tensor]]

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input)


class _Placed(Module):
    """A function whose only argument is `inplace`."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class _Quiet(_Placed):
    """One that does not print its argument."""

    def extra_repr(self) -> str:
        return ""


class _Scaled(_Placed):
    """A function of `alpha` and `inplace`."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class _Shrink(Module):
    """A function of `lambd`."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class _Along(Module):
    """A function along `dim`."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.dim, _stacklevel=5)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Tanh(_Plain):
    """Hyperbolic tangent."""

    function = F.tanh


class Sigmoid(_Plain):
    """1 / (1 + exp(-x))."""

    function = F.sigmoid


class Softsign(_Plain):
    """x / (1 + |x|)."""

    function = F.softsign


class Tanhshrink(_Plain):
    """x - tanh(x)."""

    function = F.tanhshrink


class LogSigmoid(_Plain):
    """log(sigmoid(x))."""

    function = F.logsigmoid


class ReLU(_Placed):
    """max(x, 0)."""

    function = F.relu


class SELU(_Placed):
    """Scaled ELU. G. Klambauer et al., 2017."""

    function = F.selu


class SiLU(_Placed):
    """x · sigmoid(x)."""

    function = F.silu


class Mish(_Placed):
    """x · tanh(softplus(x)). D. Misra, 2019."""

    function = F.mish


class Hardsigmoid(_Quiet):
    """min(max(x + 3, 0), 6) / 6."""

    function = F.hardsigmoid


class Hardswish(_Quiet):
    """x · hardsigmoid(x)."""

    function = F.hardswish


class ELU(_Scaled):
    """x where positive, alpha · (exp(x) - 1) elsewhere. D.-A. Clevert et al., 2015."""

    function = F.elu


class CELU(_Scaled):
    """max(x, 0) + min(0, alpha · (exp(x / alpha) - 1)). J. T. Barron, 2017."""

    function = F.celu


class Hardshrink(_Shrink):
    """0 within `lambd` of 0, x elsewhere."""

    function = F.hardshrink


class Softshrink(_Shrink):
    """x brought nearer to 0 by `lambd`, 0 within."""

    function = F.softshrink


class Softmax(_Along):
    """exp(x) / sum(exp(x)) along `dim`."""

    function = F.softmax


class Softmin(_Along):
    """softmax(-x) along `dim`."""

    function = F.softmin


class LogSoftmax(_Along):
    """log(softmax(x)) along `dim`, computed stably."""

    function = F.log_softmax


class Softmax2d(Module):
    """Softmax over the channels of `[batch, channels, height, width]` or `[channels, height, width]`."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise InputError(f"Softmax2d: expected input to be 3D or 4D, got {input.dim()}D instead")
        return F.softmax(input, -3, _stacklevel=5)


class LeakyReLU(_Placed):
    """x where positive, `negative_slope` · x elsewhere."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class RReLU(_Placed):
    """x where positive, elsewhere times a slope that is drawn in [lower, upper) in training, their mean otherwise."""

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.lower = lower
        self.upper = upper

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """x where positive, weight · x elsewhere, with one learned weight or one for each channel. K. He et al., 2015."""

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(full((num_parameters,), init, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All weights `init` again."""
        fill.constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Hardtanh(_Placed):
    """x cut off at `min_val` and `max_val`."""

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:
        super().__init__(inplace)
        for old, new, given in (("min_value", "min_val", min_value), ("max_value", "max_val", max_value)):
            if given is not None:
                warnings.warn(
                    f"keyword argument `{old}` is deprecated and rename to `{new}`", FutureWarning, stacklevel=2
                )
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        if not self.max_val > self.min_val:
            raise CheckError(f"max_val ({self.max_val}) must be greater than min_val ({self.min_val})")

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace else "")


class ReLU6(Hardtanh):
    """min(max(x, 0), 6)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Threshold(_Placed):
    """x where above `threshold`, `value` elsewhere."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.threshold = threshold
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}" + (", inplace=True" if self.inplace else "")


class GELU(Module):
    """x · Φ(x), exact or by the tanh approximation (`approximate="tanh"`). D. Hendrycks, K. Gimpel, 2016."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class GLU(Module):
    """The first half along `dim` times the sigmoid of the second. Y. N. Dauphin et al., 2016."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softplus(Module):
    """log(1 + exp(beta · x)) / beta; x itself where beta · x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"
