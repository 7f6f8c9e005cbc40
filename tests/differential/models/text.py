"""Language models: a GPT, an LSTM with weights tied, a translator with attention, a tagger of packed sequences."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from tests.differential.models.base import Make, Model, Rng, below


def gpt(torch: Any, fused: bool) -> Model:
    """Causal attention written out or `scaled_dot_product_attention`, tied embeddings, two groups of parameters, a
    schedule, and generation that cuts a cat of what was generated."""
    nn, functional = torch.nn, torch.nn.functional
    width, heads, most, words = 32, 4, 8, 50

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.Linear(width, 3 * width, bias=False)
            self.project = nn.Linear(width, width, bias=False)
            self.register_buffer("mask", torch.tril(torch.ones(most, most)).view(1, 1, most, most))

        def forward(self, x: Any) -> Any:
            batch, time, _ = x.size()
            split = self.attend(x).split(width, dim=2)
            q, k, v = (part.view(batch, time, heads, width // heads).transpose(1, 2) for part in split)
            if fused:
                y = functional.scaled_dot_product_attention(q, k, v, dropout_p=0.0, is_causal=True)
            else:
                scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
                scores = scores.masked_fill(self.mask[:, :, :time, :time] == 0, float("-inf"))
                y = functional.softmax(scores, dim=-1) @ v
            return self.project(y.transpose(1, 2).contiguous().view(batch, time, width))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.attention = nn.LayerNorm(width, bias=False), Attention()
            self.between = nn.LayerNorm(width)
            self.mlp = nn.ModuleDict(
                {"up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width), "act": nn.GELU()}
            )

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.before(x))
            return x + self.mlp.down(self.mlp.act(self.mlp.up(self.between(x))))

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(words, width), nn.Embedding(most, width)
            self.blocks = nn.ModuleList([Block() for _ in range(2)])
            self.last, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
            self.words.weight = self.head.weight
            self.apply(self._start)

        def _start(self, module: Any) -> None:
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, mean=0.0, std=0.2)

        def forward(self, given: Any, targets: Any = None) -> Any:
            x = self.words(given) + self.places(torch.arange(0, given.size(1), dtype=torch.long))
            for block in self.blocks:
                x = block(x)
            x = self.last(x)
            if targets is None:
                return self.head(x[:, [-1], :])
            return functional.cross_entropy(self.head(x).view(-1, words), targets.view(-1), ignore_index=-1)

        @torch.no_grad()
        def generate(self, given: Any, count: int) -> Any:
            for _ in range(count):
                logits = self(given if given.size(1) <= most else given[:, -most:])[:, -1, :] / 0.8
                best, _ = torch.topk(logits, 5)
                logits[logits < best[:, [-1]]] = -float("Inf")
                given = torch.cat((given, functional.softmax(logits, dim=-1).argmax(-1, keepdim=True)), dim=1)
            return given

    net = Gpt()
    groups = [
        {"params": [p for p in net.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)

    def batch(rng: Rng) -> tuple[Any, ...]:
        data = below(torch, rng, words, 4, 9)
        return data[:, :-1].contiguous(), data[:, 1:].contiguous()

    def step(given: Any, targets: Any) -> Any:
        loss = net(given, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss

    def look() -> list[Any]:
        net.eval()
        return [net.generate(torch.zeros((2, 1), dtype=torch.long), 4)]

    return Model(net, batch, step, schedule.step, look)


def tied_lstm(torch: Any) -> Model:
    """Truncated backpropagation: the state is detached and goes on; the update is written out over `.data`."""
    nn, functional = torch.nn, torch.nn.functional

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.lstm, self.head = nn.Embedding(30, 16), nn.LSTM(16, 16, 2), nn.Linear(16, 30)
            self.head.weight = self.words.weight

        def forward(self, given: Any, state: Any) -> Any:
            found, state = self.lstm(self.words(given), state)
            return functional.log_softmax(self.head(found).view(-1, 30), dim=1), state

    net = Language()
    held = [(torch.zeros(2, 3, 16), torch.zeros(2, 3, 16))]

    def batch(rng: Rng) -> tuple[Any, ...]:
        data = below(torch, rng, 30, 6, 3)
        return data[:-1], data[1:].reshape(-1)

    def step(given: Any, targets: Any) -> Any:
        state = tuple(h.detach() for h in held[0])
        net.zero_grad()
        found, held[0] = net(given, state)
        loss = functional.nll_loss(found, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.25)
        for parameter in net.parameters():
            parameter.data.add_(parameter.grad, alpha=-2.0)
        return loss

    return Model(net, batch, step)


def translator(torch: Any) -> Model:
    """GRUs with additive attention, the decoder step by step, fed with the targets."""
    nn, functional = torch.nn, torch.nn.functional

    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source, self.encoder = nn.Embedding(20, 16), nn.GRU(16, 16, batch_first=True)
            self.query, self.key, self.score = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 1)
            self.target, self.decoder = nn.Embedding(20, 16), nn.GRU(32, 16, batch_first=True)
            self.head = nn.Linear(16, 20)

        def forward(self, given: Any, targets: Any) -> Any:
            keys, state = self.encoder(self.source(given))
            word = torch.empty(given.size(0), 1, dtype=torch.long).fill_(0)
            made = []
            for place in range(targets.size(1)):
                scores = self.score(torch.tanh(self.query(state.permute(1, 0, 2)) + self.key(keys)))
                weights = functional.softmax(scores.squeeze(2).unsqueeze(1), dim=-1)
                context = torch.bmm(weights, keys)
                found, state = self.decoder(torch.cat((self.target(word), context), dim=2), state)
                made.append(self.head(found))
                word = targets[:, place].unsqueeze(1)
            return functional.log_softmax(torch.cat(made, dim=1), dim=-1)

    net, criterion = Translator(), nn.NLLLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, nesterov=True, momentum=0.9)

    def step(given: Any, targets: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(net(given, targets).view(-1, 20), targets.view(-1))
        loss.backward()
        optimizer.step()
        return loss

    return Model(net, lambda rng: (below(torch, rng, 20, 3, 7), below(torch, rng, 20, 3, 5)), step)


def tagger(torch: Any) -> Model:
    """A bidirectional LSTM over packed sequences of several lengths; padding has no label."""
    nn, functional, rnn = torch.nn, torch.nn.functional, torch.nn.utils.rnn

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(15, 8, padding_idx=0)
            self.lstm = nn.LSTM(8, 6, bidirectional=True, batch_first=True)
            self.head = nn.Linear(12, 4)

        def forward(self, given: Any, lengths: Any) -> Any:
            packed = rnn.pack_padded_sequence(self.words(given), lengths, batch_first=True, enforce_sorted=False)
            found, _ = rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            return self.head(found)

    net = Tagger()
    optimizer = torch.optim.Adadelta(net.parameters())

    def batch(rng: Rng) -> tuple[Any, ...]:
        found = [below(torch, rng, 14, size) + 1 for size in (5, 3, 7)]
        return rnn.pad_sequence(found, batch_first=True), torch.tensor([len(one) for one in found])

    def step(given: Any, lengths: Any) -> Any:
        targets = torch.where(given > 0, given % 4, -100)
        loss = functional.cross_entropy(net(given, lengths).transpose(1, 2), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Model(net, batch, step)


MODELS: dict[str, Make] = {
    "gpt": partial(gpt, fused=False),
    "gpt_with_fused_attention": partial(gpt, fused=True),
    "tied_lstm": tied_lstm,
    "translator": translator,
    "tagger": tagger,
}
