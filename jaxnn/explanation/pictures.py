"""The layers of a page as grids of numbers: where each array of a layer stands, and its arrows.

A convolution is a kernel beside the image over which it slides; a recurrent network is unrolled, a
column of state for each step of time; attention is its matrix of weights, with the projections from
which it is computed. Every other layer is its inputs, its parameters and its outputs.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.equations import TARGET, ArrayId, Equations, Step
from jaxnn.explanation.labels import key
from jaxnn.formulas.expressions import refs
from jaxnn.layers import Embedding, MultiHeadAttention
from jaxnn.layers.convolution import Conv1D, Conv2D, ConvTranspose1D, ConvTranspose2D
from jaxnn.layers.recurrent import GRU, LSTM, RNN
from jaxnn.notation import Notation

CONVOLUTIONS = (Conv1D, Conv2D, ConvTranspose1D, ConvTranspose2D)
GATES = {RNN: (), LSTM: ("i", "f", "g", "o"), GRU: ("r", "u", "g")}  # in the order of z's blocks
# what flows from array to array within a step, and from a step to the next, besides h to z
WITHIN: dict[type, tuple[tuple[str, str], ...]] = {
    RNN: (),
    LSTM: (("i", "c"), ("f", "c"), ("g", "c"), ("c", "h"), ("o", "h")),
    GRU: (("r", "g"), ("u", "h"), ("g", "h")),
}
CARRIED: dict[type, tuple[str, ...]] = {RNN: (), LSTM: ("c",), GRU: ("h",)}
SIDE = 16  # rows and columns of a grid that are drawn
CHANNELS = 4  # channels, or heads, that are drawn

Part = str | int | tuple[str, int]  # an index: "sample", a number, or ("r", 2) for 2 + the row


class Grid(NamedTuple):
    """A part of an array with at most two axes.

    Attributes:
        identity: the array.
        at: the index along each axis: "sample" for the chosen sample, a number, or ("r", start) and
            ("c", start) for the axes that are rows and columns.
        shape: the number of rows and of columns.
        place: the row and the column of the picture in which it stands.
        note: what its heading says besides its symbol.
        rows: names of its rows, none if they are numbered.
        columns: names of its columns.
    """

    identity: ArrayId
    at: tuple[Part, ...]
    shape: tuple[int, int]
    place: tuple[int, int]
    note: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()


class Names(NamedTuple):
    """What the reader calls the positions of a sequence, and the classes."""

    tokens: Sequence[str] = ()
    vocabulary: Sequence[str] = ()


def pictures_of(equations: Equations, notation: Notation, names: Names) -> list[dict[str, Any]]:
    """Return a picture for each layer that has equations, and for the loss, ready for JSON."""
    pictures = []
    numbers = [*equations.layers, ""]
    for number in numbers:
        layer = next((step.op for step in equations.steps if step.number == number), None)
        if layer is None:
            continue
        drawing = _Drawing(equations, number, names)
        if isinstance(layer, CONVOLUTIONS):
            drawing.convolution()
        elif isinstance(layer, tuple(GATES)):
            drawing.recurrence()
        elif isinstance(layer, MultiHeadAttention):
            drawing.attention()
        else:
            drawing.others()
        label = f"{notation.layer(number)} {type(layer).__name__}".strip()
        described = [_described(equations, drawing, grid) for grid in drawing.grids]
        pictures.append(
            {
                "number": number,
                "label": label,
                "grids": described,
                "arrows": drawing.arrows,
                "around": drawing.around,
            }
        )
    return pictures


def _described(equations: Equations, drawing: "_Drawing", grid: Grid) -> dict[str, Any]:
    identity = grid.identity
    slope = drawing.slope(identity)
    return grid._asdict() | {
        "identity": key(identity),
        "slope": key(slope) if slope in equations.by_definition else None,
        "editable": equations.free.get(identity) in ("input", "parameter", "target"),
        "rows": [*grid.rows[: grid.shape[0]]],
        "columns": [*grid.columns[: grid.shape[1]]],
    }


class _Drawing:
    """The grids of one layer, and the arrows between them."""

    def __init__(self, equations: Equations, number: str, names: Names) -> None:
        self.equations, self.number, self.names = equations, number, names
        self.steps = [step for step in equations.steps if step.number == number]
        self.ids = self.steps[0].ids
        self.grids: list[Grid] = []
        self.arrows: list[tuple[int, int]] = []
        # Arrows that go round what stands between, each in one of the lanes below its start.
        self.around: list[tuple[int, int, int]] = []

    def slope(self, identity: ArrayId) -> ArrayId:
        """Return the derivative by an array; that of a body's output is what its layer is given."""
        for name in ("x", "y"):
            if self.ids.get(name) == identity and f"d{name}" in self.ids:
                return self.ids[f"d{name}"]
        made = (step.ids for step in self.equations.steps if step.ids.get("y") == identity)
        if identity.gradient not in self.equations.by_definition:
            return next((ids["dy"] for ids in made if "dy" in ids), identity.gradient)
        return identity.gradient

    def is_of_one_path(self, identity: ArrayId) -> bool:
        """Whether the derivative shown is that through this layer, and others use the array."""
        return self.ids.get("x") == identity and self.slope(identity) != identity.gradient

    def convolution(self) -> None:
        """Draw the image, the kernels with their biases, and the output, a row for each channel."""
        flat = isinstance(self.steps[0].op, (Conv1D, ConvTranspose1D))
        space: tuple[Part, ...] = (("c", 0),) if flat else (("r", 0), ("c", 0))
        transposed = isinstance(self.steps[0].op, (ConvTranspose1D, ConvTranspose2D))
        inputs = min(self._shape("x")[-1], CHANNELS)
        ours = self._shape("w")[-1 if transposed else -2]  # fewer than the input's, with groups
        outputs = min(self._shape("y")[-1], CHANNELS)
        kernels = min(self._shape("w")[-2], CHANNELS) if transposed else outputs
        x = [self._add("x", ("sample", *space, c), (c, 0), _note("channel", c, inputs))
             for c in range(inputs)]  # fmt: skip
        beside, has_bias = min(ours, CHANNELS), "b" in self.ids
        w = []
        for o in range(kernels):
            for c in range(beside):
                last = (o, c) if transposed else (c, o)
                w.append(self._add("w", (*space, *last), (o, 1 + c), _note("kernel", o, kernels)))
        biases = [self._add("b", (o,), (o, 1 + beside), "") for o in range(outputs * has_bias)]
        y = [self._add("y", ("sample", *space, o), (o, 2 + beside), _note("channel", o, outputs))
             for o in range(outputs)]  # fmt: skip
        self.arrows += [(x[0], w[0]), (biases[0] if biases else w[beside - 1], y[0])]

    def recurrence(self) -> None:
        """Draw a column for each step of time: state, cell, gates, pre-activations and input."""
        layer = self.steps[0].op
        gates = next(names for kind, names in GATES.items() if isinstance(layer, kind))
        _, time, features = self._shape("h")
        inputs = min(self._shape("x")[-1], CHANNELS)
        wide = max(1, len(gates))
        columns = (1, 0, 2) if isinstance(layer, GRU) else range(wide)  # r stands beside g
        backward = getattr(layer, "reverse", False)
        steps: list[tuple[dict[str, int], list[int]]] = []  # the arrays of each, and where h enters
        for t in range(min(time, SIDE)):
            start = t * wide
            named = f"t = {self.names.tokens[t]}" if self.names.tokens else f"t = {t + 1}"
            made = {"h": self._stack("h", t, 0, features, (0, start), named)}
            if isinstance(layer, LSTM):
                made["c"] = self._stack("c", t, 0, features, (1, start), "")
            for column, gate in zip(columns, gates, strict=bool(gates)):
                made[gate] = self._stack(gate, t, 0, features, (2, start + column), "")
            z = [
                self._stack("z", t, block * features, features, (3, start + column), f"of {gate}")
                for block, (column, gate) in enumerate(zip(columns, gates or "h", strict=True))
            ]
            x = self._stack("x", t, 0, inputs, (4, start), "")
            self.arrows += [(x, block) for block in z]
            self.arrows += list(zip(z, (made[gate] for gate in gates or "h"), strict=True))
            self.arrows += [(made[one], made[other]) for one, other in WITHIN[type(layer)]]
            # of a GRU, z is the input's part alone
            steps.append((made, [made[gate] for gate in gates] if isinstance(layer, GRU) else z))
        pairs = itertools.pairwise(steps[::-1] if backward else steps)
        for t, ((before, _), (after, entries)) in enumerate(pairs):
            self.arrows += [(before[name], after[name]) for name in CARRIED[type(layer)]]
            lane = 1 + t % 2  # so that two successive states do not share a line
            self.around += [(before["h"], entry, lane) for entry in entries]

    def _stack(
        self, name: str, t: int, start: int, features: int, place: tuple[int, int], note: str
    ) -> int:
        return self._add(name, ("sample", t, ("r", start)), place, note, rows_of=features)

    def attention(self) -> None:
        """Draw the input, the weights, queries, keys and values, the matrix, and the output."""
        tokens = self.names.tokens
        context = "context" if "context" in self.ids and self._differs("context") else "x"
        x = self._add("x", ("sample", ("r", 0), ("c", 0)), (0, 0), "", rows=tokens)
        other = x
        if context != "x":
            other = self._add("context", ("sample", ("r", 0), ("c", 0)), (1, 0), "")
        heads, width = self._shape("q")[1], self._shape("q")[-1]
        ends: list[tuple[int, int]] = []  # what the output is made of, for each head
        for h in range(min(heads, CHANNELS)):
            top, note = 3 * h, _note("head", h, heads)
            cut = ("r", 0), ("c", h * width)
            made = []
            for row, name in enumerate("qkv"):
                weights = self._add(f"w{name}", cut, (top + row, 1), note, columns_of=width)
                at = ("sample", h, ("r", 0), ("c", 0))
                made.append(self._add(name, at, (top + row, 2), note, rows=tokens))
                self.arrows += [(x if name == "q" else other, weights), (weights, made[-1])]
            at = ("sample", h, ("r", 0), ("c", 0))
            causal = self.steps[0].op.causal  # type: ignore[union-attr]
            masked = ("used up to the diagonal", "0 right of the diagonal") if causal else ("", "")
            score, p = (
                self._add(name, at, (top + row, 3), text, rows=tokens, columns=tokens)
                for row, (name, mask) in enumerate(zip(("score", "p"), masked, strict=True))
                for text in [", ".join(filter(None, (note, mask)))]
            )
            o = self._add("o", at, (top + 2, 3), note, rows=tokens)
            wo = self._add("wo", (("r", h * width), ("c", 0)), (top + 1, 4), note, rows_of=width)
            self.arrows += [(made[0], score), (made[1], score), (score, p), (p, o), (made[2], o)]
            ends.append((wo, o))
        y = self._add("y", ("sample", ("r", 0), ("c", 0)), (2, 4), "", rows=tokens)
        self.arrows += [(part, y) for pair in ends for part in pair]

    def _differs(self, name: str) -> bool:
        return self.ids[name] != self.ids["x"]

    def others(self) -> None:
        """Draw what comes in, the parameters, what is computed in between, and what goes out.

        Means and the like stand below the input, whole arrays above the output; what only the
        backward pass computes stands last.
        """
        forward = [step for step in self.steps if step.direction == "forward"]
        made = list(dict.fromkeys(step.defines for step in forward))
        back = {step.defines: None for step in self.steps if not step.defines.is_gradient}
        between = [id_ for id_ in dict.fromkeys((*made[:-1], *back)) if id_ != made[-1]]
        used = [step.ids[ref.name] for step in forward for ref in refs(step.equation.body)]
        ins = [id_ for id_ in dict.fromkeys(used) if id_ not in made]
        kinds = self.equations.free
        own = [id_ for id_ in ins if kinds.get(id_) in ("parameter", "given", "target")]
        small = [id_ for id_ in between if len(self._slices(id_)) == 1 and self._is_narrow(id_)]
        large = [id_ for id_ in between if id_ not in small and id_ in made]
        later = [id_ for id_ in between if id_ not in small and id_ not in made]
        inputs = [id_ for id_ in ins if id_ not in own]
        means = [id_ for id_ in small if id_ in made]
        in_line = own and not between and TARGET not in own  # what comes in meets the parameters
        below = 1 if large else 0  # so that an arrow from input to output is free
        out = [*large, made[-1]]
        columns = [(0, inputs), (0, own), (0, out)]
        if not in_line:
            rest = [id_ for id_ in small if id_ not in made]
            columns = [(0, inputs), (below, means), (0, out), (below, own), (below, rest)]
            columns.append((0, later))
        first: dict[ArrayId, int] = {}
        for place, (top, column) in enumerate(pair for pair in columns if pair[1]):
            slices = [(id_, *cut) for id_ in column for cut in self._slices(id_)]
            for row, (id_, at, note, is_column) in enumerate(slices, start=top):
                rows, names = self._names(id_, is_column)
                number = self._append(id_, at, (row, place), note, rows=rows, columns=names)
                first.setdefault(id_, number)
        if in_line:
            chain = [first[column[0]] for _, column in columns if column]
            self.arrows += itertools.pairwise(chain)
        else:
            self.arrows += [(first[a], first[b]) for a, b in self._flow(forward) if a in first]

    def _flow(self, forward: list[Step]) -> list[tuple[ArrayId, ArrayId]]:
        """Return which array is computed from which."""
        pairs = (
            (step.ids[ref.name], step.defines)
            for step in forward
            for ref in refs(step.equation.body)
        )
        return [(one, other) for one, other in dict.fromkeys(pairs) if one != other]

    def _is_narrow(self, id_: ArrayId) -> bool:
        ((at, _, _),) = self._slices(id_)
        return not any(isinstance(part, tuple) and part[0] == "c" for part in at)

    def _slices(self, id_: ArrayId) -> list[tuple[tuple[Part, ...], str, bool]]:
        shape = np.shape(self.equations.values[id_])
        batch: tuple[Part, ...] = ("sample",) if id_ in self.equations.batched and shape else ()
        rest = shape[len(batch) :]
        down: Part = ("r", 0)
        across: Part = ("c", 0)
        if len(rest) == 0:
            return [(batch, "", False)]
        if len(rest) == 1:
            is_column = bool(batch) and rest[0] == self._time()
            return [((*batch, down if is_column else across), "", is_column)]
        if len(rest) == 2:
            return [((*batch, down, across), "", True)]
        count = min(rest[-1], CHANNELS)
        ahead = (0,) * (len(rest) - 3)
        return [
            ((*batch, *ahead, down, across, c), _note("channel", c, count), True)
            for c in range(count)
        ]

    def _time(self) -> int:
        """Return the number of steps of the sequence that goes through the layer, or 0."""
        arrays = [self.equations.values[id_] for id_ in self.ids.values() if id_ in
                  self.equations.values and id_ in self.equations.batched]  # fmt: skip
        return next((np.shape(array)[1] for array in arrays if np.ndim(array) == 3), 0)

    def _names(self, id_: ArrayId, is_column: bool) -> tuple[Sequence[str], Sequence[str]]:
        tokens, vocabulary = self.names
        layer = self.equations.layers.get(id_.layer)
        shape = np.shape(self.equations.values[id_])
        last = list(self.equations.layers)[-1]
        batched = id_ in self.equations.batched
        classes = id_.layer == last and shape[-1:] == (len(vocabulary),)
        columns = vocabulary if vocabulary and classes else ()
        if isinstance(layer, Embedding) and not batched:
            return vocabulary, ()
        return (tokens if batched and is_column and shape[1] == len(tokens) else ()), columns

    def _shape(self, name: str) -> tuple[int, ...]:
        return np.shape(self.equations.values[self.ids[name]])

    def _add(
        self,
        name: str,
        at: tuple[Part, ...],
        place: tuple[int, int],
        note: str,
        **options: Any,
    ) -> int:
        return self._append(self.ids[name], at, place, note, **options)

    def _append(
        self,
        identity: ArrayId,
        at: tuple[Part, ...],
        place: tuple[int, int],
        note: str,
        *,
        rows: Sequence[str] = (),
        columns: Sequence[str] = (),
        rows_of: int = SIDE,
        columns_of: int = SIDE,
    ) -> int:
        """Add a grid, and return its number."""
        full = np.shape(self.equations.values[identity])
        size = {"r": 1, "c": 1}
        for part, axis in zip(at, full, strict=True):
            if isinstance(part, tuple):
                size[part[0]] = axis - part[1]
        shape = min(size["r"], rows_of, SIDE), min(size["c"], columns_of, SIDE)
        if math.prod(shape) < size["r"] * size["c"] and (size["r"] > SIDE or size["c"] > SIDE):
            note = f"{note}, the first {shape[0]} × {shape[1]}".removeprefix(", ")
        if self.is_of_one_path(identity):
            note = f"{note}, derivative through this path".removeprefix(", ")
        self.grids.append(Grid(identity, at, shape, place, note, rows, columns))
        return len(self.grids) - 1


def _note(word: str, k: int, count: int) -> str:
    return f"{word} {k + 1}" if count > 1 else ""
