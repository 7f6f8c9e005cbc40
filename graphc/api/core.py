"""Public names: dtypes, devices, Tensor, facts about tensors, compiling and tracing."""

from math import e, inf, nan, pi

from graphc.counting import counters, reset_counters
from graphc.devices import Device as device, get_default_device, set_default_device
from graphc.dtypes import (
    bfloat16,
    bool,
    double,
    dtype,
    finfo,
    float,
    float16,
    float32,
    float64,
    get_default_dtype,
    half,
    iinfo,
    int,
    int8,
    int16,
    int32,
    int64,
    long,
    set_default_dtype,
    short,
    uint8,
)
from graphc.jit import compile
from graphc.recompiles import explain_recompiles
from graphc.layouts import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    sparse_bsc,
    sparse_bsr,
    sparse_coo,
    sparse_csc,
    sparse_csr,
    strided,
)
from graphc.tensors.comparing import (
    allclose,
    equal,
    get_device,
    is_complex,
    is_conj,
    is_distributed,
    is_floating_point,
    is_inference,
    is_neg,
    is_nonzero,
    is_same_size,
    is_signed,
    is_storage,
    isclose,
    numel,
    typename,
)
from graphc.tensors.printing import set_printoptions
from graphc.tensors.size import Size
from graphc.tensors.storages import UntypedStorage
from graphc.tensors.tensor import Tensor
from graphc.tracing import trace
from graphc.type_rules import can_cast, promote_types, result_type
from graphc_runtime import OutOfMemoryError, get_num_threads, set_num_threads

newaxis = None
