"""Work that goes on while the interpreter ends: threads that outlive the script, and functions of `atexit`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

AFTER = {
    "thread": """
import threading
def work():
    threading.main_thread().join()
    print((graphc.ones(7, 123) * 2).softmax(0).sum().item())
threading.Thread(target=work).start()
""",
    "atexit": """
import atexit
atexit.register(lambda: print((graphc.ones(7, 123) * 2).softmax(0).sum().item()))
""",
}


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("first", ["", "graphc.ones(600, 600).sum().item()"], ids=["first", "used"])
def test_programs_are_compiled_at_the_end(after: str, first: str, tmp_path: Path) -> None:
    script = f"import graphc\ngraphc.set_num_threads(2)\n{first}\n{AFTER[after]}"
    environment = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path)}
    for _ in ("compiled", "from the cache"):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert float(done.stdout) == pytest.approx(123, rel=1e-5)
