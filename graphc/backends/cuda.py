"""`torch.backends.cuda`: what products of matrices on CUDA devices may do."""

from __future__ import annotations

from typing import Any

from graphc.errors import KindError, UsageError
from graphc.switches import get_float32_matmul_precision, set_float32_matmul_precision
from graphc_runtime.devices.cuda import is_available


def is_built() -> bool:
    """Whether there is a back end for CUDA: whether a device can be used, as it is built when it is used."""
    return is_available()


class _Matmul:
    """`allow_tf32` is `set_float32_matmul_precision("high")`; the others are kept, without effect: sums of products of
    halves are float32 always.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {
            "allow_fp16_reduced_precision_reduction": True,
            "allow_bf16_reduced_precision_reduction": True,
            "allow_fp16_accumulation": False,
        }

    def __getattr__(self, name: str) -> Any:
        if name == "allow_tf32":
            return get_float32_matmul_precision() != "highest"
        if name == "fp32_precision":
            return "ieee" if get_float32_matmul_precision() == "highest" else "tf32"
        if name.startswith("_") or name not in self._kept:
            raise AttributeError(f"Unknown attribute {name}")
        return self._kept[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_kept":
            super().__setattr__(name, value)
        elif name == "fp32_precision":
            if value not in ("ieee", "tf32", "none"):
                raise UsageError(f"Invalid precision: {value!r}; there is: ieee, tf32, none")
            set_float32_matmul_precision("high" if value == "tf32" else "highest")
        elif name != "allow_tf32" and name not in self._kept:
            raise AttributeError(f"Unknown attribute {name}")
        elif not isinstance(value, bool):
            raise KindError(f"torch.backends.cuda.matmul.{name} expects a bool, but got {type(value).__name__}")
        elif name == "allow_tf32":
            set_float32_matmul_precision("high" if value else "highest")
        else:
            self._kept[name] = value


matmul = _Matmul()


class _Attention:
    """Which forms of `scaled_dot_product_attention` may be taken: kept, there is one."""

    flash = memory_efficient = math = cudnn = True


def flash_sdp_enabled() -> bool:
    """What `enable_flash_sdp` was told."""
    return _Attention.flash


def enable_flash_sdp(enabled: bool) -> None:
    """No effect: attention has one form, which the compiler chooses."""
    _Attention.flash = enabled


def mem_efficient_sdp_enabled() -> bool:
    """What `enable_mem_efficient_sdp` was told."""
    return _Attention.memory_efficient


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """No effect, as of `enable_flash_sdp`."""
    _Attention.memory_efficient = enabled


def math_sdp_enabled() -> bool:
    """What `enable_math_sdp` was told."""
    return _Attention.math


def enable_math_sdp(enabled: bool) -> None:
    """No effect, as of `enable_flash_sdp`."""
    _Attention.math = enabled


def cudnn_sdp_enabled() -> bool:
    """What `enable_cudnn_sdp` was told."""
    return _Attention.cudnn


def enable_cudnn_sdp(enabled: bool) -> None:
    """No effect, as of `enable_flash_sdp`."""
    _Attention.cudnn = enabled
