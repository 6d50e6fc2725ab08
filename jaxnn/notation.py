"""The notation of textbooks: z⁽ˡ⁾ = a⁽ˡ⁻¹⁾ W⁽ˡ⁾ + b⁽ˡ⁾, a⁽ˡ⁾ = σ(z⁽ˡ⁾), δ⁽ˡ⁾ = ∂J/∂z⁽ˡ⁾.

Layers l = 1 … L, rows, columns and samples are counted from 1. An activation belongs to the layer
before it. Text, LaTeX, figures and pages all use these symbols.
"""

import html
from typing import NamedTuple

from jaxnn.equations import ArrayId, Equations
from jaxnn.layers import Dense
from jaxnn.layers.activations import Activation
from jaxnn.layers.convolution import Conv1D, Conv2D, ConvTranspose1D, ConvTranspose2D
from jaxnn.types import Layer

WEIGHTED = (Dense, Conv1D, Conv2D, ConvTranspose1D, ConvTranspose2D)
HEAD = (
    "z, a: before and after the activation of a layer; δ = ∂J/∂z. "
    "Layers, samples and entries count from 1."
)
LETTERS = {"theta": "θ", "scale": "γ", "bias": "β", "xhat": "x̂", "score": "s"}
LATEX = {"θ": r"\theta", "γ": r"\gamma", "β": r"\beta", "δ": r"\delta", "μ": r"\mu",
         "x̂": r"\hat{x}"}  # fmt: skip
RAISED = str.maketrans("0123456789.", "⁰¹²³⁴⁵⁶⁷⁸⁹·")


class Symbol(NamedTuple):
    """How an array is written.

    Attributes:
        letter: its letter or word, such as "W".
        layer: the number of its layer, a superscript, or "".
        is_gradient: whether ∂J/∂ of it is meant.
    """

    letter: str
    layer: str
    is_gradient: bool

    def text(self, *at: object) -> str:
        """Write the array, or one of its entries, for a terminal."""
        above = f"⁽{self.layer.translate(RAISED)}⁾" if self.layer else ""
        indices = f"[{', '.join(map(str, at))}]" if at else ""
        return f"{'∂J/∂' if self.is_gradient else ''}{self.letter}{above}{indices}"

    def latex(self, *at: object) -> str:
        """Write the array, or one of its entries, for LaTeX."""
        above = f"^{{({self.layer})}}" if self.layer else ""
        first, *rest = (self.letter,) if self.letter in LATEX else self.letter.split("_", 1)
        letter = LATEX.get(first, first)
        indices = [*map(str, at)]
        if len(first) > 1 and first not in LATEX:
            plain = first.replace(" ", "").isalnum()
            letter = rf"\mathit{{{first}}}" if plain else latex_code(first)
        below = ", ".join([*(latex_subscript(part) for part in rest), *indices])
        whole = f"{letter}{above}" + (f"_{{{below}}}" if below else "")
        return rf"\frac{{\partial J}}{{\partial {whole}}}" if self.is_gradient else whole

    @property
    def html(self) -> str:
        """The letter, as text that is safe in a page."""
        return html.escape(self.letter)  # the key of a dict may hold anything


SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "_{}#&%$"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    | {character: f"{character}\\allowbreak{{}}" for character in "(,="}
    | {"\n": " "}
)


def latex_code(text: str) -> str:
    """Write text in LaTeX's typewriter font."""
    return rf"\texttt{{{text.translate(SPECIAL)}}}"


def latex_subscript(text: str) -> str:
    """Write a letter or a word as a subscript."""
    if len(text) == 1 and text.isalnum():
        return text
    return rf"\mathit{{{text}}}" if text.replace(" ", "").isalnum() else latex_code(text)


class Notation:
    """The symbols of all arrays of a network."""

    def __init__(self, equations: Equations) -> None:
        self._labels: dict[str, str] = {"": "", "loss": ""}
        self._outputs: dict[str, str] = {}
        tops = [number for number in equations.layers if "." not in number]
        self._label(equations, tops, "", in_a_row=True)

    def _label(
        self, equations: Equations, numbers: list[str], prefix: str, *, in_a_row: bool
    ) -> None:
        """Number layers; in a row, an activation shares the number of the weights before it."""
        count, before = 0, None
        for number in numbers:
            layer = equations.layers[number]
            shares = in_a_row and isinstance(layer, Activation) and isinstance(before, WEIGHTED)
            count += not shares
            self._labels[number] = f"{prefix}{count}"
            self._outputs[number] = letter_of_output(layer)
            inside = [n for n in equations.layers if n.rpartition(".")[0] == number]
            chained = not getattr(layer, "formulas", None)
            self._label(equations, inside, f"{self._labels[number]}.", in_a_row=chained)
            if inside and chained:
                self._outputs[number] = self._outputs[inside[-1]]
            before = layer

    def layer(self, number: str) -> str:
        """Return the number of a layer, as it is written."""
        return self._labels[number]

    def __getitem__(self, identity: ArrayId) -> Symbol:
        """Return the symbol of an array."""
        name, number, is_gradient = identity
        letter = self._outputs.get(number, "y") if name == "y" else LETTERS.get(name, name)
        if letter.startswith("w") and name not in ("waves",):
            letter = "W" + (f"_{letter[1:]}" if letter[1:] else "")
        elif letter in ("bq", "bk", "bv", "bo", "bh"):
            letter = f"b_{letter[1:]}"
        elif letter not in LETTERS.values():
            letter = letter.replace(".", "_")
        if name == "y" and letter == "z" and is_gradient:
            letter, is_gradient = "δ", False
        return Symbol(letter, self._labels.get(number, ""), is_gradient)


def letter_of_output(layer: Layer) -> str:
    """Return z for the output of weights, a for that of an activation, and y for others."""
    return "z" if isinstance(layer, WEIGHTED) else "a" if isinstance(layer, Activation) else "y"
