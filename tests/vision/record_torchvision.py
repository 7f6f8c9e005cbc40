"""Write `torchvision_results.json`: what torchvision gives for each of `cases.py`. Run it with a Python that has it.

python -m tests.vision.record_torchvision
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.vision.cases import REPRS, cases, outcome, repr_of

FILE = Path(__file__).with_name("torchvision_results.json")

if __name__ == "__main__":
    import torch
    from torchvision import transforms, utils

    results = {name: outcome(case(transforms, utils, torch.tensor)) for name, case in cases().items()}
    reprs = {text: repr_of(text, transforms) for text in REPRS}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in results.items()]
    FILE.write_text('{"results": {\n' + ",\n".join(lines) + '},\n"reprs": ' + json.dumps(reprs, indent=0) + "}\n")
