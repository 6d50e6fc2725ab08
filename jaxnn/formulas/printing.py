"""Print expressions: the same tree as text or as LaTeX, in symbols or in numbers."""

import math
import re
from collections.abc import Callable
from typing import Any, ClassVar, SupportsFloat

from jaxnn.formulas.expand import SHOWN
from jaxnn.formulas.expressions import (
    Call,
    Choice,
    Expr,
    Gap,
    Index,
    Num,
    Op,
    Over,
    Ref,
    Spot,
    Terms,
)

LOOSE, SUM, PRODUCT, POWER, ATOM = range(5)  # precedence, from the weakest binding to the strongest
LEVEL = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "//": PRODUCT, "%": PRODUCT, "**": POWER}

Write = Callable[[Any], str]  # takes a Ref, or in an expression that is written out a Spot


class Writer:
    """Write expressions as text for a terminal.

    Args:
        write: writes an entry, as its name or as its number.
        times: the sign between factors.
    """

    def __init__(self, write: Write, times: str = "·") -> None:
        self.write, self.times = write, times

    def __call__(self, node: Expr, around: int = LOOSE) -> str:
        """Write an expression, in parentheses if it binds less strongly than its surroundings."""
        text, level = self._text(node)
        return self.parentheses(text) if level < around else text

    def _text(self, node: Expr) -> tuple[str, int]:
        match node:
            case Num(value):
                return self.number(value), ATOM if value >= 0 else PRODUCT
            case Index(name):
                return name, ATOM
            case Ref() | Spot():
                text = self.write(node)
                return text, PRODUCT if text.startswith("-") else ATOM
            case Gap():
                return self.dots, ATOM
            case Terms(kind, parts):
                return self._terms(kind, parts)
            case Over(kind, letters, body):
                return self.over(kind, letters, self(body, PRODUCT)), PRODUCT
            case Choice(condition, then, otherwise):
                return self.choice(self(condition), self(then), self(otherwise)), LOOSE
            case Call("guard", (arg,)):
                return self._text(arg)
            case Call(name, args):
                return self.call(name, [self(arg) for arg in args]), ATOM
            case Op(sign, left, right):
                return self._operation(sign, left, right)
        raise TypeError(node)

    def _operation(self, sign: str, left: Expr, right: Expr) -> tuple[str, int]:
        if sign == "-" and left == Num(0):
            operand = self(right, PRODUCT)
            operand = self.parentheses(operand) if operand.startswith("-") else operand
            return f"-{operand}", PRODUCT
        if sign == "/":
            return self.fraction(left, right)
        if sign == "**":
            return self.power(self(left, ATOM), right), POWER
        if sign in ("<", "<=", ">", ">=", "==", "!=", "and"):
            return f"{self(left)} {self.relation(sign)} {self(right)}", LOOSE
        if sign in ("+", "-"):
            subtrahend = self(right, SUM if sign == "+" else PRODUCT)
            return self.joined(self(left, SUM), sign, subtrahend), SUM
        level = LEVEL[sign]
        joint = self.times if sign == "*" else f" {sign} "
        first = self(left, POWER if isinstance(left, Over) else level)
        return f"{first}{joint}{self(right, level + 1)}", level

    def _terms(self, kind: str, parts: tuple[Expr, ...]) -> tuple[str, int]:
        if kind != "sum" and any(isinstance(part, Choice) for part in parts):
            return self.call(kind, [self.cases(parts)]), ATOM
        shown = [self(part, SUM) for part in parts]
        if len(shown) > self.terms and Gap() not in parts:
            shown = [*shown[: self.terms - 1], self.dots, shown[-1]]
        if kind != "sum":
            return self.call(kind, shown), ATOM
        total = shown[0]
        for term in shown[1:]:
            total = self.joined(total, "+", term)
        return total, SUM

    def joined(self, left: str, sign: str, right: str) -> str:
        """Write a sum or a difference; its right side may start with a minus sign."""
        if right.startswith("-"):
            return f"{left} - {right[1:]}" if sign == "+" else f"{left} - {self.parentheses(right)}"
        return f"{left} {sign} {right}"

    dots = "…"
    terms = SHOWN  # of a sum that are written out

    def number(self, value: float) -> str:
        """Write a plain number of a formula."""
        return f"{value:g}"

    def parentheses(self, text: str) -> str:
        """Put parentheses around an expression."""
        return f"({text})"

    def relation(self, sign: str) -> str:
        """Write a comparison."""
        return {"==": "=", "<=": "≤", ">=": "≥", "!=": "≠"}.get(sign, sign)

    def fraction(self, left: Expr, right: Expr) -> tuple[str, int]:
        """Write a quotient."""
        return f"{self(left, PRODUCT)} / {self(right, POWER)}", PRODUCT

    def power(self, base: str, exponent: Expr) -> str:
        """Write a power."""
        small = {Num(2): "²", Num(3): "³"}
        return base + (small[exponent] if exponent in small else f"^{self(exponent, ATOM)}")

    def call(self, name: str, args: list[str]) -> str:
        """Write a function of its arguments."""
        name = {"sqrt": "√"}.get(name, name)
        return f"{name}({', '.join(args)})"

    def over(self, kind: str, letters: tuple[str, ...], body: str) -> str:
        """Write a sum, or a maximum, over letters."""
        return f"{'Σ' if kind == 'sum' else kind}_{''.join(letters)} {body}"

    def choice(self, condition: str, then: str, otherwise: str) -> str:
        """Write a distinction of cases."""
        return f"{then} if {condition} else {otherwise}"

    def cases(self, parts: tuple[Expr, ...]) -> str:
        """Write the terms of a minimum or maximum of which some count under a condition only."""
        return ", ".join(
            f"{self(part.then)} if {self(part.condition)}"
            if isinstance(part, Choice)
            else self(part)
            for part in parts
        )


class LatexWriter(Writer):
    """Write expressions in the LaTeX that amsmath, MathJax and KaTeX all understand."""

    dots = r"\cdots"
    terms = 32
    functions: ClassVar = {
        "exp": r"\exp", "log": r"\log", "tanh": r"\tanh", "cos": r"\cos", "sin": r"\sin",
        "max": r"\max", "min": r"\min", "σ": r"\sigma", "Φ": r"\Phi", "φ": r"\varphi",
    }  # fmt: skip

    def __init__(self, write: Write, times: str = r" \, ") -> None:
        super().__init__(write, times)

    def number(self, value: float) -> str:
        """Write a plain number of a formula."""
        return latex_number(f"{value:g}")

    def parentheses(self, text: str) -> str:
        """Put parentheses around an expression, as high as it is."""
        return rf"\left({text}\right)"

    def relation(self, sign: str) -> str:
        """Write a comparison."""
        return {"==": "=", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "and": r"\text{ and }"}.get(
            sign, sign
        )

    def fraction(self, left: Expr, right: Expr) -> tuple[str, int]:
        """Write a quotient as a fraction."""
        return rf"\frac{{{self(left)}}}{{{self(right)}}}", PRODUCT

    def power(self, base: str, exponent: Expr) -> str:
        """Write a power, with parentheses around a base that has a superscript itself."""
        base = self.parentheses(base) if "^" in base and not base.startswith(r"\left(") else base
        return f"{{{base}}}^{{{self(exponent)}}}"

    def call(self, name: str, args: list[str]) -> str:
        """Write a function of its arguments."""
        if name == "sqrt":
            return rf"\sqrt{{{args[0]}}}"
        if name == "abs":
            return rf"\left|{args[0]}\right|"
        function = self.functions.get(name, rf"\operatorname{{{name}}}")
        return rf"{function}\left({', '.join(args)}\right)"

    def over(self, kind: str, letters: tuple[str, ...], body: str) -> str:
        """Write a sum, or a maximum, over letters."""
        sign = {"sum": r"\sum"}.get(kind, rf"\{kind}")
        return f"{sign}_{{{', '.join(letters)}}} {body}"

    def choice(self, condition: str, then: str, otherwise: str) -> str:
        """Write a distinction of cases."""
        first, second = rf"{then} & \text{{if }} {condition}", rf"{otherwise} & \text{{otherwise}}"
        return rf"\begin{{cases}} {first} \\ {second} \end{{cases}}"

    def cases(self, parts: tuple[Expr, ...]) -> str:
        """Write the terms of a minimum or maximum of which some count under a condition only."""
        lines = [
            rf"{self(part.then)} & \text{{if }} {self(part.condition)}"
            if isinstance(part, Choice)
            else self(part)
            for part in parts
        ]
        inside = r" \\ ".join(lines)
        return rf"\begin{{matrix}} {inside} \end{{matrix}}"


def latex_number(text: str) -> str:
    """Write a number such as 1.5e-07 as 1.5 × 10⁻⁷."""
    match = re.fullmatch(r"(-?[\d.]+)e([+-]\d+)", text)
    return rf"{match[1]} \times 10^{{{int(match[2])}}}" if match else text.replace("inf", r"\infty")


def format_number(value: SupportsFloat, significant: int = 6) -> str:
    """Write a number with the given number of significant digits.

    Near 1 there are so many that a calculator finds 1 - x from them, as it is needed for the slopes
    of activations.
    """
    number = float(value) + 0.0  # no minus zero
    if significant >= 6 and 0.99 < abs(number) < 1:
        significant = min(15, significant - 2 + math.ceil(-math.log10(1 - abs(number))))
    return f"{number:.{significant}g}"
