"""Public names: many elements into one, scans and normalisation along dimensions."""

from graphc.tensors.normalising import log_softmax, softmax
from graphc.tensors.norms import dist, norm, renorm
from graphc.tensors.reductions import (
    all_ as all,
)
from graphc.tensors.reductions import (
    amax,
    amin,
    aminmax,
    argmax,
    argmin,
    count_nonzero,
    logsumexp,
    max,
    mean,
    min,
    nanmean,
    nansum,
    prod,
    sum,
)
from graphc.tensors.reductions import (
    any_ as any,
)
from graphc.tensors.scans import (
    cummax,
    cummin,
    cumprod,
    cumsum,
    cumulative_trapezoid,
    diff,
    logcumsumexp,
    trapezoid,
    trapz,
)
from graphc.tensors.statistics import corrcoef, cov, std, std_mean, var, var_mean
from graphc.tensors.sorting import argsort, bucketize, kthvalue, msort, searchsorted, sort, topk
from graphc.tensors.uniques import unique, unique_consecutive
from graphc.tensors.quantiles import median, mode, nanmedian, nanquantile, quantile
from graphc.tensors.histograms import bincount, histc, histogram, histogramdd
from graphc.tensors.slopes import gradient
