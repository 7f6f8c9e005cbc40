"""Public names: reading and writing at indices."""

from graphc.tensors.index_writing import (
    as_strided_scatter,
    diagonal_scatter,
    index_add,
    index_copy,
    index_fill,
    index_reduce,
    scatter_reduce,
    select_scatter,
    slice_scatter,
)
from graphc.tensors.indexing import index_put, index_put_
from graphc.tensors.masking import (
    argwhere,
    masked_fill,
    masked_scatter,
    masked_select,
    nonzero,
    nonzero_static,
)
from graphc.tensors.scattering import gather, index_select, put, scatter, scatter_add, take, take_along_dim
