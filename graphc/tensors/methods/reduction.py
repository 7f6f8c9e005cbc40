"""Methods of tensors: many elements into one, scans and normalisation along dimensions."""

from __future__ import annotations

from graphc.tensors import histograms, normalising, norms, quantiles, reductions, scans, sorting, statistics, uniques
from graphc.tensors.core import TensorBase
from graphc.tensors.methods.inplace import inplace


class ReductionMethods(TensorBase):
    """Many elements into one, scans and normalisation along dimensions."""

    __slots__ = ()

    sum, nansum, mean, nanmean, prod = (
        reductions.sum,
        reductions.nansum,
        reductions.mean,
        reductions.nanmean,
        reductions.prod,
    )
    max, min, amax, amin, aminmax = (
        reductions.max,
        reductions.min,
        reductions.amax,
        reductions.amin,
        reductions.aminmax,
    )
    argmax, argmin, any, all = reductions.argmax, reductions.argmin, reductions.any_, reductions.all_
    count_nonzero, logsumexp = reductions.count_nonzero, reductions.logsumexp
    var, std = statistics.var, statistics.std
    norm, dist, renorm = norms.norm, norms.dist, norms.renorm
    renorm_ = inplace(norms.renorm)
    softmax, log_softmax = normalising.softmax, normalising.log_softmax
    cumsum, cumprod, cummax, cummin = scans.cumsum, scans.cumprod, scans.cummax, scans.cummin
    cumsum_, cumprod_ = inplace(scans.cumsum), inplace(scans.cumprod)
    logcumsumexp, diff = scans.logcumsumexp, scans.diff
    sort, argsort, msort, topk, kthvalue = (
        sorting.sort,
        sorting.argsort,
        sorting.msort,
        sorting.topk,
        sorting.kthvalue,
    )
    unique, unique_consecutive = uniques.unique, uniques.unique_consecutive
    median, nanmedian, mode = quantiles.median, quantiles.nanmedian, quantiles.mode
    quantile, nanquantile = quantiles.quantile, quantiles.nanquantile
    histc, histogram, bincount = histograms.histc, histograms.histogram, histograms.bincount
    sum_to_size = reductions.sum_to_size
    cov, corrcoef = statistics.cov, statistics.corrcoef
