"""The letters of an equation, and for each the number of its values.

A letter has as many values as the axis that it indexes alone. It may also stand for several axes,
and the layer's text may state a number, as in ``j:3``, or count by a name, as in ``for i in I``.
"""

import math
from collections.abc import Mapping
from typing import Any

from jaxnn.checks import InputError
from jaxnn.formulas.expressions import (
    Equation,
    Expr,
    Index,
    Num,
    Ref,
    overs,
    rebuild,
    refs,
    replace,
    walk,
)
from jaxnn.formulas.folding import fold
from jaxnn.formulas.names import (
    Names,
    Shape,
    Size,
)


class Letters:
    """The letters of one line.

    Attributes:
        free: the letters that index the left side, and those of the sums that are being read.
        stated_sizes: the numbers of values that the line states.
        starred: the letters that stand for any number of axes.
        spread: the letters of the single axes for each letter that stands for several.
    """

    def __init__(self, text: str, names: Names, letters_of: Mapping[str, set[str]]) -> None:
        self.text, self.names, self.letters_of = text, names, letters_of
        self.free: list[str] = []
        self.stated_sizes: dict[str, int] = {}
        self.starred: set[str] = set()
        self.spread: dict[str, tuple[str, ...]] = {}

    def complete(self, name: str, at: tuple[Expr, ...] | None, body: Expr) -> Equation:
        """Make an equation, all of whose letters have a number of values.

        Args:
            name: the array on the left.
            at: its indices; None for an equation between whole arrays, entry by entry.
            body: the right side as it is read.

        Raises:
            InputError: for a letter whose number of values is not known, or too few letters.
        """
        shapes = self.names.shapes
        if at is None and all(ref.at is None for ref in refs(body)):
            equation = entry_by_entry(name, body, shapes)
            return equation._replace(body=self._settled(equation.body, equation.sizes))
        at = at or ()
        at, body = self.one_for_each_axis(name, at, body)
        sizes = self.sizes(name, at, body)
        body = self._settled(body, sizes)
        at = tuple(self._settled(Ref(name, at), sizes).at)  # type: ignore[union-attr, arg-type]
        used = [index for part in at for index in walk(part) if isinstance(index, Index)]
        for letter in (*(index.name for index in used), *_bound(body)):
            if letter not in sizes:
                raise InputError(
                    f"formulas: expected an array that says how far {letter} counts "
                    f"in {self.text!r}."
                )
        for ref in self._mentions(name, at, body):
            if len(ref.at or ()) != len(shapes[ref.name]):
                raise InputError(
                    f"formulas: expected {len(shapes[ref.name])} letters for {ref.name} "
                    f"in {self.text!r}."
                )
        return Equation(name, at, body, sizes)

    def _mentions(self, name: str, at: tuple[Expr, ...], body: Expr) -> list[Ref]:
        left = [Ref(name, at)] if name in self.names.shapes else []
        return left + [ref for ref in refs(body) if ref.name in self.names.shapes]

    def one_for_each_axis(
        self, name: str, at: tuple[Expr, ...], body: Expr
    ) -> tuple[tuple[Expr, ...], Expr]:
        """Replace a letter that stands for several axes by one letter for each axis.

        It is a letter with a star, or the first one of an array with more axes than letters.
        """
        counts: dict[str, int] = {}
        for ref in self._mentions(name, at, body):
            letters = [part.name for part in ref.at or () if isinstance(part, Index)]
            starred = [letter for letter in letters if letter in self.starred]
            first = ref.at and isinstance(ref.at[0], Index) and ref.at[0].name
            letter = starred[0] if starred else first
            if letter and (letter not in counts or counts[letter] == 1):
                counts[letter] = len(self.names.shapes[ref.name]) - len(ref.at or ()) + 1
        self.spread = {
            letter: tuple(f"{letter}{k}" for k in range(count))
            for letter, count in counts.items()
            if count != 1
        }

        def widen(letters: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(part for letter in letters for part in self.spread.get(letter, (letter,)))

        def indices(parts: tuple[Expr, ...]) -> tuple[Expr, ...]:
            wide: list[Expr] = []
            for part in parts:
                names = self.spread.get(part.name) if isinstance(part, Index) else None
                wide += [part] if names is None else map(Index, names)
            return tuple(wide)

        def respell(ref: Ref) -> Ref:
            return ref._replace(at=indices(ref.at or ()))

        return indices(at), replace(body, respell, widen)

    def sizes(self, name: str, at: tuple[Expr, ...], body: Expr) -> dict[str, int]:
        """Find the number of values of each letter: the size of an axis that it indexes alone."""
        sizes: dict[str, int] = {}
        for ref in self._mentions(name, at, body):
            for part, size in zip(ref.at or (), self.names.shapes[ref.name], strict=False):
                if isinstance(part, Index):
                    sizes.setdefault(part.name, size)
        for count, letters in self.letters_of.items():
            if count in self.names.named_sizes and len(letters) == 1:  # as in ``for t in T``
                sizes.setdefault(next(iter(letters)), self.names.named_sizes[count])
        return sizes | self.stated_sizes

    def _settled(self, body: Expr, sizes: Mapping[str, int]) -> Expr:
        """Put in the numbers that names such as ``I`` stand for, and simplify."""

        def with_numbers(node: Any) -> Expr:
            if not isinstance(node, Size):
                return rebuild(node, with_numbers)
            for letters in [node.letters] if not node.name else [(one,) for one in node.letters]:
                wide = [part for one in letters for part in self.spread.get(one, (one,))]
                if all(letter in sizes for letter in wide):
                    return Num(math.prod(sizes[letter] for letter in wide))
            if node.name not in self.names.named_sizes:
                raise InputError(
                    f"formulas: expected a known name, got {node.name!r} in {self.text!r}."
                )
            return Num(self.names.named_sizes[node.name])

        return fold(with_numbers(body), sizes)

    def note_sizes(self, sizes: Mapping[str, int]) -> None:
        """Remember the numbers of values for which names such as ``I`` stand."""
        for name, letters in self.letters_of.items():
            for letter in letters:
                axes = self.spread.get(letter, (letter,))
                if all(axis in sizes for axis in axes):
                    self.names.named_sizes[name] = math.prod(sizes[axis] for axis in axes)


def _bound(body: Expr) -> list[str]:
    return [letter for over in overs(body) for letter in over.letters]


def entry_by_entry(name: str, body: Expr, shapes: Mapping[str, Shape]) -> Equation:
    """Index all arrays of the full shape by the same letters."""
    shape = shapes.get(name, max((shapes[ref.name] for ref in refs(body)), key=len, default=()))
    free = letters_for_axes(len(shape), name)
    whole = tuple(map(Index, free))

    def respell(ref: Ref) -> Ref:
        return ref._replace(at=whole if shapes[ref.name] == shape else ())

    return Equation(name, whole, replace(body, respell), dict(zip(free, shape, strict=True)))


def letters_for_axes(count: int, text: str) -> tuple[str, ...]:
    """Return a letter for each axis of an array that is indexed entry by entry.

    Raises:
        InputError: for more axes than there are letters.
    """
    letters = ("n", "i", "j", "k", "l", "m")
    if count > len(letters):
        raise InputError(
            f"formulas: expected at most {len(letters)} axes, got {count} in {text!r}."
        )
    return letters[:count]
