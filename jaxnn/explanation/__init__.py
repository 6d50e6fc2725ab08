"""Show a trace as text, LaTeX, Markdown, a picture or a page.

A trace records the very functions that train. The package is not called ``explain``, because that
is the name of its one function.
"""

import base64
import html
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from jaxnn.checks import InputError, check_bool, check_choice, check_positive_int
from jaxnn.explanation.latex import LATEX, MARKDOWN, as_document
from jaxnn.explanation.page import as_page
from jaxnn.explanation.pictures import Names
from jaxnn.explanation.text import as_text, gradient_path_as_text
from jaxnn.explanation.worksheet import redraw
from jaxnn.tracing import Trace

DIGITS = 6  # significant digits, unless the caller chooses another number
FORMATS = ("text", "latex", "markdown", "figure", "frames", "gif", "svg", "html")
__all__ = ["FORMATS", "explain"]


class _Printer(Protocol):
    """The part of IPython's printer that is used here."""

    def text(self, text: str) -> None: ...


class _Text(str):
    """Text that a notebook prints without quotation marks."""

    def _repr_pretty_(self, printer: _Printer, _: bool) -> None:
        printer.text(str(self))


class _Gif(bytes):
    """An animation that a notebook plays."""

    def _repr_html_(self) -> str:
        source = f"data:image/gif;base64,{base64.b64encode(self).decode()}"
        return f'<img src="{source}" alt="Backpropagation, step by step">'


class _Markdown(str):
    """Markdown that a notebook typesets."""

    def _repr_markdown_(self) -> str:
        return str(self)


class _Svg(str):
    """A picture that a notebook shows."""

    def _repr_svg_(self) -> str:
        return str(self)


class _Page(str):
    """A page that a notebook shows in a frame."""

    def _repr_html_(self) -> str:
        style = "width:100%;height:820px;border:1px solid #8a8f98"
        title = "Backpropagation, step by step"
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(str(self))}" '
            f'style="{style}" title="{title}"></iframe>'
        )


def explain(
    trace: Trace,
    format: str = "text",  # noqa: A002
    *,
    of: str | None = None,
    blanks: bool = False,
    seed: int | None = None,
    digits: int = DIGITS,
    tokens: Sequence[str] | None = None,
    vocabulary: Sequence[str] | None = None,
) -> Any:  # str, unless the format is one of "figure", "frames" and "gif"
    """Show how the numbers of a trace are computed: each formula, its numbers, and its result.

    Args:
        trace: the result of :func:`jaxnn.trace`.
        format: what to make:

            * "text": two tables for a terminal, one for the forward and one for the backward pass;
            * "latex": a document for plain LaTeX with amsmath;
            * "markdown": the same document for MathJax or KaTeX;
            * "figure": a :class:`~jaxnn.plots.BackpropDisplay`, saved by its ``.save(path)``;
            * "frames": a list of figures, one for each step;
            * "gif": an animation of these figures, as bytes;
            * "svg": the figure as text;
            * "html": one self-contained page on which a reader can go through the steps and change
              the numbers; it then computes everything again.
        of: for "text", the place of one weight or input, such as ``"[0].w[0, 1]"``; the text is
            then the chain of derivatives from the loss to that number, factor by factor.
        blanks: for "latex" and "markdown", whether to leave the numbers blank and to print the
            answers on a separate page.
        seed: if given, inputs, parameters and labels are drawn anew, from few numbers such as 1/2
            and -1 that are easy to compute with by hand, for another worksheet on the same network.
        digits: significant digits of the numbers in text, LaTeX and Markdown.
        tokens: for "html", what to call the positions of a sequence, such as "hello": one text for
            each step of time.
        vocabulary: for "html", what to call the integers that are inputs or classes: one text for
            each, in order.

    Returns:
        A string, unless the list of formats above states another type. A notebook displays text,
        Markdown, SVG, animations and pages accordingly. In text, the first 16 entries of an array
        are written out. LaTeX and Markdown write out all entries, or, if there are more than 100,
        four of each array, and show the others in matrices. Of a sum with more than 10 terms,
        the first ones and the last are written. ``trace`` contains all of them.

    Raises:
        InputError: for the difference of two traces, an unknown format, a place that is not in the
            trace, an option that the format does not have, or, for a page, a layer that states no
            formulas.
    """
    if not isinstance(trace, Trace):
        raise InputError(
            f"explain: expected a Trace, as jaxnn.trace returns it, got {type(trace).__name__}."
        )
    if trace.is_difference:
        raise InputError(
            "explain: expected the trace of one pass, got the difference of two, "
            "where no formula holds."
        )
    check_choice("explain", "format", format, FORMATS)
    check_positive_int("explain", "digits", digits)
    check_bool("explain", "blanks", blanks)
    if seed is not None and (type(seed) is not int or seed < 0):
        raise InputError(f"explain: expected seed to be an integer of at least 0, got {seed!r}.")
    if of is not None and format != "text":
        raise InputError(f'explain: expected format "text" with of, got {format!r}.')
    if digits != DIGITS and format not in ("text", "latex", "markdown"):
        raise InputError(
            f'explain: expected format "text", "latex" or "markdown" with digits, got {format!r}.'
        )
    if blanks and format not in ("latex", "markdown"):
        raise InputError(
            f'explain: expected format "latex" or "markdown" with blanks, got {format!r}.'
        )
    names = _checked_names(trace, format, tokens, vocabulary)
    trace = trace if seed is None else redraw(trace, seed)
    match format:
        case "text":
            return _Text(
                as_text(trace, digits) if of is None else gradient_path_as_text(trace, of, digits)
            )
        case "latex":
            return _Text(as_document(trace, LATEX, digits, blanks, seed))
        case "markdown":
            return _Markdown(as_document(trace, MARKDOWN, digits, blanks, seed))
        case "html":
            return _Page(as_page(trace, names))
    return _picture(trace, format)


def _checked_names(
    trace: Trace,
    format: str,  # noqa: A002
    tokens: Any,
    vocabulary: Any,
) -> Names:
    for name, given in (("tokens", tokens), ("vocabulary", vocabulary)):
        if given is None:
            continue
        if format != "html":
            raise InputError(f'explain: expected format "html" with {name}, got {format!r}.')
        if not isinstance(given, str | tuple | list) or not all(isinstance(t, str) for t in given):
            raise InputError(f"explain: expected {name} to be texts, got {given!r}.")
        if name == "vocabulary" and not any(
            np.issubdtype(np.asarray(values).dtype, np.integer)
            for values in (trace.x, trace.target)
        ):
            raise InputError(
                "explain: expected a vocabulary with inputs or targets that are integers, got "
                f"{np.asarray(trace.x).dtype} and {np.asarray(trace.target).dtype}."
            )
    if tokens is not None:
        x = np.shape(trace.x)
        if len(x) < 2 or len(tokens) != x[1]:
            raise InputError(
                f"explain: expected one token for each step of time of the input, of shape {x}, "
                f"got {len(tokens)} tokens."
            )
    return Names(tuple(tokens or ()), tuple(vocabulary or ()))


def _picture(trace: Trace, kind: str) -> Any:
    # matplotlib is imported only when a picture is drawn
    from jaxnn.plots.animation import as_frames, as_gif, as_svg
    from jaxnn.plots.worked import BackpropDisplay

    match kind:
        case "frames":
            return as_frames(trace)
        case "gif":
            return _Gif(as_gif(trace))
        case "svg":
            return _Svg(as_svg(trace))
    return BackpropDisplay.from_trace(trace)
