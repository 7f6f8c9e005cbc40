"""A batch of handwritten digits as one picture: `python examples/09_picture_grid.py [FILE.png]`."""

import sys
from pathlib import Path

import graphc as torch
from graphc.utils.data import DataLoader
from graphc.vision import datasets, utils

torch.manual_seed(0)
loader = DataLoader(datasets.Digits(size=16), batch_size=24, shuffle=True)
images, labels = next(iter(loader))
grid = utils.make_grid(images, nrow=8, normalize=True, pad_value=0.5)
print("batch", tuple(images.shape), "-> picture", tuple(grid.shape))
for row in labels.view(3, 8).tolist():
    print(" ".join(map(str, row)))

if len(sys.argv) > 1:
    path = Path(sys.argv[1])
    utils.save_image(images, path, nrow=8, normalize=True, pad_value=0.5)
    print(f"wrote {path}, {path.stat().st_size} bytes")
else:
    print("name a file to write the picture: python examples/09_picture_grid.py grid.png")
