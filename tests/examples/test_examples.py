"""Each example runs in a process of its own and prints what its text says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *arguments: str, cache: Path) -> str:
    path = os.pathsep.join((str(ROOT), str(ROOT / "runtime")))
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        env={**os.environ, "PYTHONPATH": path, "GRAPHC_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def losses(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"^epoch \d+: loss ([\d.]+)", text, re.MULTILINE)]


def accuracy(text: str) -> float:
    found = re.search(r"^test accuracy: ([\d.]+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def test_trace_and_print(cache: Path) -> None:
    text = run("01_trace_and_print.py", cache=cache)
    assert text.count("graph @") == 2, text
    assert "contract" in text and "inputs ['f32[4,3]', 'f32[3,2]']" in text
    assert re.search(r"^value: \d+\.\d+$", text, re.MULTILINE)


def test_gradients(cache: Path) -> None:
    text = run("02_gradients.py", cache=cache)
    assert "6x: tensor([ 6., 12., 18.])" in text
    assert "3x²: tensor([ 3., 12., 27.])" in text
    assert text.count("tensor([ 6., 12., 18.])") == 2
    assert "value and gradient: 36.0 tensor([ 3., 12., 27.])" in text
    assert "vjp: tensor([2., 4., 6.])" in text


def test_train_lenet_plainly(cache: Path) -> None:
    text = run("03_train_lenet.py", cache=cache)
    assert "(conv1): Conv2d(1, 6, kernel_size=(3, 3), stride=(1, 1))" in text
    found = losses(text)
    assert len(found) == 4 and found[-1] < 0.5 * found[0]
    assert accuracy(text) > 0.9


def test_train_lenet_compiled(cache: Path) -> None:
    text = run("04_train_lenet_compiled.py", cache=cache)
    found = losses(text)
    assert len(found) == 12 and found[-1] < 0.05
    assert accuracy(text) >= 0.97
    assert text.splitlines()[-1] == "captures of the step: 1, replays: 527"


def test_write_a_pass(cache: Path) -> None:
    text = run("05_write_a_pass.py", cache=cache)
    assert "multiplications: 3 -> 2" in text
    assert "nothing left to do: True" in text


def test_custom_function(cache: Path) -> None:
    text = run("06_custom_function.py", cache=cache)
    assert "gradient at the rounded values: tensor([ 0.,  4., -4.])" in text
    assert "rounded: [0.0, 2.0, -2.0]" in text
    assert "gradient of the weights: tensor([ 0.,  4., -4.])" in text
    assert "gradient of the norm at zero: tensor([0., 0.])" in text
    assert "gradcheck: True" in text
    found = re.search(r"second derivative: \[(.*), (.*)\]", text)
    assert found and abs(float(found[1]) - 0.128) < 1e-9 and abs(float(found[2]) + 0.096) < 1e-9


def test_classify_pictures(cache: Path) -> None:
    text = run("08_classify_pictures.py", cache=cache)
    values = losses(text)
    assert len(values) == 4 and values[-1] < values[0] / 3
    found = re.search(r"^accuracy on 200 test pictures: ([\d.]+) %$", text, re.MULTILINE)
    assert found and float(found[1]) > 90


def test_picture_grid(cache: Path, tmp_path: Path) -> None:
    text = run("09_picture_grid.py", str(tmp_path / "grid.png"), cache=cache)
    assert "batch (24, 1, 16, 16) -> picture (3, 56, 146)" in text
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (146, 56) and len(set(picture.tobytes())) > 100
    assert f"wrote {tmp_path / 'grid.png'}, " in text
    assert "wrote" not in run("09_picture_grid.py", cache=cache)


def test_lstm_of_any_length(cache: Path) -> None:
    text = run("07_lstm_of_any_length.py", cache=cache)
    found = losses(text)
    assert len(found) == 4 and found[-1] < 0.6 * found[0]
    assert "new programs after the first epoch: 0" in text
    assert re.search(r"^runs of programs by NumPy, .*: \d+$", text, re.MULTILINE)
    assert "operators without a kernel, which always run on the host: 0" in text


def test_transformer_text(cache: Path) -> None:
    text = run("10_transformer_text.py", cache=cache)
    found = losses(text)
    assert len(found) == 5 and found[-1] < 0.5 * found[0]
    assert "operators that ran on the host: 0" in text
