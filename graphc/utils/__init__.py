"""Helpers beside the tensor library: `checkpoint` saves memory in backward, `data` loads data in batches, `dlpack`
shares memory with other libraries.
"""

from graphc.utils import checkpoint, data, dlpack

__all__ = ["checkpoint", "data", "dlpack"]
