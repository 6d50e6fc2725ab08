"""Mistakes that are made less often, as edits of an equation.

What applies to a whole sum is applied to one of its terms, a number is counted wrongly, two arrays
have changed places, one sample's numbers serve for all.
"""

import itertools
import math
from collections.abc import Iterator

from jaxnn.formulas.expressions import (
    ONE,
    ZERO,
    Call,
    Choice,
    Equation,
    Expr,
    Index,
    Num,
    Op,
    Over,
    Ref,
    overs,
    refs,
    substitute,
    walk,
)
from jaxnn.gradcheck.edits import (
    Change,
    Edit,
    Shapes,
    copy_of,
    everywhere,
    everywhere_replaced,
    leave_out,
    made,
    put_for,
    renamed,
    write,
)


def rarer_edits(equation: Equation, shapes: Shapes) -> Iterator[Edit]:
    """Enumerate the rarer mistakes that can be made in one equation.

    Args:
        equation: an equation of the backward pass.
        shapes: the arrays that could stand in the place of others, with their shapes.
    """
    yield from made(
        equation,
        itertools.chain(
            everywhere(equation.body, _of_a_part),
            _numbers(equation, shapes),
            _two_arrays(equation, shapes),
            _one_sample(equation),
            _masks(equation),
            _times_at_the_place(equation, shapes),
            _blocks(equation),
            _without_the_product(equation),
            _without_keepdims(equation),
            _through_time(equation),
            everywhere(equation.body, lambda node: _centred(node, equation)),
            everywhere(equation.body, lambda node: _weighted(node, equation)),
        ),
    )


def left_outs(equation: Equation) -> Iterator[Edit]:
    """Enumerate the terms and factors that can be left out or be applied to one term only."""
    yield from made(equation, everywhere(equation.body, lambda node: leave_out(node, equation)))
    yield from made(equation, everywhere(equation.body, _of_a_part))


# ── A part of the equation ──────────────────────────────────────────────────────────────────────


def _of_a_part(node: Expr) -> Iterator[Change]:
    match node:
        case Op("*" | "/" as sign, Op("+" | "-" as plus, one, other), factor):
            yield from _of_one_term(sign, plus, one, other, factor)
    match node:
        case Op("*", factor, Op("+" | "-" as plus, one, other)):
            yield from _of_one_term("*", plus, one, other, factor)
        case Call("sqrt", (Op("+", inner, Num() as small),)):
            words = f"{write(small)} is added outside the root, not inside"
            yield Change("power", words, Op("+", Call("sqrt", (inner,)), small))
        case Call("φ", (x,)):
            square = Op("**", x, Num(2))
            root = Call("sqrt", (Num(2 * math.pi),))
            density = Call("exp", (Op("/", Op("-", ZERO, square), Num(2)),))
            words = "the density φ lacks its factor 1/√(2π)"
            yield Change("factor", words, density)
            words = f"exp(-{write(x)}²) stands in the place of exp(-{write(x)}²/2) in the density φ"
            without = Op("/", Call("exp", (Op("-", ZERO, square),)), root)
            yield Change("factor", words, without)
            words = f"the distribution Φ({write(x)}) stands in the place of its density φ"
            yield Change("function", words, Call("Φ", (x,)))
        case Choice(condition, then, otherwise):
            yield from _of_a_branch(condition, then, otherwise)
        case Op("+", one, other):
            words = f"the product of {write(one)} and {write(other)} stands for their sum"
            yield Change("operation", words, Op("*", one, other))


def _of_one_term(sign: str, plus: str, one: Expr, other: Expr, factor: Expr) -> Iterator[Change]:
    """Apply to one term what belongs to both."""
    if isinstance(one, Num):  # a minus sign, or the complement of a gate
        return
    what = "divided" if sign == "/" else "multiplied"
    for term, rest in ((one, other), (other, one)):
        new = Op(sign, term, factor)
        whole = Op(plus, new, other) if term is one else Op(plus, one, new)
        words = f"only {write(term)} is {what} by {write(factor)}, not {write(rest)} too"
        yield Change("precedence", words, whole)
    inverse = "/" if sign == "*" else "*"
    for by, words in (
        (factor, f"{write(other)} is {what} by {write(factor)} twice"),
        (Op("*", factor, factor), f"{write(other)} is {what} by {write(factor)} three times"),
    ):
        more = Op(plus, one, Op(sign, other, by))
        yield Change("power", words, Op(sign, more, factor))
    square = Op("*", factor, factor)
    less = Op(plus, one, Op(inverse, other, square))
    words = f"the power of {write(factor)} at {write(other)} is wrong by two"
    yield Change("power", words, Op(sign, less, factor))


def _of_a_branch(condition: Expr, then: Expr, otherwise: Expr) -> Iterator[Change]:
    words, minus = write(condition), lambda node: Op("-", ZERO, node)
    if then not in (ZERO, ONE):
        sign = f"the sign is wrong where {words}"
        yield Change("sign", sign, Choice(condition, minus(then), otherwise))
        without = f"there is no gradient where {words}"
        yield Change("condition", without, Choice(condition, ZERO, otherwise))
    if otherwise not in (ZERO, ONE):
        sign = f"the sign is wrong where {words} does not hold"
        yield Change("sign", sign, Choice(condition, then, minus(otherwise)))
        without = f"there is no gradient where {words} does not hold"
        yield Change("condition", without, Choice(condition, then, ZERO))


def _weighted(node: Expr, equation: Equation) -> Iterator[Change]:
    """Put a plain mean in the place of a sum that is weighted, as by the softmax."""
    match node:
        case Over("sum", letters, Op("*", one, other)):
            count = math.prod(equation.sizes[letter] for letter in letters)
            for weight, kept in ((one, other), (other, one)):
                mean = Op("/", Over("sum", letters, kept), Num(count))
                words = (
                    f"a plain mean of {write(kept)} stands in the place of its sum "
                    f"weighted by {write(weight)}"
                )
                yield Change("mean", words, mean)


def _centred(node: Expr, equation: Equation) -> Iterator[Change]:
    """Subtract a mean, as a normalisation that centres does."""
    if not isinstance(node, Ref) or not node.at or not node.name.startswith("d"):
        return
    for part in node.at:
        if isinstance(part, Index) and part.name in equation.letters:
            size, copy = equation.sizes[part.name], copy_of(part.name)
            if size > 1:
                moved = substitute(node, {part.name: Index(copy)})
                mean = Op("/", Over("sum", (copy,), moved), Num(size))
                words = f"the mean over {part.name} of {write(node)} is subtracted from it"
                yield Change("term", words, Op("-", node, mean))


# ── Numbers ─────────────────────────────────────────────────────────────────────────────────────


def _numbers(equation: Equation, shapes: Shapes) -> Iterator[Change]:
    """Divide by another number of values, such as that of one axis for all."""
    lengths = dict[int, str]()
    for letter, size in equation.sizes.items():
        lengths.setdefault(size, f"the number of values of {letter}")
    for (a, n), (b, m) in itertools.combinations(equation.sizes.items(), 2):
        lengths.setdefault(n * m, f"the number of values of {a} and {b}")
    for name, shape in shapes.items():
        for axis, size in enumerate(shape):
            lengths.setdefault(size, f"the length of axis {axis} of {name}")
    counts = dict.fromkeys(part for node in walk(equation.body) for part in _counts(node))
    for number in counts:
        less = {int(number.value) - 1: "one less than the number of values"}
        for size, what in (less | lengths).items() if number.value >= 2 else ():
            if size not in (number.value, 0):
                words = f"{size}, {what}, stands in the place of {number.value:g}"
                body = everywhere_replaced(equation.body, number, Num(size))
                yield Change("number", words, body)
    for node in dict.fromkeys(walk(equation.body)):
        for letter, size in equation.sizes.items() if isinstance(node, Num) else ():
            if size > 1 and 0 < node.value < 1:  # type: ignore[union-attr]
                other = Num(node.value * size / (size - 1))  # type: ignore[union-attr]
                words = (
                    f"{write(other)} stands in the place of {write(node)}: it is divided by "
                    f"{size - 1}, one less than the number of values of {letter}"
                )
                yield Change("number", words, everywhere_replaced(equation.body, node, other))


def _counts(node: Expr) -> Iterator[Num]:
    """Return the numbers by which, or by the root of which, something is divided."""
    match node:
        case Op("/", _, Num() as number) | Op("/", _, Call("sqrt", (Num() as number,))):
            yield number


# ── Arrays ──────────────────────────────────────────────────────────────────────────────────────


def _two_arrays(equation: Equation, shapes: Shapes) -> Iterator[Change]:
    """Exchange two arrays, or put an array's gradient in its place."""
    names = list(dict.fromkeys(ref.name for ref in refs(equation.body)))
    for a, b in itertools.combinations(names, 2):
        if shapes.get(a) == shapes.get(b, ()):
            words = f"{a} and {b} have changed places"
            yield Change("exchanged", words, renamed(equation.body, {a: b, b: a}))
    for name in names:
        if f"d{name}" in shapes and f"d{name}" != equation.name:
            words = f"the gradient d{name} stands in the place of {name} itself"
            yield Change("other array", words, renamed(equation.body, {name: f"d{name}"}))


def _one_sample(equation: Equation) -> Iterator[Change]:
    """Take the numbers of one sample for all of them, but for the derivative that comes in."""
    batch = next((letter for letter in equation.letters if letter in ("n", "n0")), None)
    if batch is None:
        return
    for which, sample in (("first", 0), ("last", equation.sizes[batch] - 1)):
        body = equation.body
        for ref in dict.fromkeys(refs(body)):
            if not ref.name.startswith("d"):
                body = put_for(ref, substitute(ref, {batch: Num(sample)}), body)
        words = f"the numbers of the {which} sample are used for all samples"
        yield Change("batch", words, body)


def _masks(equation: Equation) -> Iterator[Change]:
    """Count only the entries for which a condition in the equation holds."""
    conditions = [node.condition for node in walk(equation.body) if isinstance(node, Choice)]
    bound = {letter for over in overs(equation.body) for letter in over.letters}
    for condition in dict.fromkeys(conditions):
        if bound & {part.name for part in walk(condition) if isinstance(part, Index)}:
            continue
        words = f"there is a gradient only where {write(condition)}"
        yield Change("condition", words, Choice(condition, equation.body, ZERO))


def slopes_at(entry: Expr) -> Iterator[tuple[str, Expr]]:
    """Enumerate the slopes of common activations at a number, or at their value."""
    sigmoid = Call("σ", (entry,))
    yield "the slope of a sigmoid at its value", Op("*", entry, Op("-", ONE, entry))
    yield "the slope of a sigmoid", Op("*", sigmoid, Op("-", ONE, sigmoid))
    yield "the slope of tanh at its value", Op("-", ONE, Op("**", entry, Num(2)))
    yield "the slope of ReLU", Choice(Op(">", entry, ZERO), ONE, ZERO)


def _times_at_the_place(equation: Equation, shapes: Shapes) -> Iterator[Change]:
    """Multiply the derivative that comes in by what belongs to the same entry, or by a slope."""
    for ref in dict.fromkeys(refs(equation.body)):
        if ref.name != "dy" or not ref.at:
            continue
        for name, shape in shapes.items():
            if name.startswith("d") or shape != shapes.get("dy"):
                continue
            entry = Ref(name, ref.at)
            yield Change(
                "factor",
                f"dy is multiplied by {name}",
                put_for(ref, Op("*", ref, entry), equation.body),
            )
            for what, slope in slopes_at(entry):
                words = f"dy is multiplied by {what}, {name}"
                yield Change("slope", words, put_for(ref, Op("*", ref, slope), equation.body))
    gates = [ref for ref in dict.fromkeys(refs(equation.body)) if ref.name in ("f", "u", "r")]
    for ref in gates:
        rest = Op("-", ONE, ref)
        words = f"{write(rest)} stands in the place of {write(ref)}"
        yield Change("term", words, put_for(ref, rest, equation.body))
    for ref in dict.fromkeys(refs(equation.body)):
        before = Ref("h", (*(ref.at or ())[:1], Op("-", Index("t"), ONE), *(ref.at or ())[2:]))
        here = ref.at is not None and len(ref.at) == 3 and ref.at[1] == Index("t")
        if here and "h" in shapes and ref.name in ("c", "g", "h"):
            words = f"the state before, {write(before)}, stands in the place of {write(ref)}"
            yield Change("other array", words, put_for(ref, before, equation.body))


def _blocks(equation: Equation) -> Iterator[Change]:
    """Leave out one gate, or keep one alone, in a sum over the numbers of all gates."""
    small = [equation.sizes[letter] for letter in equation.letters]
    for over in dict.fromkeys(overs(equation.body)):
        if over.kind != "sum" or len(over.letters) != 1 or "t" not in equation.letters:
            continue
        (letter,) = over.letters
        size, count = equation.sizes[letter], equation.sizes[letter] // small[-1]
        if count < 2 or size % small[-1]:
            continue
        for gate in range(count):
            first, after = Num(gate * small[-1]), Num((gate + 1) * small[-1])
            outside = Op("or", Op("<", Index(letter), first), Op(">=", Index(letter), after))
            less = over._replace(body=Choice(outside, over.body, ZERO))
            words = f"of the sum over {letter}, gate {gate} of {count} is left out"
            yield Change("sum", words, everywhere_replaced(equation.body, over, less))


def _without_the_product(equation: Equation) -> Iterator[Change]:
    """Pass on what comes in, without the product with the weights."""
    for over in dict.fromkeys(overs(equation.body)):
        match over:
            case Over("sum", (letter,), Op("*", one, other)):
                for kept, lost in ((one, other), (other, one)):
                    for free in equation.letters:
                        if equation.sizes[free] == equation.sizes[letter]:
                            passed = substitute(kept, {letter: Index(free)})
                            words = f"{write(passed)} is not multiplied by {write(lost)}"
                            body = everywhere_replaced(equation.body, over, passed)
                            yield Change("factor", words, body)


def _without_keepdims(equation: Equation) -> Iterator[Change]:
    """Line a sum for each sample up with the columns, as broadcasting does without keepdims."""
    for over in dict.fromkeys(overs(equation.body)):
        mentioned = {part.name for part in walk(over) if isinstance(part, Index)}
        for row, column in itertools.permutations(equation.letters, 2):
            alike = equation.sizes[row] == equation.sizes[column]
            if alike and row in mentioned and column not in mentioned:
                turned = substitute(over, {row: Index(column)})
                words = (
                    f"{write(over)} is lined up with the columns, not with the rows: "
                    "keepdims=True is missing"
                )
                yield Change("axis", words, everywhere_replaced(equation.body, over, turned))


def _through_time(equation: Equation) -> Iterator[Change]:
    """Cut what comes from the next step, once, or take it before a slope was multiplied in."""
    if "t" not in equation.letters:
        return
    following = Op("+", Index("t"), ONE)
    later = [ref for ref in dict.fromkeys(refs(equation.body)) if following in (ref.at or ())]
    for ref in later:
        if ref.name != equation.name:
            words = (
                f"{equation.name} stands in the place of {ref.name}, on the way to the step before"
            )
            other = ref._replace(name=equation.name)
            yield Change("other array", words, put_for(ref, other, equation.body))
    for step in range(equation.sizes["t"] - 1):
        body = equation.body
        for ref in later:
            body = put_for(ref, Choice(Op("==", Index("t"), Num(step)), ZERO, ref), body)
        if later:
            words = f"nothing is passed back from step {step + 1} to step {step}"
            yield Change("time", words, body)
