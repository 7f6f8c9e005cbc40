"""The code blocks of five PyTorch tutorials, run in order as a notebook runs them.

Blocks stand in `documents/*.txt`, one document a file, as they were published, comments in other languages left out:

- pytorch_for_beginners: medium.com/mlearning-ai/pytorch-for-beginners-62c3fcd75f69
- learning_pytorch: a blog post of 2019 of the same title
- pytorch_the_basics: medium.datadriveninvestor.com/pytorch-the-basics-7005e71cdb83
- what_is_pytorch: notes of github.com/poowicat, 2022
- pytorch_basics_course: the Datawhale course after PyTorch's 60-minute tutorial
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("documents")
DOCUMENTS = tuple(sorted(p.stem for p in FOLDER.glob("*.txt")))


@dataclass(frozen=True)
class Repair:
    """A slip of a document that no library could run: what stands there, what it becomes, and why."""

    document: str
    block: int
    before: str  # empty: `after` is put in front of the block
    after: str
    why: str


REPAIRS = (
    Repair("learning_pytorch", 8, "print(y.creator)", 'print(hasattr(y, "creator"))', "gone from PyTorch, as it says"),
    Repair("learning_pytorch", 19, "dataiter.next()", "next(dataiter)", "iterators lost `next` in PyTorch 1.13"),
    Repair("learning_pytorch", 19, "download=True", "download=False", "the test lays out the files by itself"),
    Repair("learning_pytorch", 19, "num_workers=2", "num_workers=0", "a notebook cell has no module to start from"),
    Repair("pytorch_for_beginners", 10, "t.numpy()", "torch.tensor(arr).numpy()", "t is defined only later"),
    Repair("pytorch_for_beginners", 22, "batch = 10m = 30", "batch = 10\nm = 30", "a line end is lost"),
    Repair(
        "pytorch_the_basics",
        0,
        "*torch.nn.Autograd.Function*",
        "import torch\ntorch.autograd.Function.__name__",
        "emphasis marks, a wrong module",
    ),
    Repair("pytorch_the_basics", 1, "", "a, b = torch.ones(2, 3), torch.full((2, 3), 2.0)\n", "not defined"),
    Repair("pytorch_the_basics", 2, "#torch.nm(a,b)", "torch.mm(a, b.T)", "the heading names torch.mm"),
    Repair("pytorch_the_basics", 6, "**=**", "=", "emphasis marks"),
    Repair("pytorch_the_basics", 6, "", "self = nn.Module()\n", "lines of a class without the class"),
    Repair("pytorch_the_basics", 7, "", "input_size, hidden_sizes, output_size = 8, (6, 4), 3\n", "not defined"),
    Repair("pytorch_the_basics", 8, "nn.LogSoftmax()", "nn.LogSoftmax(dim=1)", "without dim PyTorch guesses and warns"),
    Repair(
        "pytorch_the_basics",
        9,
        "",
        "loss = nn.NLLLoss()(criterion(model(torch.randn(5, 8))), torch.tensor([0, 1, 2, 0, 1]))\n",
        "not defined",
    ),
    Repair(
        "pytorch_the_basics",
        10,
        "",
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\noptimizer.step()\n",
        "not defined",
    ),
    Repair("what_is_pytorch", 5, "yshape", "shape", "the next line calls it shape"),
    Repair("what_is_pytorch", 9, "torch.cuda,is_avalible()", "torch.cuda.is_available()", "misspelt"),
    Repair("what_is_pytorch", 9, "rensor = tensor.to('coda')", "tensor = tensor.to('cuda')", "misspelt"),
    Repair("pytorch_basics_course", 14, "number：", "", "a word of the sentence before"),
)

# Blocks that show what the code before them printed; they are compared with what it prints here.
OUTPUTS = {
    ("learning_pytorch", 5): 4,
    ("learning_pytorch", 7): 6,
    ("learning_pytorch", 11): 10,
    ("learning_pytorch", 14): 13,
}
# Such blocks with random numbers, an address or misspelt text.
OTHER_OUTPUTS = {
    *(("learning_pytorch", n) for n in (9, 16, 18)),
    *(("what_is_pytorch", n) for n in (4, 6, 8, 11)),
}
# Blocks that show memory which nobody has set: only shapes and dtypes are compared.
ARBITRARY = {
    ("learning_pytorch", 0),
    ("learning_pytorch", 3),
    ("pytorch_for_beginners", 3),
    ("pytorch_for_beginners", 4),
    ("pytorch_basics_course", 1),
}
# Blocks that need files or packages; tests of their own run them.
ELSEWHERE = {("learning_pytorch", 19)}


def published(document: str) -> list[str]:
    """The blocks of a document as they were published."""
    text = (FOLDER / f"{document}.txt").read_text(encoding="utf-8")
    return [part.partition("\n")[2].rstrip() for part in text.split("# %% ")[1:]]


def blocks(document: str) -> Iterator[tuple[int, str]]:
    """Number and repaired code of each block that is code and runs here."""
    for number, code in enumerate(published(document)):
        key = (document, number)
        if key not in OUTPUTS and key not in OTHER_OUTPUTS and key not in ELSEWHERE:
            yield number, repaired(document, number, code)


def repaired(document: str, number: int, code: str) -> str:
    """`code` with the repairs of its block."""
    for repair in REPAIRS:
        if (repair.document, repair.block) == (document, number):
            assert repair.before in code, f"{repair} has nothing to repair"
            code = code.replace(repair.before, repair.after) if repair.before else repair.after + code
    return code


def for_graphc(code: str) -> str:
    """`code` with the library's name changed in its import lines, and nowhere else."""
    lines = []
    for line in code.splitlines():
        if re.match(r"\s*(import|from)\s+torch", line):
            line = re.sub(r"\btorchvision\b(?!.*\bas\b)(?=\s*$)", "torchvision as torchvision", line)
            line = re.sub(r"\btorch(?=\s*$)", "torch as torch", line)
            line = re.sub(r"^(\s*(?:import|from)\s+)torchvision", r"\1graphc.vision", line)
            line = re.sub(r"^(\s*(?:import|from)\s+)torch\b", r"\1graphc", line)
        lines.append(line)
    return "\n".join(lines)


def run(code: str, space: dict[str, Any]) -> str:
    """Run one block as a notebook does: what it prints, then the value of a last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(tree, "block", "exec"), space)  # noqa: S102  the blocks are what is tested
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "block", "eval"), space)  # noqa: S307
            if value is not None:
                print(repr(value))
    return re.sub(r"0x[0-9a-fA-F]+", "0x0", printed.getvalue())


def masked(text: str) -> str:
    """`text` with numbers replaced and spaces made single: the form of random output."""
    numbers = re.sub(r"-?(\d+\.?\d*(e[+-]\d+)?|inf|nan)", "N", text)
    return re.sub(r"\s+", " ", numbers).replace("[ ", "[").strip()


def facts(space: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What can be said of the tensors among the variables."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in sorted(space.items()):
        if type(value).__name__ in ("Tensor", "Parameter") and hasattr(value, "requires_grad"):
            flat = value.detach().double().reshape(-1)
            found[name] = {
                "dtype": str(value.dtype),
                "shape": list(value.shape),
                "requires_grad": value.requires_grad,
                "low": float(flat.min().item()),
                "high": float(flat.max().item()),
            }
    return found
