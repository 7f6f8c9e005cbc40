"""What graphc wants to reach, checked against a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

from benchmarks.results import Results, Row
from benchmarks.workload import BY_HAND, OURS

# What is to stay below its bound: times, and how many times longer something takes.
AT_MOST = ("s", "ms", "µs", "times")
COMPILED, PLAIN = "graphc-compiled", "graphc"


@dataclass(frozen=True)
class Target:
    """A wish: each value that `values` finds in a run, by what it was measured on, is at least `least`.

    With a unit of `AT_MOST`, they are to be at most that. `limits` finds what the values would be at the roofline.
    """

    wish: str
    least: float
    values: Callable[[Results], dict[str, float]]
    unit: str = "x"
    limits: Callable[[Results], dict[str, float]] = lambda results: {}

    def told(self, value: float) -> str:
        """A value as people write it."""
        if self.unit == "%":
            return f"{100 * value:.0f} %"
        return f"{value:.2f}" if self.unit == "x" else f"{value:.3g} {self.unit}"

    def met(self, value: float) -> bool:
        """Whether a value, as it is told, reaches the target, or stays below it."""
        return value <= self.least if self.unit in AT_MOST else round(value, 2) >= self.least


def _over_rows(value: Callable[[Row], float | None], *names: str) -> Callable[[Results], dict[str, float]]:
    def values(results: Results) -> dict[str, float]:
        rows = [row for row in results.rows if any(fnmatch(row.workload, name) for name in names)]
        found = {f"{row.workload}/{row.threads}": value(row) for row in rows}
        return {key: number for key, number in found.items() if number is not None}

    return values


def _best(row: Row) -> float | None:
    return row.faster(row.ours(), row.best_peer())


def _compiled(row: Row) -> float | None:
    return row.faster(COMPILED, row.best_peer())


def _plain(row: Row) -> float | None:
    return row.faster(PLAIN, "torch")


def _to_torch(row: Row) -> float | None:
    return row.faster(row.ours(), "torch")


def _by_hand(row: Row) -> float | None:
    return row.faster(COMPILED, BY_HAND)


def _limit(row: Row) -> float | None:
    """How many times faster than the best peer the machine's arithmetic, or a plain copy, is."""
    peer, (least, _) = row.best_peer(), row.bound()
    return row.median_s[peer] / least if peer is not None and least > 0 else None


def _to_best(wish: str, least: float, value: Callable[[Row], float | None], *names: str) -> Target:
    return Target(f"{wish}, to the best peer", least, _over_rows(value, *names), limits=_over_rows(_limit, *names))


def _roofline(row: Row) -> float | None:
    return row.share(row.ours())


def _memory_bound(row: Row) -> float | None:
    return row.share(row.ours()) if row.bound()[1] == "memory" else None


def _microseconds(system: str) -> Callable[[Row], float | None]:
    return lambda row: 1e6 * row.median_s[system] if system in row.median_s else None


def _first_step(state: str) -> Callable[[Results], dict[str, float]]:
    def values(results: Results) -> dict[str, float]:
        seconds = results.first_steps.get("lenet-train-b64", {}).get(COMPILED, {})
        return {"lenet-train-b64": seconds[state]} if state in seconds else {}

    return values


def _busy_core(results: Results) -> dict[str, float]:
    found = results.busy_core.items()
    return {f"{workload}, {name}": slow[name] for workload, slow in found for name in OURS if name in slow}


def _import(results: Results) -> dict[str, float]:
    return {"import graphc": 1000 * results.imports[PLAIN]} if PLAIN in results.imports else {}


POINTWISE = ("chain", "gelu", "sum", "dot", "norm", "dropout")
ROWS = ("softmax", "log-softmax", "column-sum", "transpose", "cumsum", "argmax", "layer-norm*", "sort", "embedding*")
LARGE = ("matmul-*-n512", "matmul-*-n1024", "matmul-*-n2048")
NETWORKS = ("mlp-*", "lstm-*", "transformer-*")
FROM_B64 = ("lenet*-train-b64", "lenet*-train-b512")

TARGETS = (
    _to_best("LeNet step compiled, batch 1", 4, _compiled, "lenet*-train-b1"),
    _to_best("LeNet step compiled, batch 4", 5, _compiled, "lenet*-train-b4"),
    _to_best("LeNet step compiled, batch 64 and 512", 8, _compiled, *FROM_B64),
    Target("LeNet step, batch 64 and 512, of the roofline", 0.6, _over_rows(_roofline, *FROM_B64), "%"),
    Target("LeNet step compiled, to C by hand", 1, _over_rows(_by_hand, "lenet-train-*")),
    Target("LeNet in a plain loop, to PyTorch eager", 1, _over_rows(_plain, "lenet*")),
    _to_best("MLP, LSTM, transformer", 1.5, _best, *NETWORKS),
    _to_best("ResNet-18", 1.2, _best, "resnet18-*"),
    _to_best("pointwise and row kernels", 1.5, _best, *POINTWISE, *ROWS),
    Target("the same, of a plain copy", 0.9, _over_rows(_memory_bound, *POINTWISE, *ROWS), "%"),
    Target("products of n >= 512, of the roofline", 0.9, _over_rows(_roofline, *LARGE), "%"),
    _to_best("products", 1, _best, "matmul-*"),
    _to_best("convolutions", 1.2, _best, "conv-*"),
    Target("plain loops without gradients, to PyTorch eager", 1, _over_rows(_plain, "loop-*")),
    Target("first LeNet step, empty cache", 1.0, _first_step("cold"), "s"),
    Target("first LeNet step, filled cache", 0.1, _first_step("cached"), "s"),
    Target("import, over NumPy's", 60, _import, "ms"),
    Target("recording an operation", 3, _over_rows(_microseconds(PLAIN), "record"), "µs"),
    Target("a compiled call", 5, _over_rows(_microseconds(COMPILED), "replay"), "µs"),
    Target("a training step while one CPU is busy, to one alone", 3, _busy_core, "times"),
)

_CUDA_NETWORKS = ("resnet18-*", "transformer-*")
_PRODUCTS = ("matmul-f32-*", "matmul-bf16-*")
CUDA_TARGETS = (
    _to_best("LeNet step compiled", 2, _compiled, "lenet-train-*"),
    _to_best("ResNet-18 and transformer", 1, _best, *_CUDA_NETWORKS),
    Target("pointwise and reductions, of a plain copy", 0.9, _over_rows(_roofline, "chain", "sum", "*-sum"), "%"),
    _to_best("softmax and layer norm", 1.2, _best, "softmax", "layer-norm"),
    Target("products in f32 and bf16, to PyTorch (cuBLAS)", 0.8, _over_rows(_to_torch, *_PRODUCTS)),
    Target("first LeNet step, empty cache", 3.0, _first_step("cold"), "s"),
    Target("first LeNet step, filled cache", 0.3, _first_step("cached"), "s"),
)

# Why targets are missed: what profiles show, and what was tried. By the patterns of the workloads they are about;
# `{shares}` stands for the shares of the roofline that these reached in the run.
REASONS: dict[tuple[str, ...], str] = {
    FROM_B64: (
        "LeNet at batch 64 and 512 runs at {shares} of what the machine's arithmetic reaches: 8 times the best peer "
        "can be more than the machine can do. Fewer multiplications (decision 9) are in it already."
    ),
    NETWORKS: (
        "MLP, LSTM and transformer are products of matrices at {shares} of the machine's arithmetic. Peers are at two "
        "thirds and more themselves: 1.5 times the best is above or near the machine's peak."
    ),
    ("gelu", "softmax", "log-softmax", "dropout"): (
        "gelu, softmax, log-softmax and dropout are bound by their arithmetic (erf, exp, random bits), not by "
        "the copy that the roofline takes."
    ),
    ("sum", "dot", "norm"): (
        "sum, dot and norm read memory at {shares} of the speed of a copy, as the best peers do: it bounds them."
    ),
    ("embedding",): "Picking rows runs at {shares} of the speed of a plain copy of as many bytes.",
    ("column-sum", "argmax", "layer-norm*", "cumsum", "transpose"): (
        "Column sums, argmax, layer norm, cumsum and transpose reach {shares} of a plain copy; where one thread falls "
        "short, two are nearly twice as fast: a core's loads, shuffles and arithmetic bound them, not the memory."
    ),
    ("embedding-grad",): (
        "The gradient of picked rows fills its result with zeros and adds each row to its place in the order of the "
        "indices, the same with any number of threads."
    ),
    ("sort",): (
        "A radix sort moves every element several times: the roofline counts one copy. NumPy's quicksort of vectors "
        "of 512 bits, which it has for some processors, can be quicker on one thread."
    ),
    ("matmul-f32-n16", "matmul-f32-n32", "matmul-f64-n16", "matmul-f64-n32"): (
        "Products of 16 and 32: a compiled call costs about 1 us besides its kernel, as long as NumPy's whole call."
    ),
    LARGE: (
        "Large products run at {shares} of the machine's arithmetic, OpenBLAS's at nearly as much (decision 5): "
        "which of the two is ahead changes with the shape."
    ),
    ("conv-7x7s2-b1",): (
        "The strided first convolution with one sample runs at {shares} of the machine's arithmetic as it is counted "
        "for the direct form: it is taken by phases, with 12 products for 21 (decision 9). Its last step transposes."
    ),
    ("conv-1x1-*", "conv-3x3-*"): (
        "1x1 and 3x3 convolutions run at {shares} of the machine's arithmetic as it is counted for the direct form "
        "(decision 9 multiplies less): between two threads and at the edges of tiles some is lost."
    ),
    ("conv-depthwise-b16",): (
        "Depthwise convolutions of 16 samples move more than the last cache holds; images are put together and stored "
        "past it (decision 15), at {shares} of the speed of a plain copy of as many bytes."
    ),
    ("loop-decode",): (
        "A text's caches grow by joining: attention over any length is one program, and native code runs it and the "
        "joins, 4 to 5 us each, six a word; what is between them is compiled once (decision 19)."
    ),
    ("record",): (
        "An operation that is recorded again is recorded in native code (decision 11), in 1.0 us where NumPy's call "
        "takes 0.6; what the figure has besides is memory: seven objects are made and let go."
    ),
}


def reasons(results: Results, why: Mapping[tuple[str, ...], str], missed: Collection[str]) -> list[str]:
    """The texts of `why` that are about one of the workloads `missed`, with the shares that their rows reached."""
    texts: list[str] = []
    for patterns, text in why.items():
        rows = [row for row in results.rows if any(fnmatch(row.workload, pattern) for pattern in patterns)]
        shares = [100 * share for row in rows if (share := row.share(row.ours())) is not None]
        if any(row.workload in missed for row in rows):
            between = f"{min(shares):.0f} to {max(shares):.0f} %" if shares else "an unknown share"
            texts.append(text.format(shares=between))
    return texts
