"""Ready-made networks, each composed of layers in a few lines and itself an ordinary layer value.

Their outputs are logits or plain numbers, to be combined with a loss that takes these.
"""

from jaxnn.checks import InputError, check_positive_int
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
    LogSoftmax,
    MaxPool,
    MultiHeadAttention,
    ReLU,
    SinusoidalPositions,
    Softmax,
    Tanh,
)
from jaxnn.types import Layer


def mlp(*sizes: int, activation: Layer = ReLU()) -> Sequential:  # noqa: B008, a layer is a value
    """Build a multilayer perceptron: Dense layers of these sizes, with an activation between them.

    Args:
        *sizes: the hidden sizes, followed by the number of outputs.
        activation: the activation between the layers. The hidden layers are initialised by the rule
            of He for ReLU, and by the rule of Glorot for other activations.
    """
    check_activation("mlp", activation)
    w_init = "he_normal" if activation == ReLU() else "glorot_uniform"
    hidden = [part for size in sizes[:-1] for part in (Dense(size, w_init=w_init), activation)]
    return chain(*hidden, *(Dense(size) for size in sizes[-1:]))


def check_activation(who: str, activation: Layer) -> None:
    """Check for a layer without parameters that acts entry by entry."""
    if not isinstance(activation, Layer) or isinstance(activation, type):
        raise InputError(
            f"{who}: expected activation to be a layer such as ReLU(), got {activation!r}."
        )
    if isinstance(activation, Softmax | LogSoftmax | Dense):
        raise InputError(f"{who}: expected an activation applied entry by entry, got {activation}.")


def lenet(classes: int) -> Sequential:
    """Build a LeNet-5 (LeCun et al., 1998) with ReLU and max pooling.

    It takes images (B, H, W, C), where H and W are at least 8.
    """
    return chain(
        Conv2D(6, 5), ReLU(), MaxPool(2),
        Conv2D(16, 5), ReLU(), MaxPool(2),
        Flatten(), Dense(120, w_init="he_normal"), ReLU(),
        Dense(84, w_init="he_normal"), ReLU(), Dense(classes),
    )  # fmt: skip


def resnet(
    classes: int, *, features: tuple[int, ...] = (16, 32, 64), blocks: int = 2
) -> Sequential:
    """Build a residual network in the manner of He et al. (2016), for small images (B, H, W, C).

    Args:
        classes: the number of outputs.
        features: the channels of each stage; height and width are halved from stage to stage.
        blocks: the number of residual blocks per stage.
    """
    if not isinstance(features, tuple | list) or not features:
        raise InputError(f"resnet: expected features as a tuple of integers, got {features!r}.")
    check_positive_int("resnet", "blocks", blocks)
    stages: list[Layer] = [
        Conv2D(features[0], 3, bias=False, w_init="he_normal"),
        BatchNorm(),
        ReLU(),
    ]
    for stage, channels in enumerate(features):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            body = chain(
                Conv2D(channels, 3, stride=stride, bias=False, w_init="he_normal"), BatchNorm(),
                ReLU(),
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
    features: int, heads: int, *, causal: bool, dropout: float = 0.0, block: int | str | None = None
) -> Sequential:
    """Build a transformer block: attention, followed by a two-layer perceptron.

    Each of the two is preceded by a normalisation and surrounded by a skip connection (pre-norm).
    """
    check_positive_int("transformer_block", "features", features)
    if features % (2 * heads if causal else heads):
        raise InputError(
            f"transformer_block: expected features divisible by {'twice ' * causal}the number of "
            f"heads, {heads}, got {features}."
        )
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
    """Build a transformer encoder (Vaswani et al., 2017) that classifies token sequences (B, T)."""
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
    block: int | str | None = None,
) -> LanguageModel:
    """Build a causal language model, from tokens (B, T) to logits of the next token (B, T, V).

    The embedding and the output share their weights. ``block`` reduces the memory that attention
    needs, see :class:`~jaxnn.layers.MultiHeadAttention`.
    """
    body = Repeat(
        transformer_block(features, heads, causal=True, dropout=dropout, block=block), layers
    )
    return LanguageModel(vocabulary, features, chain(body, LayerNorm()))


def recurrent_classifier(vocabulary: int, classes: int, *, features: int = 64) -> Sequential:
    """Build a bidirectional GRU over tokens (B, T), whose two last states are classified."""
    both = Parallel((GRU(features, output="last"), GRU(features, output="last", reverse=True)))
    return chain(Embedding(vocabulary, features), both, Tanh(), Dense(classes))
