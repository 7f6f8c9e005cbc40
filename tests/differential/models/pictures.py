"""Models of pictures: autoencoder, adversarial pair, U-Net, vision transformer, inverted residuals."""

from __future__ import annotations

from typing import Any

from tests.differential.models.base import Make, Model, Rng, below, normal, uniform


def autoencoder(torch: Any) -> Model:
    """A variational one: the noise is an argument."""
    nn, functional = torch.nn, torch.nn.functional

    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mean, self.spread = nn.Linear(64, 40), nn.Linear(40, 8), nn.Linear(40, 8)
            self.back, self.last = nn.Linear(8, 40), nn.Linear(40, 64)

        def forward(self, x: Any, noise: Any) -> Any:
            hidden = functional.relu(self.first(x.view(-1, 64)))
            mean, spread = self.mean(hidden), self.spread(hidden)
            z = mean + noise * torch.exp(0.5 * spread)
            return torch.sigmoid(self.last(functional.relu(self.back(z)))), mean, spread

    net = Autoencoder()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)

    def step(x: Any, noise: Any) -> Any:
        optimizer.zero_grad()
        made, mean, spread = net(x, noise)
        likeness = functional.binary_cross_entropy(made, x.view(-1, 64), reduction="sum")
        loss = likeness - 0.5 * torch.sum(1 + spread - mean.pow(2) - spread.exp())
        loss.backward()
        optimizer.step()
        return loss

    return Model(net, lambda rng: (uniform(torch, rng, 5, 1, 8, 8), normal(torch, rng, 5, 8)), step)


def adversaries(torch: Any) -> Model:
    """Two networks and two optimizers; the discriminator learns from what was generated, detached, then the generator
    from the same; labels are filled in place, activations are in place."""
    nn = torch.nn
    net = nn.ModuleDict(
        {
            "generator": nn.Sequential(
                nn.ConvTranspose2d(10, 16, 4, 1, 0, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(True),
                nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(True),
                nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False),
                nn.Tanh(),
            ),
            "discriminator": nn.Sequential(
                nn.Conv2d(1, 8, 4, 2, 1, bias=False),
                nn.LeakyReLU(0.2, inplace=True),
                nn.Conv2d(8, 16, 4, 2, 1, bias=False),
                nn.BatchNorm2d(16),
                nn.LeakyReLU(0.2, inplace=True),
                nn.Conv2d(16, 1, 4, 1, 0, bias=False),
                nn.Sigmoid(),
            ),
        }
    )
    generator, discriminator, criterion = net["generator"], net["discriminator"], nn.BCELoss()
    learns, makes = (
        torch.optim.Adam(part.parameters(), lr=2e-3, betas=(0.5, 0.999)) for part in (discriminator, generator)
    )

    def step(real: Any, noise: Any) -> Any:
        discriminator.zero_grad()
        label = torch.full((real.size(0),), 1.0)
        of_real = criterion(discriminator(real).view(-1), label)
        of_real.backward()
        fake = generator(noise)
        label.fill_(0.0)
        of_fake = criterion(discriminator(fake.detach()).view(-1), label)
        of_fake.backward()
        learns.step()
        generator.zero_grad()
        label.fill_(1.0)
        fooled = criterion(discriminator(fake).view(-1), label)
        fooled.backward()
        makes.step()
        return of_real + of_fake, fooled

    return Model(net, lambda rng: (normal(torch, rng, 6, 1, 16, 16), normal(torch, rng, 6, 10, 1, 1)), step)


def unet(torch: Any) -> Model:
    """Skips joined by `cat` after padding, both kinds of upsampling, cross-entropy and Dice loss."""
    nn, functional = torch.nn, torch.nn.functional

    def double(given: int, made: int) -> Any:
        return nn.Sequential(
            nn.Conv2d(given, made, 3, padding=1, bias=False),
            nn.BatchNorm2d(made),
            nn.ReLU(inplace=True),
            nn.Conv2d(made, made, 3, padding=1, bias=False),
            nn.BatchNorm2d(made),
            nn.ReLU(inplace=True),
        )

    def fitted(x: Any, like: Any) -> Any:
        high, wide = like.size(2) - x.size(2), like.size(3) - x.size(3)
        return functional.pad(x, [wide // 2, wide - wide // 2, high // 2, high - high // 2])

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = double(3, 8)
            self.down = nn.ModuleList([nn.Sequential(nn.MaxPool2d(2), double(n, 16)) for n in (8, 16)])
            self.larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.up = nn.ModuleList([double(32, 8), double(16, 8)])
            self.turned, self.last = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Conv2d(8, 2, 1)

        def forward(self, x: Any) -> Any:
            a = self.first(x)
            b = self.down[0](a)
            c = self.down[1](b)
            x = self.up[0](torch.cat([b, fitted(self.larger(c), b)], 1))
            return self.last(self.up[1](torch.cat([a, fitted(self.turned(x), a)], 1)))

    net, criterion = UNet(), nn.CrossEntropyLoss()
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, weight_decay=1e-8, momentum=0.9)

    def dice(found: Any, wanted: Any) -> Any:
        both = 2 * (found * wanted).sum(dim=(-1, -2))
        total = found.sum(dim=(-1, -2)) + wanted.sum(dim=(-1, -2))
        total = torch.where(total == 0, both, total)
        return ((both + 1e-6) / (total + 1e-6)).mean()

    def step(x: Any, mask: Any) -> Any:
        found = net(x)
        wanted = functional.one_hot(mask, 2).permute(0, 3, 1, 2).float().flatten(0, 1)
        loss = criterion(found, mask) + 1 - dice(functional.softmax(found, dim=1).flatten(0, 1), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss

    return Model(net, lambda rng: (normal(torch, rng, 2, 3, 11, 14), below(torch, rng, 2, 2, 11, 14)), step)


def vision_transformer(torch: Any) -> Model:
    """Patches by a convolution, a class token, `nn.TransformerEncoder`, smoothed labels, one cycle of rates."""
    nn, functional = torch.nn, torch.nn.functional

    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 32, 4, 4)
            self.token = nn.Parameter(torch.zeros(1, 1, 32))
            self.places = nn.Parameter(torch.zeros(1, 17, 32))
            nn.init.trunc_normal_(self.places, std=0.02)
            layer = nn.TransformerEncoderLayer(
                32, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(32, 10)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
            return self.head(self.encoder(x)[:, 0])

    net = Vision()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=10)

    def step(x: Any, y: Any) -> Any:
        loss = functional.cross_entropy(net(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Model(net, lambda rng: (normal(torch, rng, 4, 3, 16, 16), below(torch, rng, 10, 4)), step, schedule.step)


def inverted_residuals(torch: Any) -> Model:
    """Depthwise convolutions, squeeze and excitation, activations in place after batch norms; evaluated at the end."""
    nn, functional = torch.nn, torch.nn.functional

    class Excite(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.mean = nn.AdaptiveAvgPool2d(1)
            self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

        def forward(self, x: Any) -> Any:
            return x * functional.hardsigmoid(self.up(functional.relu(self.down(self.mean(x)))))

    class Inverted(nn.Module):
        def __init__(self, given: int, made: int, stride: int) -> None:
            super().__init__()
            wide = given * 4
            self.skips = stride == 1 and given == made
            self.body = nn.Sequential(
                nn.Conv2d(given, wide, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.Hardswish(inplace=True),
                nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
                nn.BatchNorm2d(wide),
                nn.SiLU(inplace=True),
                Excite(wide),
                nn.Conv2d(wide, made, 1, bias=False),
                nn.BatchNorm2d(made),
            )

        def forward(self, x: Any) -> Any:
            return x + self.body(x) if self.skips else self.body(x)

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(True))
            self.blocks = nn.Sequential(Inverted(8, 8, 1), Inverted(8, 12, 2))
            self.head = nn.Linear(12, 5)

        def forward(self, x: Any) -> Any:
            return self.head(self.blocks(self.stem(x)).mean([2, 3]))

    net = Small()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    def batch(rng: Rng) -> tuple[Any, ...]:
        return normal(torch, rng, 4, 3, 20, 20), below(torch, rng, 5, 4)

    def step(x: Any, y: Any) -> Any:
        found = net(x)
        loss = functional.cross_entropy(found, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss, (found.argmax(1) == y).sum()

    def look() -> list[Any]:
        net.eval()
        with torch.no_grad():
            return [net(torch.ones(1, 3, 20, 20))]

    return Model(net, batch, step, schedule.step, look)


MODELS: dict[str, Make] = {
    "autoencoder": autoencoder,
    "adversaries": adversaries,
    "unet": unet,
    "vision_transformer": vision_transformer,
    "inverted_residuals": inverted_residuals,
}
