"""The results on a CUDA device as a page of their own."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import (
    UNVERSIONED,
    by_workload,
    cell,
    mean,
    number,
    percent,
    revisions,
    settings_used,
    shown,
    table,
    targets,
)
from benchmarks.results import Results, Row
from benchmarks.targets import CUDA_TARGETS
from benchmarks.workload import OURS

PAGE = "benchmarks-cuda.md"
ABOUT = {
    "graphc": "plain loops, no settings",
    "graphc-compiled": "`graphc.compile` around the whole step",
    "torch": "eager, `inference_mode`, fused optimizers, channels_last where a trial finds it faster",
    "torch-compile": "like torch, the forward pass and what PyTorch derives from it under `torch.compile`",
    "torch-graphs": "like torch, the whole call captured as one CUDA graph and replayed",
    "jax": "`jit` around the whole step, XLA's GPU back end, no preallocation",
    "cupy": "function by function",
}


def _times(rows: list[Row]) -> str:
    systems = shown(rows)
    header = ["µs", *systems, "to best peer", "to torch", "bound by", "of roofline", "best peer's"]
    lines: list[list[str]] = []
    for row in rows:
        ours, best = row.ours(), row.best_peer()
        times = [cell(row, name, row.median_s, 1e6) for name in systems]
        ratios = [number(row.faster(ours, best)), number(row.faster(ours, "torch"))]
        shares = [row.bound()[1] or "-", percent(row.share(ours)), percent(row.share(best))]
        lines.append([row.workload, *times, *ratios, *shares])
    return table(header, lines)


def _summary(results: Results) -> str:
    lines: list[list[str]] = []
    for section in results.sections():
        rows = [row for row in results.rows if row.section == section]
        lines.append([section, *(number(mean(row.faster(name, row.best_peer()) for row in rows)) for name in OURS)])
    return table(["times faster than the best peer", *OURS], lines)


def _reached(results: Results) -> str:
    """What copies and products reached on the card in this run."""
    speeds = [row.bytes / row.copy_s for row in results.rows if row.copy_s > 0 and row.bytes > 0]
    found = [f"{max(speeds) / 1e9:,.0f} GB/s read and written by a copy"] if speeds else []
    for dtype in ("f32", "tf32", "f16", "bf16"):
        flops = [row.peak_flops for row in results.rows if row.dtype == dtype and row.peak_flops > 0]
        if flops:
            found.append(f"{max(flops) / 1e12:,.0f} TFLOP/s by a product in {dtype}")
    return f"Reached here: {', '.join(found)}." if found else ""


def page(results: Results) -> str:
    """The whole report in Markdown."""
    machine, settings = results.machine, results.settings
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items() if name not in UNVERSIONED)
    card = ", ".join(filter(None, (machine.get("card", ""), machine.get("memory", ""), machine.get("clock", ""))))
    parts = [
        "# Benchmarks on a GPU",
        "Written by `make bench-cuda`. The CPU's are in [benchmarks.md](benchmarks.md).",
        f"Card: {card}; driver {machine.get('driver', 'unknown')}. Host: {machine['processor']}, {machine['cores']} "
        f"cores, {machine['system']}. Python {machine['python']}; {versions}. {revisions(results)}",
        "Every system has a process of its own for each workload; they take turns: "
        f"{settings['rounds']} rounds of {settings['seconds']} s each after one to warm up, the median of the rounds' "
        "medians. Calls are started in batches of a millisecond or more, and the device is synchronised at a batch's "
        "end; a training step's loss is asked for at every tenth step. Results (of training steps the first four "
        "losses and how the weights moved at the first) agree, or the system counts as failed. Inputs lie on the "
        "device. Float32 is exact everywhere, convolutions included, but in the rows of TF32.",
        "Between the turns the card itself is measured: a copy of a gigabyte, and a product of 8192x8192 by cuBLAS. "
        "The roofline is the longer of the work's arithmetic at that speed and its bytes, read once and written once, "
        f"at the copy's. {_reached(results)}",
    ]
    if results.rows:
        parts += ["## Summary", "Geometric means.", _summary(results)]
        parts += targets(results, CUDA_TARGETS, {}, "H100 and H200.")
    for section in results.sections():
        parts += [f"## {section}", _times([row for row in results.rows if row.section == section])]
    if results.rows:
        parts += ["## First call with empty caches", by_workload(results.rows, "seconds", "first_s", 1.0)]
    if results.first_steps:
        systems = list(dict.fromkeys(name for found in results.first_steps.values() for name in found))
        lines = [
            [f"{workload}, {state}", *(number(found.get(name, {}).get(state)) for name in systems)]
            for workload, found in results.first_steps.items()
            for state in ("cold", "cached")
        ]
        parts += [
            "## First step, with an empty cache folder and with the filled one",
            table(["seconds", *systems], lines),
        ]
    if results.rows:
        parts += ["## Peak memory on the device", by_workload(results.rows, "MiB", "peak_bytes", 2**-20)]
    if lines_ := settings_used(results, ABOUT):
        parts += ["## Settings", "\n".join(lines_)]
    if results.left_out:
        parts.append("Left out: " + "; ".join(f"{name} ({why})" for name, why in results.left_out.items()) + ".")
    failures = [f"- {r.workload}, {n}: {why}" for r in results.rows for n, why in r.failures.items()]
    if failures:
        parts += ["## Failed", "\n".join(failures)]
    return "\n\n".join(filter(None, parts)) + "\n"


def write(results: Results, folder: Path) -> None:
    """Writes the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(page(results), encoding="utf-8")
