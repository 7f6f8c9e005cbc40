"""Public names: dtypes, devices, Tensor, compiling and tracing."""

from graphc.counting import counters, reset_counters
from graphc.dtypes import (
    bfloat16,
    bool,
    double,
    dtype,
    float,
    float16,
    float32,
    float64,
    get_default_dtype,
    half,
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
from graphc.jit import compile, explain_recompiles
from graphc.tensors.core import Device as device
from graphc.tensors.printing import set_printoptions
from graphc.tensors.size import Size
from graphc.tensors.tensor import Tensor
from graphc.tracing import trace
from graphc_runtime import get_num_threads, set_num_threads
