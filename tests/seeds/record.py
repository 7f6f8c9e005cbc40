"""Write `recorded.json`: what PyTorch prints for each block, and the range of its tensors.

Run it with a Python that has PyTorch: python -m tests.seeds.record
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.seeds.documents import ARBITRARY, DOCUMENTS, blocks, facts, masked, run

FILE = Path(__file__).with_name("recorded.json")
RUNS = 40  # with different seeds: what differs between them is random


def once(document: str, seed: int) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    import torch

    torch.manual_seed(seed)
    space: dict[str, Any] = {"__name__": "__main__"}
    # A seed that a document sets would make its numbers PyTorch's own; random they are all the same.
    codes = [code.replace("manual_seed(7)", f"manual_seed({seed})") for _, code in blocks(document)]
    return [(run(code, space), facts(space)) for code in codes]


def record(document: str) -> dict[str, dict[str, Any]]:
    runs = [once(document, seed) for seed in range(RUNS)]
    result: dict[str, dict[str, Any]] = {}
    for place, (number, _) in enumerate(blocks(document)):
        texts = [r[place][0] for r in runs]
        entry: dict[str, Any] = {"kind": "exact", "text": texts[0]}
        if (document, number) in ARBITRARY:
            entry = {"kind": "arbitrary", "text": ""}
        elif len(set(texts)) > 1:
            entry = {"kind": "random", "text": masked(texts[0])}
            assert len(set(map(masked, texts))) == 1, (document, number, set(map(masked, texts)))
        tensors = runs[0][place][1]
        for name, fact in tensors.items():
            fact["low"] = min(r[place][1][name]["low"] for r in runs)
            fact["high"] = max(r[place][1][name]["high"] for r in runs)
            fact["random"] = len({(r[place][1][name]["low"], r[place][1][name]["high"]) for r in runs}) > 1
        entry["tensors"] = tensors
        result[str(number)] = entry
    return result


if __name__ == "__main__":
    results = {document: record(document) for document in DOCUMENTS}
    lines = [
        f'"{document}": {{\n' + ",\n".join(f'"{n}": {json.dumps(e, sort_keys=True)}' for n, e in entries.items()) + "}"
        for document, entries in results.items()
    ]
    FILE.write_text("{" + ",\n".join(lines) + "}\n")
