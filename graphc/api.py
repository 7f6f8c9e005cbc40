"""Every public name of `graphc` that computes. `graphc/__init__.py` loads it when the first of them is used."""

from __future__ import annotations

from graphc.backward import backward as autograd_backward
from graphc.backward import grad as autograd_grad
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
from graphc.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from graphc.jit import compile, explain_recompiles
from graphc.random import (
    Generator,
    bernoulli,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    normal,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    seed,
    set_rng_state,
)
from graphc.tensors.core import Device as device
from graphc.tensors.creation import (
    arange,
    as_tensor,
    asarray,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    is_tensor,
    linspace,
    logspace,
    meshgrid,
    ones,
    ones_like,
    scalar_tensor,
    tensor,
    zeros,
    zeros_like,
)
from graphc.tensors.elementwise import (
    abs,
    add,
    bitwise_and,
    bitwise_left_shift,
    bitwise_not,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    ceil,
    clamp,
    clip,
    cos,
    cosh,
    div,
    eq,
    erf,
    exp,
    exp2,
    expm1,
    fix,
    floor,
    floor_divide,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    log,
    log1p,
    log2,
    log10,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    neg,
    pow,
    reciprocal,
    relu,
    remainder,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    sub,
    tan,
    tanh,
    trunc,
    where,
)
from graphc.tensors.indexing import (
    gather,
    index_add,
    index_select,
    masked_fill,
    masked_select,
    nonzero,
    scatter,
    scatter_add,
    take_along_dim,
)
from graphc.tensors.linalg import addmm, bmm, dot, einsum, matmul, mm, mv, outer
from graphc.tensors.normalising import log_softmax, softmax
from graphc.tensors.printing import set_printoptions
from graphc.tensors.reductions import (
    all_ as all,
)
from graphc.tensors.reductions import (
    amax,
    amin,
    argmax,
    argmin,
    cumsum,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    std,
    sum,
    var,
    var_mean,
)
from graphc.tensors.reductions import (
    any_ as any,
)
from graphc.tensors.shaping import (
    broadcast_tensors,
    broadcast_to,
    cat,
    chunk,
    clone,
    diagonal,
    flatten,
    flip,
    movedim,
    narrow,
    permute,
    repeat_interleave,
    reshape,
    roll,
    select,
    split,
    squeeze,
    stack,
    t,
    transpose,
    tril,
    triu,
    unbind,
    unflatten,
    unsqueeze,
)
from graphc.tensors.size import Size
from graphc.tensors.tensor import Tensor
from graphc.tensors.ternary import addcdiv, addcmul, lerp
from graphc.tracing import trace
from graphc.transforms import grad, value_and_grad, vjp
from graphc_runtime import get_num_threads, set_num_threads

concat = concatenate = cat
multiply, subtract, divide, true_divide, negative, absolute = mul, sub, div, div, neg, abs
swapaxes = swapdims = transpose
FloatTensor = Tensor
inf = 1e400
nan = inf - inf
pi = 3.141592653589793
e = 2.718281828459045
