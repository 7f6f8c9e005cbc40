"""Times graphc beside PyTorch, torch.compile, JAX, tinygrad, NumPy and numexpr; on a GPU beside CuPy too.

    python -m benchmarks                                  everything, into docs/
    python -m benchmarks --only 'lenet-*' sum --quick     a glance at some
    python -m benchmarks --device cuda                    everything on the CUDA device, into docs/

Every system lives in a process of its own, and they take turns, so that a machine that slows down slows all of them.
Results are compared before anything is timed. A system that is not installed is left out by name, a workload that fails
is reported with its reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import fnmatch
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

import graphc
from benchmarks import cards, cuda_report, report
from benchmarks.processes import ROOT, write_bytecode
from benchmarks.results import Results, Row
from benchmarks.session import BUSY_CORE, CUDA_FIRST_STEPS, FIRST_STEPS, Options, Session
from benchmarks.workload import CUDA_SYSTEMS, SYSTEMS
from benchmarks.workloads import workloads

EXTRAS = ("first-step", "busy-core", "import")


def revision() -> str:
    """Which graphc it is: the commit, where there is one."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return f"graphc {graphc.__version__}"
    return f"commit {done.stdout.strip()}"


def machine_facts(device: str) -> dict[str, Any]:
    """What the numbers depend on: processor, cores, system and Python, and the card."""
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
        "revision": f"{revision()}, {datetime.date.today().isoformat()}",
        **(cards.facts() if device == "cuda" else {}),
    }


def numbers(text: str) -> list[int]:
    """Positive integers between commas."""
    values = [int(part) for part in text.split(",")]
    if any(value < 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: numbers must be positive")
    return values


def names(text: str) -> list[str]:
    """Names of systems between commas."""
    chosen, every = text.split(","), tuple(dict.fromkeys((*SYSTEMS, *CUDA_SYSTEMS)))
    if unknown := [name for name in chosen if name not in every]:
        raise argparse.ArgumentTypeError(f"no system {', '.join(unknown)}; there are {', '.join(every)}")
    return chosen


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="workloads, also as patterns; 'first-step', 'busy-core', 'import'"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it runs (cpu)")
    parser.add_argument("--quick", action="store_true", help="one short round: to see that everything works")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: to see that everything works")
    parser.add_argument("--threads", type=numbers, default=None, help="numbers of threads (1,2; on a GPU 1)")
    parser.add_argument("--peers", type=names, help=f"systems ({','.join(SYSTEMS)}; on a GPU {','.join(CUDA_SYSTEMS)})")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="the interpreter of the systems other than graphc"
    )
    parser.add_argument("--rounds", type=int, help="turns of each system (7; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of a turn (0.3; quick: 0.05)")
    parser.add_argument(
        "--timeout", type=float, default=600.0, help="seconds that a system may take for one answer (600)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the page and plots go (docs, if all is run)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.add_argument(
        "--continue", dest="old", action="store_true", help="keep what the --json file has of other workloads"
    )
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from the --json file")
    parser.add_argument("--revision", help="which graphc it is, where git does not know")
    parser.add_argument("--list", action="store_true", help="print the names of all workloads")
    chosen = parser.parse_args()
    on_gpu = chosen.device == "cuda"
    every = list(CUDA_SYSTEMS if on_gpu else SYSTEMS)
    chosen.peers = chosen.peers or every
    chosen.threads = chosen.threads or ([1] if on_gpu else [1, 2])
    chosen.all = [*workloads(chosen.tiny, chosen.device), *(EXTRAS[:1] if on_gpu else EXTRAS)]
    chosen.names = chosen.all
    if chosen.only:
        if unknown := [p for p in chosen.only if not fnmatch.filter(chosen.all, p)]:
            parser.error(f"no workload {', '.join(unknown)}; --list prints their names")
        chosen.names = [name for name in chosen.all if any(fnmatch.fnmatch(name, p) for p in chosen.only)]
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be positive")
    if chosen.output is None and not (chosen.only or chosen.quick or chosen.tiny or chosen.peers != every):
        chosen.output = ROOT / "docs"
    if chosen.page:
        chosen.old, chosen.names = True, []
    if chosen.old and chosen.json is None:
        parser.error("--continue and --page need the --json file")
    return chosen


def line(row: Row, systems: list[str]) -> str:
    """One line of the table that is printed as it goes."""
    times = [
        "failed" if name in row.failures else report.number(row.median_s.get(name, float("nan")) * 1e6)
        for name in systems
    ]
    ratio, share = row.faster(row.ours(), row.best_peer()), row.share(row.ours())
    cells = [*times, report.number(ratio), report.percent(share)]
    return f"{row.workload:<24}{row.threads:>3}" + "".join(f"{cell:>16}" for cell in cells)


def save(results: Results, chosen: argparse.Namespace) -> None:
    """Writes what is there so far."""
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(dataclasses.asdict(results)), encoding="utf-8")
    if chosen.output is not None:
        (cuda_report if chosen.device == "cuda" else report).write(results, chosen.output)


def main() -> int:
    """Runs the benchmark; 0 when graphc did everything and agrees with the others, 1 otherwise."""
    chosen = options()
    if chosen.list:
        print("\n".join(chosen.all))
        return 0
    console = Console(soft_wrap=True, highlight=False, markup=False)
    settings = Options(
        systems=chosen.peers,
        rounds=chosen.rounds or (1 if chosen.quick else 7),
        seconds=chosen.seconds or (0.05 if chosen.quick else 0.3),
        timeout=chosen.timeout,
        peer_python=chosen.peer_python,
        tiny=chosen.tiny,
        device=chosen.device,
    )
    results = Results(machine_facts(chosen.device), {"rounds": settings.rounds, "seconds": settings.seconds})
    if chosen.revision:
        results.machine["revision"] = f"{chosen.revision}, {datetime.date.today().isoformat()}"
    if chosen.old and chosen.json.exists():
        found = Results.read(chosen.json.read_text(encoding="utf-8"))
        fresh = {"machine": results.machine, "settings": results.settings, "left_out": {}}
        results = found if chosen.page else dataclasses.replace(found, **fresh)
    run(Session(settings, results, note=lambda text: console.print(f"  {text}")), chosen, console)
    save(results, chosen)
    failed = results.ours_failed()
    for text in failed:
        console.print(text, style="red")
    return 1 if failed else 0


def run(session: Session, chosen: argparse.Namespace, console: Console) -> None:
    """Measures what was chosen and prints it line by line."""
    settings, results, every = session.options, session.results, workloads(chosen.tiny, chosen.device)
    section = ""
    write_bytecode()
    for name in [name for name in chosen.names if name not in EXTRAS]:
        if every[name].section != section:
            section = every[name].section
            heads = [*settings.systems, "to best peer", "of roofline"]
            console.print(f"\n{section}, µs\n{'':<27}" + "".join(f"{head:>16}" for head in heads), style="bold")
        for row in session.measure(every[name], chosen.threads):
            console.print(line(row, settings.systems))
            save(results, chosen)
    if "first-step" in chosen.names:
        console.print("\nfirst steps", style="bold")
        steps = CUDA_FIRST_STEPS if chosen.device == "cuda" else FIRST_STEPS
        for name in [name for name in steps if name in every]:
            session.first_steps(every[name], max(chosen.threads))
            console.print(f"{name}: {results.first_steps.get(name)}")
            save(results, chosen)
    if "busy-core" in chosen.names:
        console.print("\nbeside a busy CPU", style="bold")
        for name in [name for name in BUSY_CORE if name in every]:
            session.busy_core(every[name], max(chosen.threads))
            console.print(f"{name}: {results.busy_core.get(name)}")
            save(results, chosen)
    if "import" in chosen.names:
        session.imports()
        console.print(f"\nimport, seconds: {results.imports}")


if __name__ == "__main__":
    sys.exit(main())
