"""Train LeNet on handwritten digits, plainly, as a PyTorch user would write it: replace `graphc` by `torch` in the
imports, and the data by torchvision's, and it runs there.
"""

import sys

from lenet import Net

import graphc as torch
import graphc.nn as nn
import graphc.optim as optim
from graphc.utils.data import DataLoader
from graphc.vision.datasets import Digits

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 4

torch.manual_seed(0)
train_loader = DataLoader(Digits(train=True), batch_size=32, shuffle=True, drop_last=True)
test_loader = DataLoader(Digits(train=False), batch_size=360)

net = Net()
print(net)
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(net.parameters(), lr=0.02, momentum=0.9)

for epoch in range(epochs):
    net.train()
    running_loss = 0.0
    for images, labels in train_loader:
        optimizer.zero_grad()
        loss = criterion(net(images), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    print(f"epoch {epoch + 1}: loss {running_loss / len(train_loader):.4f}")

net.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in test_loader:
        predicted = net(images).argmax(dim=1)
        correct += (predicted == labels).sum().item()
        total += labels.size(0)
print(f"test accuracy: {correct / total:.4f}")
