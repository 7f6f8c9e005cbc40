"""Public names: many elements into one, scans and normalisation along dimensions."""

from graphc.tensors.normalising import log_softmax, softmax
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
