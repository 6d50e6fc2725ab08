"""A trace, shown: as text, LaTeX, Markdown, a picture, a page. From the functions that train.

The package is not called ``explain``, which is the name of its one function.
"""

import base64
import html
from typing import Any

from jaxnn.checks import InputError, check_choice, check_positive_int
from jaxnn.explanation.latex import LATEX, MARKDOWN, as_document
from jaxnn.explanation.page import as_page
from jaxnn.explanation.text import as_text, gradient_path_as_text
from jaxnn.explanation.worksheet import redraw
from jaxnn.tracing import Trace

FORMATS = ("text", "latex", "markdown", "figure", "frames", "gif", "svg", "html")
__all__ = ["FORMATS", "explain"]


class _Text(str):
    """Text, which a notebook prints."""

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(str(self))


class _Gif(bytes):
    """An animation, which a notebook plays."""

    def _repr_html_(self) -> str:
        source = f"data:image/gif;base64,{base64.b64encode(self).decode()}"
        return f'<img src="{source}" alt="Backpropagation, step by step">'


class _Markdown(str):
    """Markdown, which a notebook sets."""

    def _repr_markdown_(self) -> str:
        return str(self)


class _Svg(str):
    """A picture, which a notebook shows."""

    def _repr_svg_(self) -> str:
        return str(self)


class _Page(str):
    """A page, which a notebook shows in a frame."""

    def _repr_html_(self) -> str:
        style = "width:100%;height:820px;border:1px solid #8a8f98"
        return f'<iframe srcdoc="{html.escape(str(self))}" style="{style}" title="Backpropagation, step by step"></iframe>'


def explain(
    trace: Trace,
    format: str = "text",  # noqa: A002
    *,
    of: str | None = None,
    blanks: bool = False,
    seed: int | None = None,
    digits: int = 6,
) -> Any:
    """Show how a trace was worked out: each formula, the numbers put in, the result.

    Args:
        trace: what :func:`jaxnn.trace` gave.
        format: what to make:

            * "text": two tables for a terminal, the forward and the backward one;
            * "latex": a document for plain LaTeX with amsmath; "markdown": the same for MathJax or KaTeX;
            * "figure": a :class:`~jaxnn.plots.BackpropDisplay`; "frames": a list of figures, one a step;
            * "gif": an animation of these, as bytes; "svg": the figure as text;
            * "html": one self-contained page that steps, takes other numbers, and computes everything again.
        of: for "text", one weight or input, such as ``"[0].w[0, 1]"``: the chain from the loss to it, factor
            by factor.
        blanks: for "latex" and "markdown", whether to leave the numbers blank, the answers on a page of their own.
        seed: draw inputs, parameters and labels anew, in halves that a pencil can handle, for another worksheet
            on the same network.
        digits: significant digits of the numbers in text, LaTeX and Markdown.

    Returns:
        Text, unless the format says otherwise; a notebook shows text, Markdown, SVG, animations and pages as what
        they are. Of an array with more than 16 entries the first are written out, of a sum with more than 10 terms
        the first and the last; ``trace`` has them all.

    Raises:
        InputError: for the difference of two traces, an unknown format, a place that is not in the trace, an
            option that the format does not have, or, for a page, a layer that states no formulas.
    """
    if not isinstance(trace, Trace):
        raise InputError(
            f"explain: expected a Trace, as jaxnn.trace gives it, got {type(trace).__name__}."
        )
    if trace.is_difference:
        raise InputError(
            "explain: expected the trace of one pass, got the difference of two, where no formula holds."
        )
    check_choice("explain", "format", format, FORMATS)
    check_positive_int("explain", "digits", digits)
    if seed is not None and (not isinstance(seed, int) or seed < 0):
        raise InputError(f"explain: expected seed to be an integer of at least 0, got {seed!r}.")
    if of is not None and format != "text":
        raise InputError(f'explain: expected format "text" with of, got {format!r}.')
    if blanks and format not in ("latex", "markdown"):
        raise InputError(
            f'explain: expected format "latex" or "markdown" with blanks, got {format!r}.'
        )
    trace = trace if seed is None else redraw(trace, seed)
    match format:
        case "text":
            return _Text(
                as_text(trace, digits) if of is None else gradient_path_as_text(trace, of, digits)
            )
        case "latex":
            return _Text(as_document(trace, LATEX, digits, blanks))
        case "markdown":
            return _Markdown(as_document(trace, MARKDOWN, digits, blanks))
        case "html":
            return _Page(as_page(trace))
    return _picture(trace, format)


def _picture(trace: Trace, kind: str) -> Any:
    from jaxnn.plots.animation import as_frames, as_gif, as_svg  # matplotlib: only for who draws
    from jaxnn.plots.worked import BackpropDisplay

    match kind:
        case "frames":
            return as_frames(trace)
        case "gif":
            return _Gif(as_gif(trace))
        case "svg":
            return _Svg(as_svg(trace))
    return BackpropDisplay.from_trace(trace)
