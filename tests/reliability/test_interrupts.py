"""Ctrl-C ends loops whose time is spent in native code, and leaves everything usable."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, threading, time
import graphc

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored, as for jobs in the background
x = graphc.ones(700, 700)
w = graphc.ones(200, 200, requires_grad=True)
optimizer = graphc.optim.SGD([w], 1e-3)


def step():
    optimizer.zero_grad()
    loss = (w @ w).square().mean()
    loss.backward()
    optimizer.step()
    return loss


product = graphc.compile(lambda a: (a @ a).sum())
KINDS = {"call": lambda: product(x).item(), "plain": lambda: step().item(), "compiled": graphc.compile(step)}
run = KINDS[KIND]
for _ in range(8):
    run()
raised = 0
for _ in range(20):
    sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    sender.start()
    end = time.monotonic() + 5
    try:
        while time.monotonic() < end:
            run()
    except KeyboardInterrupt:
        raised += 1
    sender.join()
print(raised, float(product(x)))
"""


@pytest.mark.parametrize("kind", ["call", "plain", "compiled"])
def test_an_interrupt_ends_the_loop(kind: str) -> None:
    """One that comes between two bytecodes of a finalizer is lost, as in all of Python: most are not."""
    script = f"KIND = {kind!r}\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    raised, total = done.stdout.split()
    assert int(raised) >= 15 and float(total) == 700.0**3
