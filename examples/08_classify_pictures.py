"""The picture classifier of PyTorch's tutorial, on files in CIFAR-10's binary format.

With the published data set: `python examples/08_classify_pictures.py DATA_FOLDER` (add `--download` to fetch it).
Without a folder it makes a small data set of that format, in which each class has a colour and a pattern of its own.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim as optim
from graphc.utils.data import DataLoader
from graphc.vision import datasets, transforms


def make_files(folder: Path, per_file: int = 200) -> None:
    """Noisy stripes: the class decides colour, direction and width."""
    rng = np.random.default_rng(0)
    place = np.arange(32)
    for name in (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list):
        labels = rng.integers(0, 10, per_file)
        along = np.where((labels % 2 == 0)[:, None, None], place[None, :, None], place[None, None, :])
        stripes = np.sin(along * (0.3 + 0.1 * labels)[:, None, None]) > 0
        colour = np.stack([labels % 3, labels % 4, labels % 5], 1) * 40 + 40
        pictures = stripes[:, None] * colour[:, :, None, None] + rng.normal(0, 25, (per_file, 3, 32, 32)) + 30
        pixels = pictures.clip(0, 255).astype(np.uint8).reshape(per_file, -1)
        records = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
        folder.mkdir(parents=True, exist_ok=True)
        records.tofile(folder / name)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def train(root: str, download: bool, epochs: int) -> float:
    """Trains and gives the share of test pictures that are classified rightly."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    trainset = datasets.CIFAR10(root=root, train=True, download=download, transform=transform)
    testset = datasets.CIFAR10(root=root, train=False, download=download, transform=transform)
    trainloader = DataLoader(trainset, batch_size=20, shuffle=True, num_workers=2, drop_last=True)
    testloader = DataLoader(testset, batch_size=20, num_workers=2, drop_last=True)
    net = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(epochs):
        running_loss = 0.0
        for inputs, labels in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        print(f"epoch {epoch + 1}: loss {running_loss / len(trainloader):.3f}")
    correct = total = 0
    with torch.no_grad():
        for images, labels in testloader:
            predicted = net(images).argmax(dim=1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    print(f"accuracy on {total} test pictures: {100 * correct / total:.1f} %")
    return correct / total


def main() -> None:
    torch.manual_seed(0)
    folders = [a for a in sys.argv[1:] if not a.startswith("--")]
    if folders:
        train(folders[0], "--download" in sys.argv, epochs=2)
        return
    with tempfile.TemporaryDirectory() as root:
        make_files(Path(root) / "cifar-10-batches-bin")
        accuracy = train(root, download=False, epochs=4)
        assert accuracy > 0.5, "the classes are easy to tell apart"


if __name__ == "__main__":
    main()
