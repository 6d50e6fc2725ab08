"""The scores of other libraries on the tasks of scripts/train.py.

They have the same split of the data, and their usual settings.
"""

import bz2
import importlib.util
import lzma
import math

import numpy as np
from sklearn.ensemble import (
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LassoCV, LinearRegression, LogisticRegression, RidgeCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from jaxnn import data

CLASSIFIERS = [
    LogisticRegression(max_iter=2000),
    SVC(),
    RandomForestClassifier(random_state=0),
    KNeighborsClassifier(3),
    KNeighborsClassifier(15),
    MLPClassifier((128,), max_iter=1000, random_state=0),
]
REGRESSORS = [
    LinearRegression(),
    RidgeCV(np.logspace(-3, 3, 13)),
    LassoCV(),
    SVR(),
    RandomForestRegressor(random_state=0),
    GradientBoostingRegressor(random_state=0),
]
TABLES = {
    "iris": (data.iris, 0.3, CLASSIFIERS),
    "moons": (data.moons, 0.3, CLASSIFIERS),
    "digits": (data.digits, 0.2, CLASSIFIERS),
    "diabetes": (data.diabetes, 0.3, REGRESSORS),
}


def run(only=""):
    """Print and return the scores of all models, by task."""
    figures = {}
    for name, (load, test, models) in TABLES.items():
        if only in name:
            train, held_out = data.split(load(), test)
            scale = StandardScaler().fit(train.x) if name in ("iris", "diabetes") else None
            x, x_test = (scale.transform(part.x) if scale else part.x for part in (train, held_out))
            figures[name] = {
                repr(model): model.fit(x, train.y).score(x_test, held_out.y) for model in models
            }
    if only in "text":
        figures["text, bits a character"] = text()
    for name, scores in figures.items():
        print(name)
        for model, value in scores.items():
            print(f"  {value:.4f}  {model.partition('(')[0] if 'array' in model else model}")
    return figures


def text():
    """Compress the held-out tenth, with and without the text before it, and train PyTorch's GRU."""
    whole = data.python_topics()
    cut = int(0.9 * len(whole))
    encoded, before = whole.encode("latin-1", "replace"), whole[:cut].encode("latin-1", "replace")
    scores = {}
    for name, compress in {"bz2": bz2.compress, "xz": lzma.compress}.items():
        bits_a_byte = 8 / (len(encoded) - len(before))  # bits a character for each byte compressed
        alone = len(compress(encoded[len(before) :]))
        after = len(compress(encoded)) - len(compress(before))
        scores[f"{name}, alone"] = alone * bits_a_byte
        scores[f"{name}, after the other nine tenths"] = after * bits_a_byte
    if importlib.util.find_spec("torch"):
        scores["PyTorch, the same GRU, optimizer and schedule"] = torch_gru(whole, cut)
    return scores


def torch_gru(whole, cut, length=64, batch_size=32, rate=4e-3, epochs=6):
    """Train Embedding(64), GRU(256) and Linear as in scripts/train.py; return bits a character."""
    import torch

    torch.manual_seed(0)
    vocabulary = "".join(sorted(set(whole)))
    train, test = (data.characters(part, length, vocabulary) for part in (whole[:cut], whole[cut:]))
    (x, y), (x_test, y_test) = (
        (torch.from_numpy(part.x).long(), torch.from_numpy(part.y).long()) for part in (train, test)
    )
    embedding, gru = (
        torch.nn.Embedding(len(vocabulary), 64),
        torch.nn.GRU(64, 256, batch_first=True),
    )
    dense, loss = torch.nn.Linear(256, len(vocabulary)), torch.nn.CrossEntropyLoss()
    parameters = [p for module in (embedding, gru, dense) for p in module.parameters()]
    steps = epochs * -(-len(x) // batch_size)
    rise = min(100, steps // 10)
    adamw = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adamw,
        lambda i: (
            i / rise if i < rise else (1 + math.cos(math.pi * (i - rise) / (steps - rise))) / 2
        ),
    )

    def cost(x, y):
        return loss(dense(gru(embedding(x))[0]).flatten(0, 1), y.flatten())

    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch_size):
            adamw.zero_grad()
            cost(x[rows], y[rows]).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            adamw.step()
            schedule.step()
    with torch.no_grad():
        return cost(x_test, y_test).item() / math.log(2)
