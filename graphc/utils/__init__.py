"""Helpers beside the tensor library: `graphc.utils.data` loads data in batches."""

from graphc.utils import data

__all__ = ["data"]
