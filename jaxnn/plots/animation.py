"""A trace as a single picture, as one picture for each step, or as an animation."""

import io
from collections.abc import Iterator

import matplotlib as mpl
from matplotlib.figure import Figure

from jaxnn.plots.worked import BackpropDisplay
from jaxnn.tracing import Trace

SECONDS = 1.2  # for each frame of an animation
DPI = 110


def as_frames(trace: Trace) -> list[Figure]:
    """Draw each step of both passes as a figure of its own."""
    with mpl.rc_context({"figure.max_open_warning": 0}):  # so many figures are intended
        return list(_frames(trace))


def _frames(trace: Trace) -> Iterator[Figure]:
    for k in range(len(BackpropDisplay.steps(trace))):
        yield BackpropDisplay.from_trace(trace, frame=k).figure_  # type: ignore[misc]


def as_gif(trace: Trace) -> bytes:
    """Draw an animation of the steps of both passes, which starts again at its end."""
    import matplotlib.pyplot as plt
    from PIL import Image

    images = []
    for figure in _frames(trace):
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=DPI)
        plt.close(figure)
        images.append(Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE))
    animation = io.BytesIO()
    durations = [int(1000 * SECONDS)] * (len(images) - 1) + [int(4000 * SECONDS)]
    images[0].save(
        animation, format="gif", save_all=True, append_images=images[1:], duration=durations, loop=0
    )
    return animation.getvalue()


def as_svg(trace: Trace) -> str:
    """Draw the whole picture as SVG; equal numbers result in equal text."""
    import matplotlib.pyplot as plt

    picture = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "jaxnn", "svg.fonttype": "path"}):
        figure = BackpropDisplay.from_trace(trace).figure_
        figure.savefig(picture, format="svg", metadata={"Date": None})  # type: ignore[union-attr]
        plt.close(figure)  # type: ignore[arg-type]
    return picture.getvalue()
