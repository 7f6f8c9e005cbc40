"""Reinforcement learning, graphs, gradients of gradients, one-dimensional convolutions, mixtures by L-BFGS."""

from __future__ import annotations

import math
from typing import Any

from tests.differential.models.base import Make, Model, Rng, below, normal, uniform


def q_learning(torch: Any) -> Model:
    """A policy and its slow copy; a mask chooses the states that are followed by others."""
    nn = torch.nn

    def values() -> Any:
        return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))

    net = nn.ModuleDict({"policy": values(), "target": values()})
    policy, target = net["policy"], net["target"]
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, amsgrad=True)

    def batch(rng: Rng) -> tuple[Any, ...]:
        goes_on = uniform(torch, rng, 16) > 0.2
        following = normal(torch, rng, int(goes_on.sum()), 4)
        return normal(torch, rng, 16, 4), below(torch, rng, 2, 16, 1), normal(torch, rng, 16), following, goes_on

    def step(state: Any, action: Any, reward: Any, following: Any, goes_on: Any) -> Any:
        found = policy(state).gather(1, action)
        later = torch.zeros(goes_on.shape[0])
        with torch.no_grad():
            later[goes_on] = target(following).max(1).values
        loss = nn.SmoothL1Loss()(found, (later * 0.99 + reward).unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(policy.parameters(), 100)
        optimizer.step()
        slow, fast = target.state_dict(), policy.state_dict()
        for name in fast:
            slow[name] = fast[name] * 0.005 + slow[name] * 0.995
        target.load_state_dict(slow)
        return loss

    return Model(net, batch, step, look=lambda: list(target.parameters()))


def graph_network(torch: Any) -> Model:
    """Messages along edges, summed at their ends; only some nodes have labels."""
    nn, functional = torch.nn, torch.nn.functional

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Parameter(torch.empty(6, 12)), nn.Parameter(torch.empty(12, 3))
            for weight in self.parameters():
                nn.init.xavier_uniform_(weight)

        def forward(self, x: Any, edges: Any) -> Any:
            count = x.size(0)
            degree = torch.zeros(count).index_add_(0, edges[1], torch.ones(edges.size(1))).clamp(min=1)
            scale = (degree[edges[0]] * degree[edges[1]]).rsqrt().unsqueeze(1)

            def spread(h: Any) -> Any:
                to = edges[1].unsqueeze(1).expand(-1, h.size(1))
                return torch.zeros(count, h.size(1)).scatter_add_(0, to, h[edges[0]] * scale)

            return spread(functional.elu(spread(x @ self.first)) @ self.second)

    net = Network()
    optimizer = torch.optim.Adagrad(net.parameters(), lr=0.1)

    def batch(rng: Rng) -> tuple[Any, ...]:
        known = torch.arange(10) % 3 != 0
        return normal(torch, rng, 10, 6), below(torch, rng, 10, 2, 30), below(torch, rng, 3, 10), known

    def step(x: Any, edges: Any, y: Any, known: Any) -> Any:
        optimizer.zero_grad()
        found = functional.log_softmax(net(x, edges), 1)
        loss = functional.nll_loss(found[known], y[known]) + 5e-4 * sum((p**2).sum() for p in net.parameters())
        loss.backward()
        optimizer.step()
        return loss

    return Model(net, batch, step)


def critic(torch: Any) -> Model:
    """A penalty on the gradient of the output by the input, which is differentiated again."""
    nn = torch.nn
    net = nn.Sequential(nn.Linear(6, 24), nn.LeakyReLU(0.2), nn.LayerNorm(24), nn.Linear(24, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.0, 0.9))

    def step(real: Any, fake: Any, share: Any) -> Any:
        optimizer.zero_grad()
        between = (share * real + (1 - share) * fake).requires_grad_(True)
        found = net(between)
        (slope,) = torch.autograd.grad(
            outputs=found,
            inputs=between,
            grad_outputs=torch.ones_like(found),
            create_graph=True,
            retain_graph=True,
            only_inputs=True,
        )
        penalty = ((slope.norm(2, dim=1) - 1) ** 2).mean()
        loss = net(fake).mean() - net(real).mean() + 10 * penalty
        loss.backward()
        optimizer.step()
        return loss

    def batch(rng: Rng) -> tuple[Any, ...]:
        return normal(torch, rng, 8, 6), normal(torch, rng, 8, 6), uniform(torch, rng, 8, 1)

    return Model(net, batch, step)


def triplets(torch: Any) -> Model:
    """Dilated and grouped one-dimensional convolutions, a weight norm, group and instance norms, a lazy layer."""
    nn, functional = torch.nn, torch.nn.functional

    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 8, 3, padding=4, dilation=2))
            self.act, self.groups = nn.PReLU(8), nn.GroupNorm(2, 8)
            self.second = nn.Conv1d(8, 8, 3, padding="same", groups=2)
            self.each, self.pool = nn.InstanceNorm1d(8, affine=True), nn.AdaptiveMaxPool1d(3)
            self.last = nn.LazyLinear(4)

        def forward(self, x: Any) -> Any:
            h = self.groups(self.act(self.first(x)[:, :, :-4].contiguous()))
            h = h + functional.silu(self.each(self.second(h)))
            return functional.normalize(self.last(self.pool(h).flatten(1)), dim=1)

    net = Sequence()
    net(torch.zeros(2, 2, 12))  # the lazy layer's shape
    optimizer, criterion = torch.optim.NAdam(net.parameters(), lr=1e-2), nn.TripletMarginLoss(margin=0.5)

    def step(anchor: Any, like: Any, unlike: Any) -> Any:
        a, b, c = net(anchor), net(like), net(unlike)
        loss = criterion(a, b, c) + 0.1 * functional.cosine_embedding_loss(a, b, torch.ones(anchor.size(0)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Model(net, lambda rng: tuple(normal(torch, rng, 4, 2, 12) for _ in range(3)), step)


def mixture(torch: Any) -> Model:
    """A mixture density network; L-BFGS calls a closure as often as it likes."""
    nn, functional = torch.nn, torch.nn.functional
    net = nn.ModuleDict(
        {
            "hidden": nn.Sequential(nn.Linear(1, 20), nn.Tanh()),
            **{name: nn.Linear(20, 5) for name in ("share", "mean", "spread")},
        }
    )
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=5)

    def step(x: Any, y: Any) -> Any:
        def closure() -> Any:
            optimizer.zero_grad()
            hidden = net["hidden"](x)
            share = functional.log_softmax(net["share"](hidden), -1)
            spread = functional.softplus(net["spread"](hidden)) + 1e-3
            off = (y - net["mean"](hidden)) / spread
            likely = share - 0.5 * off**2 - torch.log(spread) - 0.5 * math.log(2 * math.pi)
            loss = -torch.logsumexp(likely, dim=1).mean()
            loss.backward()
            return loss

        return optimizer.step(closure)

    return Model(net, lambda rng: (normal(torch, rng, 32, 1), normal(torch, rng, 32, 1)), step)


MODELS: dict[str, Make] = {
    "q_learning": q_learning,
    "graph_network": graph_network,
    "critic": critic,
    "triplets": triplets,
    "mixture": mixture,
}
