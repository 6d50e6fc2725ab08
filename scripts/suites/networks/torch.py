"""The networks in PyTorch, channels first, in eager mode or the step through ``torch.compile``."""

import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from suites.networks.cases import (
    BLOCKS,
    DECODER,
    EMBEDDED,
    HIDDEN,
    RATE,
    STAGES,
    VOCABULARY,
    batches,
)


def lenet():
    """LeNet-5."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(784, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


class Block(nn.Module):
    """Two convolutions, and a shortcut."""

    def __init__(self, i, o, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
            nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o),
        )  # fmt: skip
        shortcut = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        self.shortcut = nn.Identity() if stride == 1 else shortcut

    def forward(self, x):
        """Add both."""
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet():
    """Three stages of two blocks."""
    blocks, before = [], STAGES[0]
    for stage, channels in enumerate(STAGES):
        for block in range(BLOCKS):
            blocks.append(Block(before, channels, 2 if stage > 0 and block == 0 else 1))
            before = channels
    first = (
        nn.Conv2d(3, STAGES[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(STAGES[0]),
        nn.ReLU(),
    )
    return nn.Sequential(
        *first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)
    )


class GRU(nn.Module):
    """Table, GRU, dense layer."""

    def __init__(self):
        super().__init__()
        self.table, self.gru = (
            nn.Embedding(VOCABULARY, EMBEDDED),
            nn.GRU(EMBEDDED, HIDDEN, batch_first=True),
        )
        self.last = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens):
        """Return scores at each time."""
        return self.last(self.gru(self.table(tokens))[0])


class Attention(nn.Module):
    """Causal attention with rotary positions."""

    def __init__(self, sizes):
        super().__init__()
        features, self.heads = sizes.features, sizes.heads
        self.qkv, self.out = nn.Linear(features, 3 * features), nn.Linear(features, features)
        half = features // self.heads // 2
        angle = torch.arange(sizes.positions)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def rotate(self, x):
        """Turn pairs of channels by their position."""
        a, b = x.chunk(2, -1)
        return torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], -1)

    def forward(self, x):
        """Gather values."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        o = functional.scaled_dot_product_attention(
            self.rotate(q), self.rotate(k), v, is_causal=True
        )
        return self.out(o.transpose(1, 2).flatten(2))


class DecoderBlock(nn.Module):
    """Attention and perceptron, normalised before."""

    def __init__(self, sizes):
        super().__init__()
        features = sizes.features
        self.attention = nn.Sequential(nn.LayerNorm(features), Attention(sizes))
        up, down = nn.Linear(features, 4 * features), nn.Linear(4 * features, features)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(features), up, nn.GELU(approximate="tanh"), down
        )

    def forward(self, x):
        """Add each to what it came from."""
        x = x + self.attention(x)
        return x + self.perceptron(x)


class Decoder(nn.Module):
    """A causal language model, embedding and output tied."""

    def __init__(self, sizes=DECODER):
        super().__init__()
        self.table = nn.Embedding(sizes.vocabulary, sizes.features)
        blocks = (DecoderBlock(sizes) for _ in range(sizes.layers))
        self.body = nn.Sequential(*blocks, nn.LayerNorm(sizes.features))

    def forward(self, tokens):
        """Return scores at each time."""
        return self.body(self.table(tokens)) @ self.table.weight.T


class UNet(nn.Module):
    """Halve twice, double twice."""

    def __init__(self):
        super().__init__()
        sizes = ((3, 16), (16, 32), (32, 64), (32, 32), (16, 16))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in sizes)
        self.up1, self.up2 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.last = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        """Add what was before to what comes back."""
        relu, pool, (first, second, third, fourth, fifth) = (
            functional.relu,
            functional.max_pool2d,
            self.convs,
        )
        a = relu(first(x))
        b = relu(second(pool(a, 2)))
        b = relu(fourth(relu(b + self.up1(relu(third(pool(b, 2)))))))
        return self.last(relu(fifth(relu(a + self.up2(b)))))


def mlp(width, depth, outputs):
    """Dense layers and ReLU."""
    hidden = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


NETWORKS = {"lenet": lenet, "resnet": resnet, "gru": GRU, "decoder": Decoder, "unet": UNet}


def trainer(model, x, y):
    """Train on one batch through ``torch.compile``, in bfloat16 where there is CUDA."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    model = model.to(place)
    rule = torch.optim.Adam(model.parameters(), lr=RATE)
    x, y = torch.as_tensor(x, device=place), torch.as_tensor(y.astype(np.int64), device=place)

    @torch.compile
    def step():
        rule.zero_grad()
        with torch.autocast(place, torch.bfloat16, enabled=place == "cuda"):
            value = functional.cross_entropy(model(x).flatten(0, -2), y.flatten())
        value.backward()
        rule.step()
        return value

    def train(steps):
        for _ in range(steps):
            value = step()
        value.item()

    return train


def contestant(name, x, y, compiled=False):
    """A step in a Python loop."""
    torch.set_num_threads(os.cpu_count())
    place = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = (
        torch.as_tensor(a if a.dtype == np.float32 else a.astype(np.int64), device=place)
        for a in (x, y)
    )
    x, y = (a.permute(0, 3, 1, 2).contiguous() if a.ndim == 4 else a for a in (x, y))
    model = NETWORKS[name]().to(place)
    adam = torch.optim.Adam(model.parameters(), lr=RATE)

    def loss_of(prediction, y):
        if name == "unet":
            return functional.mse_loss(prediction, y)
        return functional.cross_entropy(prediction.flatten(0, -2), y.flatten())

    def step(x, y):
        adam.zero_grad()
        value = loss_of(model(x), y)
        value.backward()
        adam.step()
        return value

    step = torch.compile(step) if compiled else step

    def run(steps):
        for batch in batches(name, steps, x, y):
            value = step(*batch)
        value.item()

    return run
