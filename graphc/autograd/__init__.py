"""`torch.autograd`'s names: gradients as functions, and the switches of recording."""

from graphc import (
    Tensor,
    autograd_backward,
    autograd_grad,
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from graphc.autograd.gradcheck import gradcheck, numerical_jacobian

backward = autograd_backward
grad = autograd_grad
Variable = Tensor

__all__ = [
    "Variable",
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "numerical_jacobian",
    "set_grad_enabled",
]
