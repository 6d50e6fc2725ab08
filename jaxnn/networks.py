"""Ready-made networks: what a few lines of composition make. Each is an ordinary layer value.

They end in logits or plain numbers, to be paired with a loss that takes them.
"""

from jaxnn.compose import Parallel, Repeat, Residual, Sequential, chain
from jaxnn.layers import (
    GELU,
    GRU,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAveragePool,
    LanguageModel,
    LayerNorm,
    MaxPool,
    MultiHeadAttention,
    ReLU,
    SinusoidalPositions,
    Tanh,
)
from jaxnn.types import Layer


def mlp(*sizes: int, activation: Layer = ReLU()) -> Sequential:  # noqa: B008, a layer is a value
    """A multilayer perceptron: Dense layers of these sizes, with the activation between them.

    Args:
        *sizes: the hidden sizes, then the number of outputs.
        activation: between the layers; the initialisation is He's for ReLU, Glorot's for others.
    """
    w_init = "he_normal" if activation == ReLU() else "glorot_uniform"
    hidden = [part for size in sizes[:-1] for part in (Dense(size, w_init=w_init), activation)]
    return chain(*hidden, *(Dense(size) for size in sizes[-1:]))


def lenet(classes: int) -> Sequential:
    """A LeNet-5 (LeCun et al., 1998) with ReLU and max pooling, for images (B, H, W, C), H and W at least 8."""
    return chain(
        Conv2D(6, 5), ReLU(), MaxPool(2),
        Conv2D(16, 5), ReLU(), MaxPool(2),
        Flatten(), Dense(120, w_init="he_normal"), ReLU(), Dense(84, w_init="he_normal"), ReLU(), Dense(classes),
    )  # fmt: skip


def resnet(
    classes: int, *, features: tuple[int, ...] = (16, 32, 64), blocks: int = 2
) -> Sequential:
    """A residual network in the manner of He et al. (2016), for small images (B, H, W, C).

    Args:
        classes: outputs.
        features: channels of each stage; from one to the next the image is halved.
        blocks: residual blocks a stage.
    """
    stages: list[Layer] = [
        Conv2D(features[0], 3, bias=False, w_init="he_normal"),
        BatchNorm(),
        ReLU(),
    ]
    for stage, channels in enumerate(features):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            body = chain(
                Conv2D(channels, 3, stride=stride, bias=False, w_init="he_normal"), BatchNorm(), ReLU(),
                Conv2D(channels, 3, bias=False, w_init="he_normal"), BatchNorm(),
            )  # fmt: skip
            shortcut = chain(
                Conv2D(channels, 1, stride=stride, bias=False, w_init="he_normal"), BatchNorm()
            )
            stages += [
                Residual(body) if stride == 1 else Parallel((body, shortcut), join="add"),
                ReLU(),
            ]
    return chain(*stages, GlobalAveragePool(), Dense(classes))


def transformer_block(
    features: int, heads: int, *, causal: bool, dropout: float = 0.0, block: int | None = None
) -> Sequential:
    """Attention and a two-layer perceptron, each normalised before and added to what it came from (pre-norm)."""
    attention = MultiHeadAttention(heads, causal=causal, rotary=causal, block=block)
    perceptron = chain(Dense(4 * features, w_init="he_normal"), GELU(form="tanh"), Dense(features))
    parts = (chain(LayerNorm(), part, Dropout(dropout)) for part in (attention, perceptron))
    return chain(*map(Residual, parts))


def transformer_encoder(
    vocabulary: int,
    classes: int,
    *,
    features: int = 64,
    heads: int = 4,
    layers: int = 2,
    dropout: float = 0.0,
) -> Sequential:
    """A transformer encoder (Vaswani et al., 2017) that sorts sequences of tokens (B, T) into classes."""
    block = transformer_block(features, heads, causal=False, dropout=dropout)
    return chain(
        Embedding(vocabulary, features), SinusoidalPositions(), Repeat(block, layers),
        LayerNorm(), GlobalAveragePool(), Dense(classes),
    )  # fmt: skip


def transformer_decoder(
    vocabulary: int,
    *,
    features: int = 64,
    heads: int = 4,
    layers: int = 2,
    dropout: float = 0.0,
    block: int | None = None,
) -> LanguageModel:
    """A causal language model: tokens (B, T) to logits of the next one (B, T, V), embedding and output tied.

    ``block`` makes attention memory-lean, see :class:`~jaxnn.layers.MultiHeadAttention`.
    """
    body = Repeat(
        transformer_block(features, heads, causal=True, dropout=dropout, block=block), layers
    )
    return LanguageModel(vocabulary, features, chain(body, LayerNorm()))


def recurrent_classifier(vocabulary: int, classes: int, *, features: int = 64) -> Sequential:
    """A bidirectional GRU over tokens (B, T), its two last states sorted into classes."""
    both = Parallel((GRU(features, output="last"), GRU(features, output="last", reverse=True)))
    return chain(Embedding(vocabulary, features), both, Tanh(), Dense(classes))
