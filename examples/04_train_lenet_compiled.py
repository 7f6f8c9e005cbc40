"""Train LeNet with `graphc.compile`: the whole step, optimizer included, is captured once and replayed as one native
call.

The learning rate falls along a cosine; it is a run-time value of the compiled step, so the step is compiled once.
"""

import sys

from lenet import Net

import graphc as torch
import graphc.nn as nn
import graphc.optim as optim
from graphc.utils.data import DataLoader
from graphc.vision.datasets import Digits

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 12

torch.manual_seed(0)
train_loader = DataLoader(Digits(train=True), batch_size=32, shuffle=True, drop_last=True)
test = Digits(train=False)

net = Net()
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)


@torch.compile
def step(images, labels):
    optimizer.zero_grad()
    loss = criterion(net(images), labels)
    loss.backward()
    optimizer.step()
    return loss


for epoch in range(epochs):
    total = torch.zeros(())
    for images, labels in train_loader:
        total += step(images, labels).detach()
    print(
        f"epoch {epoch + 1}: loss {total.item() / len(train_loader):.4f}, learning rate {schedule.get_last_lr()[0]:.4f}"
    )
    schedule.step()

net.eval()
with torch.no_grad():
    accuracy = (net(test.data).argmax(dim=1) == test.targets).float().mean().item()
print(f"test accuracy: {accuracy:.4f}")
counted = torch.counters()
print(f"captures of the step: {counted['captures']}, replays: {counted['replays']}")
