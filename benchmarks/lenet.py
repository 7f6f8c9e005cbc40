"""LeNet training steps, side by side: graphc, graphc compiled, PyTorch, torch.compile, JAX and tinygrad.

    python benchmarks/lenet.py --markdown docs/benchmarks.md

Every system lives in a process of its own for the whole run, and they take turns: round by round, each is timed for a
moment, so that a machine that slows down slows all of them. Processes are held to as many CPUs as threads. The first
call of a step is timed in fresh processes: with an empty cache folder, then with the one just filled. All systems
start from the same weights, and their first losses must agree. A system that is not installed is left out by name.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NAMES = ("graphc", "graphc-compiled", "torch", "torch-compile", "jax", "tinygrad")
OURS = ("graphc", "graphc-compiled")
CHECKED_STEPS = 4
LOSS_TOLERANCE = 1e-3


class PeerProcess:
    """One system in a process of its own, asked by JSON lines."""

    def __init__(self, name: str, threads: int, python: str, cache: Path) -> None:
        self.name = name
        environment = {
            **os.environ,
            "GRAPHC_CACHE_DIR": str(cache / "graphc"),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
            "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "CACHEDB": str(cache / "tinygrad.db"),
            "OMP_NUM_THREADS": str(threads),
        }
        if name in OURS:
            paths = [str(ROOT), str(ROOT / "runtime"), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self.process = subprocess.Popen(
            [python, str(HERE / "peers.py"), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, sorted(os.sched_getaffinity(0))[:threads])

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one request; `{"failed": ...}` when the process is gone."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"failed": f"the process ended with status {self.process.wait()}"}

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Report:
    """All results; `steps[threads][batch][name]`, `first[name]` and `peaks[threads][name]` hold numbers in seconds and
    bytes."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    steps: dict[int, dict[int, dict[str, dict[str, float]]]] = field(default_factory=dict)
    peaks: dict[int, dict[str, int]] = field(default_factory=dict)
    first: dict[str, dict[str, float]] = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)


def note(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def machine_facts() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, system and Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": model,
        "cores": usable,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def losses_agree(found: list[float], wanted: list[float]) -> bool:
    """Whether two systems' losses are the same but for rounding."""
    return all(math.isclose(a, b, rel_tol=LOSS_TOLERANCE) for a, b in zip(found, wanted, strict=True))


class Session:
    """Runs everything that the options ask for and fills in the report."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self.options = options
        self.report = report

    def _python(self, name: str) -> str:
        return sys.executable if name in OURS else self.options.peer_python

    def _drop(self, peers: dict[str, PeerProcess], name: str, answer: dict[str, Any]) -> None:
        reason = answer.get("missing") or answer.get("failed") or "unknown"
        self.report.left_out[name] = reason
        note(f"{name} is left out: {reason}")
        peers.pop(name).close()

    def take_turns(self, threads: int, cache: Path) -> None:
        """Every system with one number of threads, over all batch sizes."""
        names = [name for name in self.options.peers if name not in self.report.left_out]
        peers = {name: PeerProcess(name, threads, self._python(name), cache) for name in names}
        try:
            for name, peer in list(peers.items()):
                answer = peer.ask("start")
                if "version" in answer:
                    self.report.versions[name] = answer["version"]
                else:
                    self._drop(peers, name, answer)
            self.report.steps[threads] = {}
            for batch in self.options.batches:
                self.report.steps[threads][batch] = self._batch(peers, threads, batch)
        finally:
            for peer in peers.values():
                peer.close()

    def _batch(self, peers: dict[str, PeerProcess], threads: int, batch: int) -> dict[str, dict[str, float]]:
        note(f"threads {threads}, batch {batch}")
        reference: tuple[str, list[float]] | None = None
        for name, peer in list(peers.items()):
            answer = peer.ask("prepare", batch=batch, steps=CHECKED_STEPS)
            if "losses" not in answer:
                self._drop(peers, name, answer)
            elif reference is None:
                reference = (name, answer["losses"])
            elif not losses_agree(answer["losses"], reference[1]):
                found = f"losses of {name} {answer['losses']}"
                text = f"batch {batch}: {found} differ from those of {reference[0]} {reference[1]}"
                self.report.disagreements.append(text)
                note(text)
        medians: dict[str, list[float]] = {name: [] for name in peers}
        least: dict[str, float] = {}
        for turn in range(self.options.rounds + 1):
            for name, peer in list(peers.items()):
                answer = peer.ask("measure", seconds=self.options.seconds, sync_every=self.options.sync_every)
                if "median_s" not in answer:
                    self._drop(peers, name, answer)
                    continue
                self.report.peaks.setdefault(threads, {})[name] = answer["peak_bytes"]
                # The first turn warms up.
                if turn > 0:
                    medians[name].append(answer["median_s"])
                    least[name] = min(answer["min_s"], least.get(name, math.inf))
        return {
            name: {"median_s": statistics.median(medians[name]), "min_s": least[name]}
            for name in peers
            if medians[name]
        }

    def first_calls(self, threads: int, batch: int) -> None:
        """Times the first step of every system in fresh processes, with an empty cache folder and with a filled one."""
        for name in [name for name in self.options.peers if name not in self.report.left_out]:
            with tempfile.TemporaryDirectory() as folder:
                for state in ("cold", "cached"):
                    note(f"first call of {name}, {state}")
                    peer = PeerProcess(name, threads, self._python(name), Path(folder))
                    try:
                        started = peer.ask("start")
                        answer = peer.ask("prepare", batch=batch, steps=1) if "version" in started else started
                    finally:
                        peer.close()
                    if "first_s" not in answer:
                        note(f"first call of {name}: {answer}")
                        break
                    entry = self.report.first.setdefault(name, {})
                    entry[state] = answer["first_s"]
                    entry["import"] = started["import_s"]


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned, padded to be read as text too."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(header), line(rule), *map(line, rows)])


def ratio(numbers: dict[str, dict[str, float]], name: str, others: list[str]) -> str:
    """How many times faster `name` is than the fastest of `others`."""
    rivals = [numbers[other]["median_s"] for other in others if other in numbers]
    return f"{min(rivals) / numbers[name]['median_s']:.2f}" if name in numbers and rivals else "-"


def step_tables(report: Report, threads: int) -> list[str]:
    """The medians of one number of threads, and graphc's ratios."""
    batches = report.steps[threads]
    header = ["µs a step", *(f"batch {batch}" for batch in batches)]
    names = [name for name in report.versions if any(name in numbers for numbers in batches.values())]
    rows = [
        [name, *(f"{n[name]['median_s'] * 1e6:.0f}" if name in n else "-" for n in batches.values())] for name in names
    ]
    parts = [table(header, rows)]
    peers = [name for name in names if name not in OURS]
    if peers:
        comparisons = [("the best peer", peers)] + ([("torch", ["torch"])] if "torch" in peers else [])
        ratios = [
            [f"{name} to {what}", *(ratio(numbers, name, others) for numbers in batches.values())]
            for name in OURS
            if name in names
            for what, others in comparisons
        ]
        if ratios:
            parts.append(table(["times faster", *header[1:]], ratios))
    return parts


def count(threads: int) -> str:
    """A number of threads in words."""
    return f"{threads} thread{'s' if threads != 1 else ''}"


def markdown(report: Report) -> str:
    """The whole report as a page."""
    machine, settings = report.machine, report.settings
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items() if "-comp" not in name)
    facts = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}"
    parts = [
        "# Benchmarks",
        "Written by `python benchmarks/lenet.py --markdown docs/benchmarks.md`.",
        f"Machine: {facts}. Python {machine['python']}; {versions}.",
        "## LeNet: one training step",
        "Forward, backward and SGD on `[batch, 1, 32, 32]`; all systems from the same weights. They take turns in "
        f"one session: {settings['rounds']} rounds of {settings['seconds']} s each, the loss being read after every "
        f"{settings['sync_every']} steps; the median of the rounds' medians.",
    ]
    for threads in report.steps:
        parts.append(f"### {count(threads)}")
        parts += step_tables(report, threads)
    if report.first:
        parts.append(f"## First step, batch {settings['first_batch']}")
        parts.append(
            "In fresh processes, without the import: with an empty cache folder (cold), then with the filled one."
        )
        rows = [
            [name, *(f"{times[key]:.2f}" if key in times else "-" for key in ("import", "cold", "cached"))]
            for name, times in report.first.items()
        ]
        parts.append(table(["seconds", "import", "cold", "cached"], rows))
    if report.peaks:
        parts.append("## Peak memory of the process, over all batch sizes")
        names = list(dict.fromkeys(name for peaks in report.peaks.values() for name in peaks))
        rows = [
            [name, *(f"{peaks[name] / 2**20:.0f}" if name in peaks else "-" for peaks in report.peaks.values())]
            for name in names
        ]
        parts.append(table(["MiB", *(count(threads) for threads in report.peaks)], rows))
    if report.left_out:
        parts.append("Left out: " + "; ".join(f"{name} ({reason})" for name, reason in report.left_out.items()) + ".")
    if report.disagreements:
        parts.append("**Losses differ**: " + "; ".join(report.disagreements) + ".")
    return "\n\n".join(parts) + "\n"


def numbers(text: str) -> list[int]:
    """Positive integers between commas."""
    values = [int(part) for part in text.split(",")]
    if any(value < 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: numbers must be positive")
    return values


def names(text: str) -> list[str]:
    """Names of systems between commas."""
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"no system {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return chosen


def main() -> int:
    """Runs the benchmark; 0 when all losses agree, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=numbers, default=[1, 4, 64, 512], help="batch sizes (1,4,64,512)")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="numbers of threads (1,2)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each system (7)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn (0.5)")
    parser.add_argument("--sync-every", type=int, default=10, help="steps between two readings of the loss (10)")
    parser.add_argument("--peers", type=names, default=list(NAMES), help=f"systems ({','.join(NAMES)})")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="the interpreter of the systems other than graphc"
    )
    parser.add_argument("--first-batch", type=int, default=64, help="batch size of the first-step table (64)")
    parser.add_argument("--no-first", action="store_true", help="leave out the first-step table")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to a file as well")
    options = parser.parse_args()
    if options.rounds < 1 or options.sync_every < 1:
        parser.error("--rounds and --sync-every must be positive")
    settings = {key: getattr(options, key) for key in ("rounds", "seconds", "sync_every", "first_batch")}
    report = Report(machine_facts(), settings)
    session = Session(options, report)
    with tempfile.TemporaryDirectory() as folder:
        for threads in options.threads:
            session.take_turns(threads, Path(folder))
    if not options.no_first:
        session.first_calls(max(options.threads), options.first_batch)
    page = markdown(report)
    if options.markdown is not None:
        options.markdown.write_text(page, encoding="utf-8")
    print(json.dumps(vars(report)) if options.json else page)
    return 1 if report.disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
