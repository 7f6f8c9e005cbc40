"""Public names: making tensors."""

from graphc.tensors.creation import (
    complex,
    empty,
    empty_like,
    empty_permuted,
    empty_strided,
    eye,
    full,
    full_like,
    is_tensor,
    ones,
    ones_like,
    view_as_complex,
    view_as_real,
    zeros,
    zeros_like,
)
from graphc.tensors.diagonals import fill
from graphc.tensors.interchange import from_dlpack, to_dlpack
from graphc.tensors.legacy import (
    BFloat16Tensor,
    BoolTensor,
    ByteTensor,
    CharTensor,
    DoubleTensor,
    FloatTensor,
    HalfTensor,
    IntTensor,
    LongTensor,
    ShortTensor,
    set_default_tensor_type,
)
from graphc.tensors.literals import as_tensor, asarray, frombuffer, from_numpy, scalar_tensor, tensor
from graphc.tensors.ranges import (
    arange,
    bartlett_window,
    blackman_window,
    hamming_window,
    hann_window,
    kaiser_window,
    linspace,
    logspace,
    range_ as range,
    tril_indices,
    triu_indices,
    vander,
)
