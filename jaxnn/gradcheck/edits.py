"""The mistakes that can be made in an equation, as edits of the equation.

A term or a factor is left out, a sign is wrong, two indices are exchanged, the input stands in the
place of the output, a step of time is missed. Each edit says in words what it does; none of them
knows about layers.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

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
    children,
    overs,
    rebuild,
    refs,
    replace,
    substitute,
    walk,
)
from jaxnn.formulas.folding import fold, linear
from jaxnn.formulas.printing import Writer

Shapes = Mapping[str, tuple[int, ...]]


class Edit(NamedTuple):
    """One mistake.

    Attributes:
        kind: a word for it: "sign", "term", "factor", "transposed", …
        words: what was done to the equation, as a clause.
        equation: the equation with the mistake in it.
        program: what computes the array that the equation defines, where the mistake lies in a
            program rather than in the equation: a function of the layer's arrays by their names.
    """

    kind: str
    words: str
    equation: Equation
    program: Callable[[Mapping[str, Any]], Any] | None = None


class Change(NamedTuple):
    """A change of an expression, before it is put back into its equation."""

    kind: str
    words: str
    node: Expr


def edits(equation: Equation, shapes: Shapes, forward: Mapping[str, Expr]) -> Iterator[Edit]:
    """Enumerate the mistakes that can be made in one equation, the likeliest first.

    Args:
        equation: an equation of the backward pass.
        shapes: the arrays that could stand in the place of others, with their shapes.
        forward: of each array that holds a function of another one, entry by entry, the function.
    """
    changes = itertools.chain(
        _of_the_whole(equation),
        everywhere(equation.body, _slopes),
        _in_turn(
            everywhere(equation.body, lambda node: _in_place(node, equation)),
            _exchanges(equation, shapes),
        ),
        everywhere(equation.body, lambda node: _turned(node, shapes)),
        everywhere(equation.body, lambda node: _one_exchange(node, equation, shapes)),
        _functions(equation, forward),
        everywhere(equation.body, lambda node: _summed(node, equation)),
        _more_factors(equation, shapes),
        _left_out(equation),
        _halves(equation),
    )
    yield from made(equation, changes)


def _in_turn(*changes: Iterator[Change]) -> Iterator[Change]:
    for each in itertools.zip_longest(*changes):
        yield from filter(None, each)


def slopes(equation: Equation) -> Iterator[Edit]:
    """Enumerate the wrong slopes of the gates in one equation."""
    yield from made(equation, everywhere(equation.body, _slopes))


def made(equation: Equation, changes: Iterator[Change]) -> Iterator[Edit]:
    """Put each change into the equation, once."""
    seen = {equation.body}
    for kind, words, node in changes:
        sizes = {**_sizes_of_copies(node, equation), **equation.sizes}
        body = fold(node, sizes)
        if body not in seen:
            seen.add(body)
            yield Edit(kind, words, equation._replace(body=body, sizes=sizes))


def copy_of(letter: str) -> str:
    """Return a letter that counts as another one does, for a sum over what is free elsewhere."""
    return f"{letter}'"


def _sizes_of_copies(node: Expr, equation: Equation) -> dict[str, int]:
    bound = {letter for over in overs(node) for letter in over.letters} - {*equation.sizes}
    return {letter: equation.sizes[letter.rstrip("'")] for letter in bound}


def written(equation: Equation) -> str:
    """Write an equation in the names and with the indices of the code."""
    return f"{write(equation.left)} = {write(equation.body)}"


def _entry(ref: Ref) -> str:
    return spelled(ref.name) + (f"[{', '.join(map(write, ref.at))}]" if ref.at else "")


def spelled(name: str) -> str:
    """Write a name as formulas do: an array of a combinator's child is f[0], f[1], …."""
    child = re.fullmatch(r"(d?[fxy])([1-9])", name)
    return f"{child[1]}[{int(child[2]) - 1}]" if child else name


write = Writer(_entry)


# ── The whole right side ────────────────────────────────────────────────────────────────────────


def _of_the_whole(equation: Equation) -> Iterator[Change]:
    body = equation.body
    yield Change("sign", "the sign is wrong", Op("-", ZERO, body))
    summed = body.letters if isinstance(body, Over) else ()
    others = [letter for over in overs(body) for letter in over.letters]
    for letter in dict.fromkeys((*summed, *equation.letters, *others)):
        size = equation.sizes[letter]
        words = (
            f"a mean is taken where a sum is meant, over the {size} values of {letter}"
            if letter in summed
            else f"it is divided by {size}, the number of values of {letter}, besides"
        )
        if size > 1:
            yield Change("mean", words, Op("/", body, Num(size)))
    yield from _over_the_other_axis(equation)
    if all(isinstance(part, Index) for part in equation.at):
        for a, b in itertools.combinations(equation.letters, 2):
            if equation.sizes[a] == equation.sizes[b]:
                swapped = substitute(body, {a: Index(b), b: Index(a)})
                yield Change("transposed", f"the result is transposed, {a} for {b}", swapped)


def _over_the_other_axis(equation: Equation) -> Iterator[Change]:
    """Sum over the axis that should remain, so that the one remains that should be summed over."""
    match equation.body:
        case Over("sum", (bound,), body) if len(equation.letters) == 1:
            (free,) = equation.letters
            both = all({Index(bound), Index(free)} <= {*(ref.at or ())} for ref in refs(body))
            if both and equation.sizes[bound] == equation.sizes[free]:
                other = substitute(body, {bound: Index(free), free: Index(bound)})
                words = f"the sum runs over the axis of {free}, not over that of {bound}"
                yield Change("axis", words, Over("sum", (bound,), other))


# ── A part of it ────────────────────────────────────────────────────────────────────────────────


def everywhere(node: Expr, changes: Callable[[Expr], Iterator[Change]]) -> Iterator[Change]:
    """Make each change of a part of an expression, one at a time; the outer parts come first."""
    yield from changes(node)
    if isinstance(node, Ref):
        return
    for k, part in enumerate(children(node)):
        for kind, words, new in everywhere(part, changes):
            yield Change(kind, words, _with_part(node, k, new))


def _with_part(node: Expr, k: int, new: Expr) -> Expr:
    """Return a node with another k-th part."""
    parts = iter([new if i == k else part for i, part in enumerate(children(node))])
    return rebuild(node, lambda _: next(parts))


def _in_place(node: Expr, equation: Equation) -> Iterator[Change]:
    match node:
        case Op("+" | "-" | "*" | "/" | "**"):
            yield from _operations(node, equation)
        case Call("sqrt", (arg,)):
            yield Change("power", f"the root of {write(arg)} is left out", arg)
        case Call(name, (arg,)) if name != "guard":
            yield Change("function", f"{write(arg)} stands in the place of {write(node)}", arg)
            negative = Call(name, (Op("-", ZERO, arg),))
            yield Change("sign", f"the sign of {write(arg)} inside {name} is wrong", negative)
        case Choice(condition, then, otherwise):
            words = write(condition)
            reverse = Choice(condition, otherwise, then)
            yield Change("condition", f"{words} is taken always to hold", then)
            yield Change("condition", f"{words} is taken never to hold", otherwise)
            yield Change("condition", f"{words} is taken the wrong way round", reverse)
            match node:
                case Choice(Op("==", label, Index()), Num(1), Num(0)):
                    what = f"{write(label)} itself stands in the place of its one-hot vector"
                    yield Change("one-hot", what, label)
        case Op("==" | "<" | "<=" | ">" | ">=" | "and"):
            yield from _comparisons(node)
        case Over("sum", letters, _):
            yield from _sums(node, letters, equation)
        case Ref(name, at) if at:
            yield from _indices(node, equation)
            if not name.startswith("d"):
                words = f"the square of {write(node)} stands in its place"
                yield Change("power", words, Op("*", node, node))


def leave_out(node: Expr, equation: Equation) -> Iterator[Change]:
    """Leave out a term, a factor or a divisor."""
    match node:
        case Op("+" | "-" as sign, left, right) if left != ZERO:
            rest = right if sign == "+" else Op("-", ZERO, right)
            yield Change("term", f"the term {write(right)} is left out", left)
            yield Change("term", f"the term {write(left)} is left out", rest)
        case Op("*", left, right):
            for factor, rest in ((left, right), (right, left)):
                again = [*walk(equation.body)].count(factor) > 1
                of = f" of {write(node)}" if again else ""
                yield Change("factor", f"the factor {write(factor)} is left out{of}", rest)
        case Op("/", left, right):
            yield Change("factor", f"the division by {write(right)} is left out", left)


def _operations(node: Op, equation: Equation) -> Iterator[Change]:
    _, left, right = node
    match node:
        case Op("-", Num(0), _):
            yield Change("sign", f"the minus sign of {write(right)} is left out", right)
        case Op("-", one, Op("**", base, exponent)):
            yield from _terms(node, equation)
            outside = Op("**", Op("-", one, base), exponent)
            yield Change("power", f"{write(outside)} stands for {write(node)}", outside)
        case Op("+" | "-"):
            yield from _terms(node, equation)
        case Op("*"):
            yield from leave_out(node, equation)
            for factor, rest in ((left, right), (right, left)):
                words = write(factor)
                yield Change("factor", f"the factor {words} counts twice", Op("*", node, factor))
                yield Change("factor", f"it is divided by {words}", Op("/", rest, factor))
            for other, what in (("-", "difference"), ("+", "sum")):
                words = f"the {what} of {write(left)} and {write(right)} stands for their product"
                yield Change("operation", words, Op(other, left, right))
        case Op("/"):
            yield from leave_out(node, equation)
            words = write(right)
            yield Change("factor", f"{write(left)} is left out", Op("/", ONE, right))
            yield Change("factor", f"it is multiplied by {words}", Op("*", left, right))
            yield Change("factor", f"it is divided by {words} twice", Op("/", node, right))
        case Op("**"):
            words = write(left)
            doubled = Op("*", right, left)
            yield Change("power", f"{words} stands in the place of {write(node)}", left)
            yield Change("power", f"{write(node)} is left out", ONE)
            yield Change("power", f"{words} has one power too many", Op("*", node, left))
            yield Change("power", f"{write(doubled)} stands in the place of {write(node)}", doubled)


def _slopes(node: Expr) -> Iterator[Change]:
    """Put another slope in the place of that of a gate, a (1 - a) or 1 - a²."""
    match node:
        case Op("*", Op("*", rest, a), Op("-", Num(1), b)) if a == b:
            again = Call("σ", (a,))
            yield Change("slope", "the slope of the sigmoid is left out", rest)
            once_more = "the sigmoid is applied once more, to its own value, in its slope"
            yield Change("slope", once_more, _times(rest, again, Op("-", ONE, again)))
            of_tanh = Op("-", ONE, Op("**", a, Num(2)))
            words = "the slope of tanh stands in the place of that of the sigmoid"
            yield Change("slope", words, Op("*", rest, of_tanh))
        case Op("*", rest, Op("-", Num(1), Op("**", a, Num(2)))) | Op(
            "*", Op("-", Num(1), Op("**", a, Num(2))), rest
        ):
            words = "the slope of the sigmoid stands in the place of that of tanh"
            yield Change("slope", words, _times(rest, a, Op("-", ONE, a)))
        case Op("-", Num(1), Ref() as a):
            yield Change("term", f"{write(a)} stands in the place of {write(node)}", a)


def _times(*factors: Expr) -> Expr:
    return functools.reduce(functools.partial(Op, "*"), factors)


def _comparisons(node: Op) -> Iterator[Change]:
    sign, left, right = node
    words = write(node)
    if sign == "and":
        yield Change("condition", f"{write(right)} is not asked for", left)
        yield Change("condition", f"{write(left)} is not asked for", right)
    elif sign == "==":
        for by in (1, -1):
            moved = Op("==", left, Op("+", right, Num(by)))
            yield Change("condition", f"{write(moved)} stands for {words}", moved)
    elif isinstance(right, Num) and right != ZERO:
        other = Op(sign, left, ZERO)
        yield Change("condition", f"{write(other)} stands for {words}", other)


def _terms(node: Op, equation: Equation) -> Iterator[Change]:
    sign, left, right = node
    other = Op("-" if sign == "+" else "+", left, right)
    yield from leave_out(node, equation)
    yield Change("sign", f"the sign of {write(right)} is wrong", other)
    yield Change("term", f"the term {write(right)} counts twice", Op(sign, node, right))
    if isinstance(left, Op) and left.sign in ("+", "-"):
        first = left
        while isinstance(first, Op) and first.sign in ("+", "-") and first.left != ZERO:
            first = first.left  # type: ignore[assignment]
        yield Change("term", f"only the term {write(first)} is kept", first)


def _sums(over: Over, letters: tuple[str, ...], equation: Equation) -> Iterator[Change]:
    _, _, body = over
    for letter in letters:
        size, others = equation.sizes[letter], tuple(one for one in letters if one != letter)
        rest = functools.partial(_over_others, others)
        kind, what = ("batch sum", "sample") if letter in ("n", "n0") else ("sum", letter)
        for value, which in ((0, "first"), (size - 1, "last")):
            words = f"only the {which} {what} is counted, not the sum over all"
            yield Change(kind, words, rest(substitute(body, {letter: Num(value)})))
        if size > 2:
            for which, counted in (
                ("last", Op("<", Index(letter), Num(size - 1))),
                ("first", Op(">", Index(letter), ZERO)),
            ):
                missed = over._replace(body=Choice(counted, body, ZERO))
                yield Change(kind, f"the {which} {what} is not counted", missed)
        for free in equation.letters:
            if equation.sizes[free] == size:
                words = f"of the sum over {letter} only the term {letter} = {free} is kept"
                yield Change("sum", words, rest(substitute(body, {letter: Index(free)})))
        if size > 1 and (others or over is not equation.body):
            words = f"a mean is taken over {letter} where a sum is meant"
            yield Change("mean", words, Op("/", over, Num(size)))
    match body:
        case Choice(condition, then, Num(0)):
            words = "where several contribute, only the last one counts"
            yield Change("repeated", words, _last_only(letters, condition, then, equation))
            number = Over("sum", letters, Choice(condition, ONE, ZERO))
            mean = Op("/", over, Call("max", (number, ONE)))
            yield Change("mean", "where several contribute, their mean is taken", mean)


def _summed(node: Expr, equation: Equation) -> Iterator[Change]:
    """Sum over what is free, or over another axis than the right one."""
    if isinstance(node, (Num, Index)):
        return
    mentioned = {part.name for part in walk(node) if isinstance(part, Index)}
    bound = {letter for over in overs(node) for letter in over.letters}
    free = [letter for letter in equation.letters if letter in mentioned - bound]
    for letter in free:
        size, copy = equation.sizes[letter], copy_of(letter)
        if size == 1:
            continue
        total = Over("sum", (copy,), substitute(node, {letter: Index(copy)}))
        words = f"{write(node)} is summed over {letter}"
        yield Change("sum", words, total)
        yield Change(
            "mean", f"the mean over {letter} of {write(node)} is taken", Op("/", total, Num(size))
        )
        if isinstance(node, Choice):
            yield Change(
                "sum", f"{write(node)} is taken for all {letter}", total._replace(kind="max")
            )
    if len(free) > 1:
        copies = {letter: Index(copy_of(letter)) for letter in free}
        total = Over("sum", tuple(map(copy_of, free)), substitute(node, copies))
        count = math.prod(equation.sizes[letter] for letter in free)
        yield Change("sum", f"{write(node)} is summed over {', '.join(free)}", total)
        words = f"the mean over {', '.join(free)} of {write(node)} is taken"
        yield Change("mean", words, Op("/", total, Num(count)))
    match node:
        case Over("sum", (letter,), body):
            for other, instead in itertools.permutations(equation.letters, 2):
                if other in free and equation.sizes[instead] == equation.sizes[letter]:
                    copy = copy_of(other)
                    swapped = substitute(body, {letter: Index(instead), other: Index(copy)})
                    words = f"the sum runs over {other}, not over {letter}"
                    yield Change("axis", words, Over("sum", (copy,), swapped))
        case Op("/", Call("exp", (exponent,)), Over()):
            words = f"{write(exponent)} stands in the place of its softmax"
            yield Change("function", words, exponent)


def _more_factors(equation: Equation, shapes: Shapes) -> Iterator[Change]:
    """Multiply by what has been multiplied in already, or does not belong there."""
    body = equation.body
    shape = shapes.get(equation.name)
    for name, other in shapes.items():
        if other == shape and not name.startswith("d"):
            entry = Ref(name, equation.at)
            words = f"it is multiplied by {write(entry)}"
            yield Change("factor", words, Op("*", body, entry))
    for node in dict.fromkeys(walk(body)):
        match node:
            case Call("σ" | "tanh") | Op("/", Call("exp"), Over()):
                slope = Op("*", node, Op("-", ONE, node))
                words = f"the slope {write(slope)} is multiplied in once more"
                yield Change("slope", words, Op("*", body, slope))


def _left_out(equation: Equation) -> Iterator[Change]:
    """Leave the first or the last entries without a gradient."""
    for letter in equation.letters:
        size = equation.sizes[letter]
        if size > 1:
            for which, counted in (
                ("first", Op(">", Index(letter), ZERO)),
                ("last", Op("<", Index(letter), Num(size - 1))),
            ):
                words = f"the {which} {letter} gets no gradient"
                yield Change("left out", words, Choice(counted, equation.body, ZERO))


def _halves(equation: Equation) -> Iterator[Change]:
    """Multiply or divide by 2; last, since there may be a 2 in the formula that explains it."""
    body = equation.body
    yield Change("factor", "there is a factor 2 too many", Op("*", Num(2), body))
    yield Change("factor", "there is a factor 1/2 too many", Op("/", body, Num(2)))


def _over_others(letters: tuple[str, ...], body: Expr) -> Expr:
    return Over("sum", letters, body) if letters else body


def _last_only(letters: tuple[str, ...], condition: Expr, then: Expr, equation: Equation) -> Expr:
    """Keep only the last term of a sum over the terms for which a condition holds."""
    copies = {letter: Index(copy_of(letter)) for letter in letters}
    place: Expr = ZERO
    for letter in letters:  # row by row
        place = Op("+", Op("*", place, Num(equation.sizes[letter])), Index(letter))
    places = Choice(substitute(condition, copies), substitute(place, copies), Num(-1))
    last = Over("max", tuple(copy.name for copy in copies.values()), places)
    return Over("sum", letters, Choice(Op("==", place, last), then, ZERO))


def _indices(ref: Ref, equation: Equation) -> Iterator[Change]:
    """Exchange two indices, or take the entry beside the right one."""
    at = ref.at or ()
    for a, b in itertools.combinations(range(len(at)), 2):
        first, second = at[a], at[b]
        match first, second:
            case Index(one), Index(other) if equation.sizes[one] == equation.sizes[other]:
                exchanged = list(at)
                exchanged[a], exchanged[b] = second, first
                turned = ref._replace(at=tuple(exchanged))
                yield Change("transposed", _other_way_round(turned, ref), turned)
    for axis, part in enumerate(at):
        letters = [letter for letter in linear(part) or {} if letter]
        before, after = (_moved(ref, axis, by) for by in (-1, 1))
        if letters == ["t"] and ref.name == "dy":
            last = Op("==", Index("t"), Num(equation.sizes["t"] - 1))
            only = f"{write(ref)} is counted at the last step only"
            yield Change("time", only, Choice(last, ref, ZERO))
        if letters == ["t"]:
            yield Change("time", f"{write(ref)} is taken one step too early", before)
            yield Change("time", f"{write(ref)} is taken one step too late", after)
        elif len(letters) > 1:
            yield Change("shift", f"{write(ref)} is taken one place too early", before)
            yield Change("shift", f"{write(ref)} is taken one place too late", after)


def _turned(node: Expr, shapes: Shapes) -> Iterator[Change]:
    """Exchange two indices of axes of the same length, of which one is computed."""
    match node:
        case Ref(name, at) if at and len(shapes.get(name, ())) == len(at):
            for a, b in itertools.combinations(range(len(at)), 2):
                plain = isinstance(at[a], Index) and isinstance(at[b], Index)
                if shapes[name][a] == shapes[name][b] and not plain:
                    exchanged = list(at)
                    exchanged[a], exchanged[b] = at[b], at[a]
                    turned = Ref(name, tuple(exchanged))
                    yield Change("transposed", _other_way_round(turned, node), turned)


def _other_way_round(turned: Expr, right: Expr) -> str:
    return (
        f"{write(turned)} stands in the place of {write(right)}: "
        "the array is transposed where it should not be, or not where it should"
    )


def _moved(ref: Ref, axis: int, by: int) -> Ref:
    at = list(ref.at or ())
    at[axis] = Op("+", at[axis], Num(by))
    return ref._replace(at=tuple(at))


def flips(equation: Equation, shapes: Shapes) -> Iterator[Edit]:
    """Enumerate the kernels that are not turned round: an index that runs the other way."""
    for ref in dict.fromkeys(refs(equation.body)):
        indices = ref.at or ()
        sliding = [k for k, part in enumerate(indices) if len({*(linear(part) or {})} - {""}) > 1]
        if ref.name not in shapes:
            continue
        for axes in [sliding] if len(sliding) == 1 else [sliding, *([k] for k in sliding)]:
            at = list(indices)
            for axis in axes:
                at[axis] = Op("-", Num(shapes[ref.name][axis] - 1), at[axis])
            body = put_for(ref, ref._replace(at=tuple(at)), equation.body)
            along = f" along axis {axes[0]}" if len(axes) < len(sliding) else ""
            turned = equation._replace(body=fold(body, equation.sizes))
            yield Edit("flip", f"{ref.name} is turned round the wrong way{along}", turned)
    for ref in dict.fromkeys(refs(equation.body)):
        kernel = [k for k in ("k", "l") if Index(k) in (ref.at or ())]
        turn = {k: Op("-", Num(equation.sizes[k] - 1), Index(k)) for k in kernel}
        if kernel and ref.name in shapes:
            body = fold(put_for(ref, substitute(ref, turn), equation.body), equation.sizes)
            words = f"{ref.name} is turned round the wrong way"
            yield Edit("flip", words, equation._replace(body=body))
    free = [part.name for part in equation.at if isinstance(part, Index)]
    kernel = [letter for letter in free if letter in ("k", "l")]
    for letters in (kernel, *([letter] for letter in free)):
        turn = {k: Op("-", Num(equation.sizes[k] - 1), Index(k)) for k in letters}
        body = fold(substitute(equation.body, turn), equation.sizes)
        words = f"the result is turned round along {', '.join(letters)}"
        yield Edit("flip", words, equation._replace(body=body))


def fitted(equation: Equation, shapes: Shapes) -> Iterator[Callable[[float], Edit]]:
    """Enumerate the mistakes that have a number in them: functions from it to the edit."""
    name = equation.name.removeprefix("d")
    if equation.name.startswith("d") and name in shapes and name not in ("x", "y"):
        entry = Ref(name, equation.at)
        yield functools.partial(
            _added, equation, entry, "the derivative of a penalty on its square"
        )
        yield functools.partial(
            _added, equation, Call("sign", (entry,)), "the derivative of a penalty on its size"
        )
    for number in dict.fromkeys(node for node in walk(equation.body) if isinstance(node, Num)):
        if number.value not in (0, 1, -1):
            yield functools.partial(_another_number, equation, number)
    for node in dict.fromkeys(walk(equation.body)):
        match node:
            case Choice(_, then, otherwise):
                for part in (then, otherwise):
                    if part not in (ZERO, ONE):
                        yield functools.partial(_scaled_branch, equation, node, part is then)
    for ref in dict.fromkeys(refs(equation.body)):
        if not ref.name.startswith("d") and f"d{ref.name}" in shapes and ref.name not in ("x", "y"):
            yield functools.partial(_updated, equation, ref)


def _scaled_branch(equation: Equation, choice: Choice, holds: bool, size: float) -> Edit:
    """Multiply one branch by 1 + ``size``."""
    condition, then, otherwise = choice
    factor = Num(1 + size)
    new = (
        Choice(condition, Op("*", factor, then), otherwise)
        if holds
        else Choice(condition, then, Op("*", factor, otherwise))
    )
    body = everywhere_replaced(equation.body, choice, new)
    where = f"{write(condition)}{'' if holds else ' does not hold'}"
    words = f"it is {1 + size:.6g} times the right one where {where}"
    return Edit("factor", words, equation._replace(body=body))


def _added(equation: Equation, term: Expr, what: str, size: float) -> Edit:
    body = Op("+", equation.body, Op("*", Num(size), term))
    words = f"{size:.4g}·{write(term)} is added, {what}"
    return Edit("regulariser", words, equation._replace(body=body))


def _another_number(equation: Equation, number: Num, size: float) -> Edit:
    """Put the number plus ``size`` in the place of a number."""
    other = Num(number.value + size)
    body = everywhere_replaced(equation.body, number, other)
    words = f"{other.value:.6g} stands in the place of {number.value:.6g}"
    return Edit("number", words, equation._replace(body=body))


def everywhere_replaced(node: Expr, old: Expr, new: Expr) -> Expr:
    """Put one expression in the place of another, wherever that stands outside of indices."""
    if node == old:
        return new
    if isinstance(node, Ref):
        return node
    return rebuild(node, lambda part: everywhere_replaced(part, old, new))


def _updated(equation: Equation, ref: Ref, size: float) -> Edit:
    moved = Op("+", ref, Op("*", Num(size), ref._replace(name=f"d{ref.name}")))
    words = f"{ref.name} has been updated already, by {size:.4g} times its gradient"
    return Edit("updated", words, equation._replace(body=put_for(ref, moved, equation.body)))


def put_for(old: Ref, new: Expr, node: Expr) -> Expr:
    """Put an expression in the place of an entry, wherever that stands."""
    return replace(node, lambda ref: new if ref == old else ref)


# ── One array in the place of another ───────────────────────────────────────────────────────────


def _exchanges(equation: Equation, shapes: Shapes) -> Iterator[Change]:
    """Put one array in the place of another of the same shape, wherever that one stands."""
    yield from everywhere(equation.body, lambda node: _conditions(node, shapes))
    names = dict.fromkeys(ref.name for ref in refs(equation.body))
    for name, (other, shape) in itertools.product(names, shapes.items()):
        same_kind = name.startswith("d") == other.startswith("d")
        if other not in (name, equation.name) and shape == shapes.get(name) and same_kind:
            words = f"{spelled(other)} stands in the place of {spelled(name)}"
            yield Change("other array", words, renamed(equation.body, {name: other}))


def _one_exchange(node: Expr, equation: Equation, shapes: Shapes) -> Iterator[Change]:
    """Put one array in the place of another at one place only."""
    match node:
        case Ref(name, at) if at and sum(ref.name == name for ref in refs(equation.body)) > 1:
            for other, shape in shapes.items():
                if other != name and shape == shapes.get(name):
                    entry = Ref(other, at)
                    words = f"{write(entry)} stands once in the place of {write(node)}"
                    yield Change("other array", words, entry)


def _conditions(node: Expr, shapes: Shapes) -> Iterator[Change]:
    """Ask the condition of another array, such as of dy in the place of y."""
    match node:
        case Choice(Op(sign, Ref(name, at), bound), then, otherwise):
            for other, shape in shapes.items():
                if other != name and shape == shapes.get(name):
                    condition = Op(sign, Ref(other, at), bound)
                    words = f"the condition is asked of {spelled(other)}, not of {spelled(name)}"
                    yield Change("condition", words, Choice(condition, then, otherwise))


def _functions(equation: Equation, forward: Mapping[str, Expr]) -> Iterator[Change]:
    """Apply a function once more than is right, as in σ'(y) for σ'(x)."""
    for name, function in forward.items():
        for ref in dict.fromkeys(ref for ref in refs(equation.body) if ref.name == name):
            inner = {other.name: name for other in refs(function)}
            words = f"the function that gives {name} is applied to {name} once more"
            again = put_for(ref, renamed(function, inner), equation.body)
            yield Change("function", words, again)
    match equation.body, [*forward.values()]:
        case Choice(condition, then, otherwise), [Choice(_, first, second)]:
            dy = Ref("dy", equation.at)
            words = "the value of the function stands in the place of its slope"
            yield Change("slope", words, Choice(condition, then, Op("*", second, dy)))
            yield Change("slope", words, Choice(condition, Op("*", first, dy), otherwise))
    if equation.name == "dx":
        for function in forward.values():
            words = "the value of the function stands in the place of its slope"
            yield Change("slope", words, Op("*", function, Ref("dy", equation.at)))


def renamed(node: Expr, names: Mapping[str, str]) -> Expr:
    """Rename arrays in an expression."""
    return replace(node, lambda ref: ref._replace(name=names.get(ref.name, ref.name)))
