"""Settings of the whole test run: a kernel cache of its own, shared by the workers and removed at the end."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

if "GRAPHC_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="graphc-tests-")
    os.environ["GRAPHC_CACHE_DIR"] = folder  # workers and child processes inherit it
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
