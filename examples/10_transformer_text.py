"""A small transformer that learns to go on with a text, letter by letter, and then writes some of it by itself."""

import numpy as np

import graphc as torch
import graphc.nn as nn

TEXT = (
    "a tensor is a view of memory. a graph is a record of what to do. the compiler reads the graph, joins what belongs "
    "together, and writes one program for all of it. what was seen before is found again. "
)
CONTEXT = 16
letters = sorted(set(TEXT))
codes = np.array([letters.index(letter) for letter in TEXT * 2])

torch.manual_seed(0)
rng = np.random.default_rng(0)


class Writer(nn.Module):
    def __init__(self, size=32):
        super().__init__()
        self.letters = nn.Embedding(len(letters), size)
        self.places = nn.Embedding(CONTEXT, size)
        layer = nn.TransformerEncoderLayer(size, nhead=4, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=1)
        self.head = nn.Linear(size, len(letters))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))
        self.register_buffer("numbers", torch.arange(CONTEXT))

    def forward(self, x):
        x = self.letters(x) + self.places(self.numbers)
        return self.head(self.encoder(x, mask=self.mask, is_causal=True))


net = Writer()
optimizer = torch.optim.AdamW(net.parameters(), lr=0.005)
for epoch in range(5):
    total = 0.0
    for _ in range(60):
        starts = rng.integers(0, len(TEXT), 16)
        batch = np.stack([codes[start : start + CONTEXT + 1] for start in starts])
        optimizer.zero_grad()
        scores = net(torch.tensor(batch[:, :-1]))
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), torch.tensor(batch[:, 1:]).flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch + 1}: loss {total / 60:.4f}")

net.eval()
written = list(codes[:CONTEXT])
with torch.no_grad():
    for _ in range(60):
        scores = net(torch.tensor(np.array(written[-CONTEXT:]))[None])
        written.append(scores[0, -1].argmax().item())
print("".join(letters[code] for code in written))
print(f"operators that ran on the host: {torch.counters()['host_calls']}")
