"""`graphc profile`: where a program spends its time, kernel by kernel, and what it keeps in memory."""

from __future__ import annotations

from dataclasses import asdict

import click

from graphc.cli.common import counted, json_option, note, size_text, to_json, write_text
from graphc.cli.devices import check_device
from graphc.cli.trace import graphs_of
from graphc.device_profiling import profile_on_device
from graphc.profiling import KernelTime, Profile, profile_graph
from graphc_runtime import get_num_threads, set_num_threads


@click.command("profile")
@click.argument("target", metavar="FILE.py:NAME|FILE.gir|-")
@click.option("--args", "arguments", default="", metavar="TYPES", help='Types of the arguments: "x=f32[64,1,32,32]".')
@click.option("--grad", is_flag=True, help="Append the gradients by every float input.")
@click.option("--runs", default=20, show_default=True, type=click.IntRange(1), help="Runs to take medians over.")
@click.option("--device", default="cpu", metavar="DEVICE", show_default=True, help="Where to run: cpu, cuda, cuda:1.")
@click.option("--threads", type=click.IntRange(1), help="Threads to use; as many as there are cores by default.")
@click.option("--top", default=20, show_default=True, type=click.IntRange(1), help="Kernels to show.")
@click.option("--memory", is_flag=True, help="Show the memory plan too: where each value lies.")
@json_option
def profile_command(
    target: str,
    arguments: str,
    grad: bool,
    runs: int,
    device: str,
    threads: int | None,
    top: int,
    memory: bool,
    as_json: bool,
) -> None:
    """Compile NAME in FILE.py, or graphs in text form, run them on random inputs, and show the slowest kernels.

    Times are medians, measured within the program; a run is longer than all kernels by what starting it takes.
    Arithmetic and traffic are what the compiler counts for a kernel; traffic counts each buffer once.
    """
    check_device(device)
    graphs = graphs_of(target, arguments, grad, device)
    if device != "cpu":
        profiles = [profile_on_device(graph, device, runs) for graph in graphs]
        note(f"{device}, median of {counted(runs, 'run')}")
        if as_json:
            write_text("-", to_json({"device": device, "profiles": [asdict(p) for p in profiles]}))
        else:
            write_text("-", "\n\n".join(_text(p, top, memory) for p in profiles))
        return
    before = get_num_threads()
    set_num_threads(threads or before)
    try:
        profiles = [profile_graph(graph, runs) for graph in graphs]
    finally:
        set_num_threads(before)
    note(f"{counted(threads or before, 'thread')}, median of {counted(runs, 'run')}")
    if as_json:
        write_text("-", to_json({"threads": threads or before, "profiles": [asdict(p) for p in profiles]}))
    else:
        write_text("-", "\n\n".join(_text(p, top, memory) for p in profiles))


def _text(profile: Profile, top: int, memory: bool) -> str:
    inside = sum(step.seconds for step in profile.steps)
    whole = max(profile.seconds, inside)
    lines = [
        f"@{profile.name}: {whole * 1e6:.2f} us a run, {counted(len(profile.steps), 'step')}",
        f"memory: inputs {size_text(profile.input_bytes)}, outputs {size_text(profile.output_bytes)}, "
        f"intermediates {size_text(profile.arena_bytes)}",
        "",
        f"{'us':>10}  {'share':>5}  {'GFLOP/s':>8}  {'GB/s':>7}  kernel",
    ]
    ranked = sorted(profile.steps, key=lambda step: -step.seconds)
    for step in ranked[:top]:
        lines.append(_line(step, whole))
        if step.lines:
            lines.append(f"{'':38}at {', '.join(step.lines[:3])}{' ...' if len(step.lines) > 3 else ''}")
    rest = ranked[top:]
    if rest:
        lines.append(_rest(sum(step.seconds for step in rest), whole, counted(len(rest), "more step")))
    lines.append(_rest(whole - inside, whole, "outside the kernels: starting the run; medians do not quite add up"))
    return "\n".join([*lines, *(["", profile.plan] if memory else [])])


def _line(step: KernelTime, whole: float) -> str:
    seconds = max(step.seconds, 1e-12)
    rate = f"{step.flops / seconds / 1e9:8.1f}" if step.flops else f"{'':8}"
    return f"{_share(step.seconds, whole)}  {rate}  {step.bytes / seconds / 1e9:7.1f}  {step.operators}"


def _rest(seconds: float, whole: float, what: str) -> str:
    return f"{_share(seconds, whole)}  {'':8}  {'':7}  {what}"


def _share(seconds: float, whole: float) -> str:
    return f"{seconds * 1e6:10.2f}  {seconds / whole if whole else 0.0:5.1%}"
