"""What registering a hook on a tensor, a node or a module returns."""

from graphc.gradients import RemovableHandle

__all__ = ["RemovableHandle"]
