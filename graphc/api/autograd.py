"""Public names: gradients and their modes."""

from graphc.backward import backward as autograd_backward
from graphc.backward import grad as autograd_grad
from graphc.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from graphc.transforms import grad, value_and_grad, vjp
from graphc.vmapping import vmap
