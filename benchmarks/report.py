"""The results as a page with tables and plots."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.plots import Series, bars
from benchmarks.results import Results, Row
from benchmarks.targets import AT_MOST, REASONS, TARGETS, Target, reasons
from benchmarks.workload import CUDA_SYSTEMS, LONG_WARM, OURS, SYSTEMS

PAGE, PLOTS = "benchmarks.md", "plots"
# The settings that a system always has; those that depend on the workload are counted.
ABOUT = {
    "graphc": "plain loops, no settings",
    "graphc-compiled": "`graphc.compile` around the whole step",
    "torch": "`set_num_threads`, `inference_mode`, fused optimizers, channels_last where a trial finds it faster",
    "torch-compile": "like torch, the forward pass and what PyTorch derives from it under `torch.compile`",
    "jax": "`jit` around the whole step, XLA's CPU back end",
    "tinygrad": "`TinyJit` around the whole step, its CPU back end",
    "numpy": "its wheel's OpenBLAS",
    "numexpr": "`set_num_threads`, constants in float32",
    "by-hand": "LeNet in C with vectors by hand, on one thread; no peer, a yardstick",
}

# Others of the same version, or none.
UNVERSIONED = ("graphc-compiled", "torch-compile", "torch-graphs", "by-hand")


def number(value: float | None) -> str:
    """Three digits or all before the point."""
    if value is None or not math.isfinite(value):
        return "-"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4
    return f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{100 * value:.0f} %"


def count(threads: int) -> str:
    """A number of threads in words."""
    return f"{threads} thread{'s' if threads != 1 else ''}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned, padded to be read as text too."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(header), line(rule), *map(line, rows)])


def shown(rows: Iterable[Row]) -> list[str]:
    """The systems that have a time, or failed, in any of the rows."""
    rows = list(rows)
    every = dict.fromkeys((*SYSTEMS, *CUDA_SYSTEMS))
    return [name for name in every if any(name in row.median_s or name in row.failures for row in rows)]


def cell(row: Row, name: str, numbers: dict[str, float], scale: float) -> str:
    """The number of a system, or that it failed."""
    return "failed" if name in row.failures else number(numbers[name] * scale) if name in numbers else "-"


def _times(rows: list[Row]) -> str:
    systems = shown(rows)
    header = ["µs", *systems, "to best peer", "to torch", "bound by", "of roofline", "best peer's"]
    lines: list[list[str]] = []
    for row in rows:
        ours, best = row.ours(), row.best_peer()
        lines.append(
            [
                row.workload,
                *(cell(row, name, row.median_s, 1e6) for name in systems),
                number(row.faster(ours, best)),
                number(row.faster(ours, "torch")),
                row.bound()[1] or "-",
                percent(row.share(ours)),
                percent(row.share(best)),
            ]
        )
    return table(header, lines)


def mean(values: Iterable[float | None]) -> float | None:
    """The geometric mean of those that are there."""
    logs = [math.log(v) for v in values if v is not None and v > 0]
    return math.exp(sum(logs) / len(logs)) if logs else None


def _summary(results: Results, threads: list[int]) -> str:
    header = ["times faster than the best peer", *(f"{name}, {count(t)}" for t in threads for name in OURS)]
    lines: list[list[str]] = []
    for section in results.sections():
        cells: list[str] = []
        for t in threads:
            rows = [row for row in results.rows if row.section == section and row.threads == t]
            cells += [number(mean(row.faster(name, row.best_peer()) for row in rows)) for name in OURS]
        lines.append([section, *cells])
    return table(header, lines)


def targets(results: Results, wishes: Sequence[Target], why: Mapping[tuple[str, ...], str], note: str) -> list[str]:
    """The targets with how many of their values reach them, then those that do not, with the reasons `why`; `note`
    comes first.
    """
    lines: list[list[str]] = []
    missed: list[str] = []
    behind: set[str] = set()
    for target in wishes:
        values = target.values(results)
        if not values:
            continue
        short = {key: value for key, value in values.items() if not target.met(value)}
        worst = (max if target.unit in AT_MOST else min)(values, key=lambda key: values[key])
        met = f"{len(values) - len(short)} of {len(values)}"
        lines.append([target.wish, target.told(target.least), met, f"{target.told(values[worst])} ({worst})"])
        if short:
            limits = {key: limit for key, limit in target.limits(results).items() if limit > values.get(key, limit)}
            every = ", ".join(
                f"{key} {target.told(value)}" + (f" (at most {target.told(limits[key])})" if key in limits else "")
                for key, value in short.items()
            )
            missed.append(f"- {target.wish}, {target.told(target.least)}: {every}.")
            behind.update(key.partition("/")[0] for key in short)
    if not lines:
        return []
    parts = [
        "## Targets",
        note,
        table(["target", "goal", "met", "worst"], lines),
    ]
    if missed:
        if any("(at most" in line for line in missed):
            missed = ["What the machine's arithmetic or a plain copy would reach is in parentheses.", "", *missed]
        parts += ["### Missed", "\n".join(missed)]
        texts = [f"- {text}" for text in reasons(results, why, behind)]
        parts += ["What profiles show, and what was tried:", "\n".join(texts)] if texts else []
    return parts


def by_workload(rows: list[Row], what: str, field: str, scale: float) -> str:
    """A table of one number for each workload and system."""
    systems = shown(rows)
    lines = [[row.workload, *(cell(row, name, getattr(row, field), scale) for name in systems)] for row in rows]
    return table([what, *systems], lines)


def slug(section: str) -> str:
    """A section's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", section.lower()).strip("-")


def plots(results: Results) -> dict[str, str]:
    """File names and SVG documents: for each section the ratios to the best peer and the shares of the roofline."""
    made: dict[str, str] = {}
    threads = sorted({row.threads for row in results.rows})
    for section in results.sections():
        rows = [row for row in results.rows if row.section == section]
        names = list(dict.fromkeys(row.workload for row in rows))
        by_key = {(row.workload, row.threads): row for row in rows}

        def series(t: int, value: str, names: list[str] = names, by_key: dict = by_key) -> Series:
            found: list[float | None] = []
            for name in names:
                row = by_key.get((name, t))
                ratio = value == "ratio"
                found.append(
                    None if row is None else row.faster(row.ours(), row.best_peer()) if ratio else row.share(row.ours())
                )
            return Series(count(t), found)

        title = f"{section}: how many times faster graphc is than the best peer"
        all_ratios = [series(t, "ratio") for t in threads]
        if any(v is not None for s in all_ratios for v in s.values):
            made[f"{slug(section)}-ratio.svg"] = bars(title, names, all_ratios)
        shares = [series(t, "share") for t in threads]
        if any(v is not None for s in shares for v in s.values):
            made[f"{slug(section)}-roofline.svg"] = bars(f"{section}: graphc's share of the roofline", names, shares)
    return made


def _machine_speed(results: Results, threads: list[int]) -> str:
    """What the machine reached in this run: arithmetic by precision, and the longest copies."""
    found: list[str] = []
    for t in threads:
        rows = [row for row in results.rows if row.threads == t]
        for dtype in sorted({row.dtype for row in rows if row.peak_flops > 0}):
            best = max(row.peak_flops for row in rows if row.dtype == dtype)
            found.append(f"{best / 1e9:.0f} GFLOP/s in {dtype} with {count(t)}")
        copies = [row for row in rows if row.copy_s > 0]
        if copies:
            longest = max(copies, key=lambda row: row.bytes)
            speed = longest.bytes / longest.copy_s / 1e9
            found.append(f"{speed:.1f} GB/s copying {longest.bytes / 2e6:.0f} MB with {count(t)}")
    return f"Reached here: {', '.join(found)}." if found else ""


def settings_used(results: Results, about: Mapping[str, str] = ABOUT) -> list[str]:
    """The settings that each system ran with, and what was chosen on how many workloads."""
    lines: list[str] = []
    for name in results.versions:
        used: dict[str, int] = {}
        for row in results.rows:
            if name in row.setting:
                setting = row.setting[name] or "nothing else"
                used[setting] = used.get(setting, 0) + 1
        chosen = ", ".join(f"{setting} ({n} times)" for setting, n in used.items())
        lines.append(f"- {name}: {about[name]}" + (f"; {chosen}" if set(used) - {"nothing else"} else "") + ".")
    return lines


def revisions(results: Results) -> str:
    """The revision, and which rows are of another one."""
    rows: dict[str, list[str]] = {}
    for row in results.rows:
        rows.setdefault(row.revision, []).append(row.workload)
    most = max(rows, key=lambda revision: len(rows[revision]), default=results.machine["revision"])
    others = [f"{', '.join(dict.fromkeys(rows[one]))}: {one}." for one in rows if one != most]
    return " ".join([f"Measured at {most}.", *others])


def page(results: Results) -> str:
    """The whole report in Markdown."""
    machine, settings = results.machine, results.settings
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items() if name not in UNVERSIONED)
    threads = sorted({row.threads for row in results.rows})
    drawn = plots(results)
    parts = [
        "# Benchmarks",
        "Written by `make bench`. On a GPU: [benchmarks-cuda.md](benchmarks-cuda.md).",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}. Python {machine['python']}; "
        f"{versions}. {revisions(results)}",
        "Every system has a process of its own for each workload; they take turns: "
        f"{settings['rounds']} rounds of {settings['seconds']} s each after one to warm up, which is {LONG_WARM} times "
        "as long for loops, programs and recording; the median of the rounds' medians. Processes are held to as many "
        "CPUs as threads. Results (of training steps the first four losses and how the weights moved at the first) "
        "agree, or the system counts as failed. A training step's loss is read after every ten steps; all other "
        "results are waited for at once.",
        "Between the turns the machine itself is measured: a loop of vector multiply-adds, and a plain copy of as many "
        "bytes as the work must read and write. The roofline is the longer of the arithmetic at that speed and that "
        f"copy. {_machine_speed(results, threads)}",
    ]
    if results.rows:
        parts += ["## Summary", "Geometric means.", _summary(results, threads)]
        parts += targets(results, TARGETS, REASONS, "Each workload is followed by the number of threads.")
    for section in results.sections():
        parts.append(f"## {section}")
        parts += [f"![{name}]({PLOTS}/{name})" for name in drawn if name.startswith(slug(section) + "-")]
        for t in threads:
            rows = [row for row in results.rows if row.section == section and row.threads == t]
            if rows:
                parts += [f"### {section}, {count(t)}", _times(rows)]
        if section == "Overheads":
            parts.append(
                "`record`: one operation recorded (graphc) or run (the others) in a chain of 64, nothing looked at. "
                "`replay`: a compiled call of `x + 1` on 16 floats, whose own time is a few nanoseconds."
            )
    if results.rows:
        rows = [row for row in results.rows if row.threads == threads[0]]
        parts += [
            f"## First call with empty caches, {count(threads[0])}",
            by_workload(rows, "seconds", "first_s", 1.0),
        ]
    if results.first_steps:
        systems = [name for name in SYSTEMS if any(name in found for found in results.first_steps.values())]
        lines = [
            [f"{workload}, {state}", *(number(found.get(name, {}).get(state)) for name in systems)]
            for workload, found in results.first_steps.items()
            for state in ("cold", "cached")
        ]
        parts += [
            "## First step, with an empty cache folder and with the filled one",
            "The bytecode of all libraries is there, as after an installation.",
            table(["seconds", *systems], lines),
        ]
    if results.busy_core:
        systems = [name for name in SYSTEMS if any(name in found for found in results.busy_core.values())]
        lines = [
            [workload, *(number(found.get(name)) for name in systems)] for workload, found in results.busy_core.items()
        ]
        parts += [
            f"## Beside a busy CPU, {count(threads[-1])}",
            f"How many times longer a step on {count(threads[-1])} takes while another process computes on one of its "
            "CPUs without a pause, in turns with steps that have the CPUs for themselves.",
            table(["times longer", *systems], lines),
        ]
    if results.imports:
        rows_ = [[f"import {name}", f"{1000 * seconds:.0f}"] for name, seconds in results.imports.items()]
        parts += ["## Import, once NumPy is there", table(["library", "ms"], rows_)]
    if results.rows:
        rows = [row for row in results.rows if row.threads == threads[-1]]
        parts += [
            f"## Peak memory of the process, {count(threads[-1])}",
            by_workload(rows, "MiB", "peak_bytes", 2**-20),
        ]
    if lines := settings_used(results):
        parts += ["## Settings", "\n".join(lines)]
    if results.left_out:
        parts.append("Left out: " + "; ".join(f"{name} ({why})" for name, why in results.left_out.items()) + ".")
    failures = [
        f"- {r.workload}, {count(r.threads)}, {n}: {why}" for r in results.rows for n, why in r.failures.items()
    ]
    if failures:
        parts += ["## Failed", "\n".join(failures)]
    return "\n\n".join(parts) + "\n"


def write(results: Results, folder: Path) -> None:
    """Writes the page and its plots."""
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(page(results), encoding="utf-8")
    for name, drawing in plots(results).items():
        (folder / PLOTS / name).write_text(drawing, encoding="utf-8")
