"""What `graphc.autograd`, `graphc.func` and `graphc.utils.checkpoint` build on, under one roof."""

from graphc.anomaly import (
    detect_anomaly,
    is_anomaly_check_nan_enabled,
    is_anomaly_enabled,
    set_detect_anomaly,
)
from graphc.backward import backward, grad
from graphc.checkpointing import CheckpointFunction
from graphc.checkpointing import again as run_again
from graphc.custom_function import BackwardCFunction, Function, FunctionCtx, once_differentiable
from graphc.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    mutation_allowed,
    no_grad,
    set_grad_enabled,
    set_multithreading_enabled,
)
from graphc.gradient_nodes import Node
from graphc.hooks import RemovableHandle, at_end
from graphc.packing import pop_hooks, push_hooks, refuse_hooks
from graphc.saved import increment_version

__all__ = [
    "BackwardCFunction",
    "CheckpointFunction",
    "Function",
    "FunctionCtx",
    "Node",
    "RemovableHandle",
    "at_end",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "increment_version",
    "inference_mode",
    "is_anomaly_check_nan_enabled",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "mutation_allowed",
    "no_grad",
    "once_differentiable",
    "pop_hooks",
    "push_hooks",
    "refuse_hooks",
    "run_again",
    "set_detect_anomaly",
    "set_grad_enabled",
    "set_multithreading_enabled",
]
