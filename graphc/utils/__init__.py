"""Helpers beside the tensor library: `data` loads data in batches, `dlpack` shares memory with other libraries."""

from graphc.utils import data, dlpack

__all__ = ["data", "dlpack"]
