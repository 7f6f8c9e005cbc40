"""Helpers beside the tensor library: `checkpoint` saves memory in backward, `data` loads data in batches, `dlpack`
shares memory with other libraries, `hooks` has the handles that remove hooks.
"""

from graphc.utils import checkpoint, data, dlpack, hooks

__all__ = ["checkpoint", "data", "dlpack", "hooks"]
