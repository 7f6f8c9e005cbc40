"""Mixed precision under PyTorch's names: `autocast` chooses the dtype of each operator, `GradScaler` keeps the
gradients of float16 in range.
"""

from graphc.amp.regions import autocast, autocast_decorator, custom_bwd, custom_fwd, is_autocast_available
from graphc.amp.scaler import GradScaler, OptState

__all__ = [
    "GradScaler",
    "OptState",
    "autocast",
    "autocast_decorator",
    "custom_bwd",
    "custom_fwd",
    "is_autocast_available",
]
