"""Weight normalisation (T. Salimans, D. Kingma, 2016) and spectral normalisation (T. Miyato et al., 2018) as hooks that
compute a weight before each `forward`."""

from __future__ import annotations

import warnings
from typing import Any

from graphc import Tensor, dot, empty, mv, no_grad
from graphc.errors import InputError, UsageError
from graphc.nn import functional as F
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter


def norm_except(v: Tensor, dim: int) -> Tensor:
    """The 2-norm over all dimensions but one, which keeps its place; over all with -1."""
    if dim == -1:
        return v.norm()
    others = [d for d in range(v.dim()) if d != dim]
    return (v * v).sum(others, True).sqrt() if others else v.abs()


def matrix_of(weight: Tensor, dim: int) -> Tensor:
    """A weight as a matrix with dimension `dim` as rows."""
    if dim:
        weight = weight.permute(dim, *(d for d in range(weight.dim()) if d != dim))
    return weight.reshape(weight.shape[0], -1)


def random_unit(size: int, like: Tensor, eps: float) -> Tensor:
    """A vector of length 1 in a random direction."""
    return F.normalize(empty(size, dtype=like.dtype, device=like.device).normal_(), dim=0, eps=eps)


def weight_dim(module: Module) -> int:
    """The dimension of a module's weight that numbers its outputs."""
    return 1 if type(module).__name__.startswith("ConvTranspose") else 0


class WeightNorm:
    """weight = g · v / |v|."""

    def __init__(self, name: str, dim: int) -> None:
        self.name = name
        self.dim = dim

    def compute_weight(self, module: Module) -> Tensor:
        """The weight of now."""
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return v * (g / norm_except(v, self.dim))

    def remove(self, module: Module) -> None:
        """Makes the weight an ordinary parameter."""
        weight = self.compute_weight(module).detach()
        for name in (self.name, f"{self.name}_g", f"{self.name}_v"):
            delattr(module, name)
        setattr(module, self.name, Parameter(weight))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


class SpectralNorm:
    """weight divided by its largest singular value, which power iteration follows while training."""

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise InputError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.name = name
        self.dim = dim
        self.n_power_iterations = n_power_iterations
        self.eps = eps

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Tensor:
        """The weight of now, after the iterations if they are asked for."""
        weight = getattr(module, f"{self.name}_orig")
        u, v = getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")
        matrix = matrix_of(weight, self.dim)
        if do_power_iteration:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(F.normalize(mv(matrix.t(), u), dim=0, eps=self.eps))
                    u.copy_(F.normalize(mv(matrix, v), dim=0, eps=self.eps))
                u, v = u.clone(), v.clone()
        return weight / dot(u, mv(matrix, v))

    def remove(self, module: Module) -> None:
        """Makes the weight an ordinary parameter."""
        with no_grad():
            weight = self.compute_weight(module, False)
        for suffix in ("", "_u", "_v", "_orig"):
            delattr(module, self.name + suffix)
        module.register_parameter(self.name, Parameter(weight.detach()))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, module.training))


def _find(module: Module, kind: type, name: str) -> tuple[int, Any] | None:
    for number, hook in module._forward_pre_hooks.items():
        if isinstance(hook, kind) and hook.name == name:  # type: ignore[attr-defined]
            return number, hook
    return None


def _remove(module: Module, kind: type, name: str, what: str) -> Module:
    found = _find(module, kind, name)
    if found is None:
        raise InputError(f"{what} of '{name}' not found in {module}")
    found[1].remove(module)
    del module._forward_pre_hooks[found[0]]
    return module


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Splits a weight into length `weight_g` and direction `weight_v`. Deprecated: `parametrizations.weight_norm`."""
    warnings.warn(
        "`torch.nn.utils.weight_norm` is deprecated in favor of `torch.nn.utils.parametrizations.weight_norm`.",
        FutureWarning,
        stacklevel=2,
    )
    if _find(module, WeightNorm, name):
        raise UsageError(f"Cannot register two weight_norm hooks on the same parameter {name}")
    hook = WeightNorm(name, -1 if dim is None else dim)
    weight = getattr(module, name).detach()
    delattr(module, name)
    module.register_parameter(f"{name}_g", Parameter(norm_except(weight, hook.dim)))
    module.register_parameter(f"{name}_v", Parameter(weight))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: Any, name: str = "weight") -> Any:
    """Undoes `weight_norm`."""
    return _remove(module, WeightNorm, name, "weight_norm")


def spectral_norm(
    module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Any:
    """Divides a weight by its largest singular value before each call."""
    if _find(module, SpectralNorm, name):
        raise UsageError(f"Cannot register two spectral_norm hooks on the same parameter {name}")
    hook = SpectralNorm(name, n_power_iterations, weight_dim(module) if dim is None else dim, eps)
    weight = module._parameters[name]
    if weight is None:
        raise InputError(f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
    rows, columns = matrix_of(weight.detach(), hook.dim).shape
    u, v = random_unit(rows, weight, eps), random_unit(columns, weight, eps)
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    setattr(module, name, weight.data)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: Any, name: str = "weight") -> Any:
    """Undoes `spectral_norm`."""
    return _remove(module, SpectralNorm, name, "spectral_norm")
