"""What the notebooks' figures are put together from: numbers with their intervals, rows of pictures, legends."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from sae_lib.companion.pictures import show_picture
from sae_lib.intervals import Interval


def draw_dot(ax: Axes, number: Interval, y: float, marker: str, color: str, **look: Any) -> None:
    """A number as a marker at height y, its interval as a bar."""
    ax.hlines(y, *number[1:], color=color)
    ax.plot(number.value, y, marker, color=color, **look)


def draw_band(ax: Axes, x: Sequence[float], numbers: Sequence[Interval], alpha: float = 0.2, **look: Any) -> None:
    """Numbers as a line, their intervals as a band around it."""
    (line,) = ax.plot(x, [each.value for each in numbers], **look)
    lows, highs = zip(*(each[1:] for each in numbers), strict=True)
    ax.fill_between(x, lows, highs, color=line.get_color(), alpha=alpha, lw=0)


def add_legend(
    fig: FigureBase,
    signs: Mapping[str, tuple] | None = None,
    loc: str = "outside upper center",
    ncols: int = 3,
    **placing: Any,
) -> None:
    """One legend for all panels: what is drawn with a label there, each label once, then `signs`.

    signs: by label how it is drawn: matplotlib's format and colour, and if need be a dict of more, `("o", "black", {"markersize": 3})`.
    """
    for label, (sign, color, *more) in (signs or {}).items():
        fig.axes[0].plot([], [], sign, color=color, label=label, **dict(*more))
    drawn: dict[str, Any] = {}
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            drawn.setdefault(label, handle)
    fig.legend(drawn.values(), drawn, loc=loc, ncols=ncols, **placing)


def picture_axes(rows: int, columns: int, size: tuple[float, float], **look: Any) -> tuple[Figure, np.ndarray]:
    """Panels for pictures, close to one another. size: width and height in inches."""
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **look)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    return fig, axes


def show_row(axes: Sequence[Axes] | np.ndarray, pictures: Sequence[Tensor], under: Sequence[str] = ()) -> None:
    """Pictures in panels from the left, with a text under each; panels without a picture stay empty."""
    for ax, picture in zip(axes, pictures, strict=False):
        show_picture(ax, picture)
    for ax, text in zip(axes, under, strict=False):
        ax.set_xlabel(text, fontsize=7, labelpad=2)
    for ax in axes[len(pictures) :]:
        ax.axis("off")


def write_under(ax: Axes, text: str, **look: Any) -> None:
    """A line under a row of pictures, from the left edge of the first; columns stay as wide as they are."""
    ax.set_xlabel(" ", fontsize=8, labelpad=2)
    ax.text(0, -0.06, text, **{"transform": ax.transAxes, "va": "top", "fontsize": 8, "in_layout": False} | look)
