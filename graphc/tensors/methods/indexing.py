"""Methods of tensors: reading and writing at indices."""

from __future__ import annotations

from graphc.tensors import diagonals, index_writing, indexing, masking, scattering
from graphc.tensors.core import TensorBase
from graphc.tensors.methods.inplace import inplace


class IndexingMethods(TensorBase):
    """Reading and writing at indices."""

    __slots__ = ()

    __getitem__ = indexing.getitem
    __setitem__ = indexing.setitem
    gather, index_select, take_along_dim = scattering.gather, scattering.index_select, scattering.take_along_dim
    take, put, put_ = scattering.take, scattering.put, inplace(scattering.put, wholly=True)
    scatter, scatter_ = scattering.scatter, inplace(scattering.scatter, wholly=True)
    scatter_add, scatter_add_ = scattering.scatter_add, inplace(scattering.scatter_add, wholly=True)
    scatter_reduce = index_writing.scatter_reduce
    scatter_reduce_ = inplace(index_writing.scatter_reduce, wholly=True)
    index_add, index_add_ = index_writing.index_add, inplace(index_writing.index_add, wholly=True)
    index_copy, index_copy_ = index_writing.index_copy, inplace(index_writing.index_copy, wholly=True)
    index_fill, index_fill_ = index_writing.index_fill, inplace(index_writing.index_fill, wholly=True)
    index_reduce, index_reduce_ = index_writing.index_reduce, inplace(index_writing.index_reduce, wholly=True)
    fill_diagonal_ = diagonals.fill_diagonal_
    index_put, index_put_ = indexing.index_put, indexing.index_put_
    masked_fill, masked_fill_ = masking.masked_fill, inplace(masking.masked_fill)
    masked_scatter, masked_scatter_ = masking.masked_scatter, inplace(masking.masked_scatter)
    masked_select, nonzero, argwhere = masking.masked_select, masking.nonzero, masking.argwhere
    nonzero_static = masking.nonzero_static
    select_scatter, slice_scatter = index_writing.select_scatter, index_writing.slice_scatter
    diagonal_scatter, as_strided_scatter = index_writing.diagonal_scatter, index_writing.as_strided_scatter
