"""What must be true of every figure, and what is read off one."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text


def vertical_lines(ax: Axes, dash: str) -> list[float]:
    lines = [line for line in ax.get_lines() if line.get_linestyle() == dash and len(line.get_xdata()) == 2]
    return [float(line.get_xdata()[0]) for line in lines]


def grey(colour: str) -> float:
    """Luminance 0..255 as PIL's conversion to mode L weighs it (ITU-R 601-2)."""
    return 255 * float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))


def assert_legible(figure: Figure) -> None:
    """Every text lies inside the figure and none over another."""
    renderer = figure.canvas.get_renderer()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    # Of the ticks, an axis also holds those outside its limits and the ones that a shared axis hides.
    drawn = {id(t) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for t in shown_labels(axis)}
    ticks = {
        id(label)
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for label in (tick.label1, tick.label2)
    }
    boxes = [(t, t.get_window_extent(renderer)) for t in texts if id(t) not in ticks or id(t) in drawn]
    assert len(boxes) > 5
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0, text
        assert box.y1 <= figure.bbox.y1, text
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (one, other)


def shown_labels(axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]
