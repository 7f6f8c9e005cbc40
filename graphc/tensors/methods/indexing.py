"""Methods of tensors: reading and writing at indices."""

from __future__ import annotations

from graphc.tensors import indexing
from graphc.tensors.core import TensorBase
from graphc.tensors.methods.inplace import inplace


class IndexingMethods(TensorBase):
    """Reading and writing at indices."""

    __slots__ = ()

    __getitem__ = indexing.getitem
    __setitem__ = indexing.setitem
    gather, index_select, take_along_dim = indexing.gather, indexing.index_select, indexing.take_along_dim
    scatter, scatter_add, index_add = indexing.scatter, indexing.scatter_add, indexing.index_add
    scatter_, scatter_add_ = inplace(indexing.scatter), inplace(indexing.scatter_add)
    index_add_ = inplace(indexing.index_add)
    index_put_ = indexing.index_put_
    masked_fill, masked_select, nonzero = indexing.masked_fill, indexing.masked_select, indexing.nonzero
    masked_fill_ = inplace(indexing.masked_fill)
