"""`torch.autograd`'s names: gradients as functions, and the switches of recording."""

from graphc.autograd import forward_ad, function, functional, grad_mode, graph
from graphc.autograd.function import Function
from graphc.autograd.gradcheck import gradcheck, gradgradcheck, numerical_jacobian
from graphc.autograd.gradient import grad
from graphc.autograd.variable import Variable
from graphc.gradients import (
    backward,
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_anomaly_enabled,
    is_grad_enabled,
    no_grad,
    set_detect_anomaly,
    set_grad_enabled,
    set_multithreading_enabled,
)

__all__ = [
    "Function",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "forward_ad",
    "function",
    "functional",
    "grad",
    "grad_mode",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "no_grad",
    "numerical_jacobian",
    "set_detect_anomaly",
    "set_grad_enabled",
    "set_multithreading_enabled",
]
