"""An LSTM that reads sequences of changing length, define by run: no decorator, no padding. It learns whether the sum
of a sequence is positive. Programs are compiled for the first lengths, and found again when these come back; other
lengths are run by NumPy until they have come often enough.
"""

import numpy as np

import graphc as torch
import graphc.nn as nn

torch.manual_seed(0)
rng = np.random.default_rng(0)


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 12, batch_first=True)
        self.head = nn.Linear(12, 1)

    def forward(self, x):
        _, (hidden, _) = self.lstm(x)
        return self.head(hidden[-1]).squeeze(-1)


net = Reader()
optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
criterion = nn.BCEWithLogitsLoss()
programs = []

for epoch in range(4):
    total = 0.0
    for step in range(40):
        length = 2 + step % 4
        x = rng.standard_normal((32, length, 1)).astype(np.float32)
        inputs, labels = torch.tensor(x), torch.tensor((x.sum((1, 2)) > 0).astype(np.float32))
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    programs.append(torch.counters()["programs_built"])
    print(f"epoch {epoch + 1}: loss {total / 40:.4f}")

print(f"new programs after the first epoch: {programs[-1] - programs[0]}")
print(f"runs of programs by NumPy, which had not come often enough: {torch.counters()['interpreted']}")
print(f"operators without a kernel, which always run on the host: {torch.counters()['host_calls']}")
