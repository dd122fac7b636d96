"""What the notebooks' figures are put together from: numbers with intervals, tables, rows of pictures, legends."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.image import AxesImage
from matplotlib.text import Text
from torch import Tensor

from sae_lib.companion.pictures import show_lines, show_picture
from sae_lib.companion.style import BLOCK_COLORS, BLOCK_MARKERS, CONTROL_COLOR, TEXT_WIDTH
from sae_lib.editing.frontiers import envelope
from sae_lib.editing.sweep import Sweep
from sae_lib.features.reading import Reading
from sae_lib.features.writing import Trials
from sae_lib.judges.attributes import see_values
from sae_lib.judges.intervals import Interval, interval_of


def draw_dot(
    ax: Axes,
    number: Interval,
    y: float,
    marker: str,
    color: str,
    upright: bool = False,
    bar: float | None = None,
    **look: Any,
) -> None:
    """A number as a marker at height y, its interval as a bar of width `bar`; upright: above the place y."""
    (ax.vlines if upright else ax.hlines)(y, *number[1:], color=color, linewidth=bar)
    ax.plot(*((y, number.value) if upright else (number.value, y)), marker, color=color, **look)


def draw_rows(
    ax: Axes,
    numbers: Mapping[str, Sequence[Interval | None]],
    looks: Sequence[Mapping[str, Any]],
    upright: bool = False,
) -> None:
    """A row per name, the first on top, and in it a dot with its interval per look; None is a gap. upright: columns.

    numbers: by the rows' names, such as blocks, in the order of the looks. looks: what `draw_dot` takes, and `shift`,
    by how many rows the dots lie below the middle. A dot without a colour or a marker has its block's (`look_of`).
    """
    for place, (name, kinds) in enumerate(numbers.items()):
        for number, kind in zip(kinds, looks, strict=False):
            look = look_of(name) | dict(kind)
            at = place + look.pop("shift", 0.0)
            if number is not None:
                draw_dot(ax, number, at, upright=upright, **look)
    if upright:
        ax.set_xticks(range(len(numbers)), list(numbers), rotation=90)
    else:
        ax.set_yticks(range(len(numbers)), list(numbers))
        ax.yaxis.set_inverted(True)


def look_of(block: str) -> dict[str, str]:
    """A block's colour and marker; a grey cross for what is no attention block."""
    return {"color": BLOCK_COLORS.get(block, CONTROL_COLOR), "marker": BLOCK_MARKERS.get(block, "x")}


def draw_curve(
    ax: Axes, x: Sequence[int | float], numbers: Sequence[Interval], line: str, color: str, **look: Any
) -> None:
    """Numbers as dots joined by a line, in matplotlib's format, each with its interval as an upright bar."""
    ax.plot(x, [number.value for number in numbers], line, color=color, **look)
    ax.vlines(x, *zip(*(number[1:] for number in numbers), strict=True), color=color)


def draw_band(ax: Axes, x: Sequence[float], numbers: Sequence[Interval], alpha: float = 0.2, **look: Any) -> None:
    """Numbers as a line, their intervals as a band around it."""
    (line,) = ax.plot(x, [number.value for number in numbers], **look)
    lows, highs = zip(*(number[1:] for number in numbers), strict=True)
    ax.fill_between(x, lows, highs, color=line.get_color(), alpha=alpha, lw=0)


def draw_envelopes(
    ax: Axes,
    sweep: Sweep,
    reading: str,
    looks: Mapping[str, Mapping[str, Any]],
    ceiling: Float[Tensor, " cases"] | None = None,
    rows: Bool[Tensor, " cases"] | None = None,
) -> None:
    """What methods of RIEBench reach at what cost: a marker per setting, a line along the best of them (`envelope`).

    reading: one of `READINGS`. looks: by method the colour and marker; lines of grey controls are dotted. ceiling: the
    gain of each case at the ceiling, drawn as a dashed line at its mean. rows: the cases; all of them if None.
    """
    cases = slice(None) if rows is None else rows
    for method, look in looks.items():
        x, y = sweep.points(sweep.of_method(method), reading)[cases].mean(0).T
        ax.plot(x[1:], y[1:], linestyle="", label=method, markersize=4, **look)
        line = ":" if look["color"] == CONTROL_COLOR else "-"
        ax.plot(*envelope(x, y), color=look["color"], linewidth=1, linestyle=line)
    ax.axhline(0, color="black", linewidth=0.6)
    if ceiling is not None:
        ax.axhline(ceiling[cases].mean().item(), color="black", linewidth=0.8, linestyle="--")


def add_legend(
    fig: FigureBase,
    signs: Mapping[str, tuple] | None = None,
    loc: str = "outside upper center",
    ncols: int = 3,
    **placing: Any,
) -> None:
    """One legend for all panels: what is drawn with a label there, each label once, then `signs`.

    signs: by label how it is drawn: matplotlib's format ("" if the dict says it) and colour, and if need be a dict of
    more, as in `("o", "black", {"markersize": 3})`.
    """
    for label, (sign, color, *more) in (signs or {}).items():
        form = [sign] if sign else []  # matplotlib warns of a format, even an empty one, beside a line style
        fig.axes[0].plot([], [], *form, color=color, label=label, **dict(*more))
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


def show_row(axes: Sequence[Axes] | np.ndarray, pictures: Sequence[Tensor] | Tensor, under: Sequence[str] = ()) -> None:
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


def draw_table(
    ax: Axes,
    values: Float[Tensor, "rows columns"],
    rows: Sequence[str],
    columns: Sequence[str],
    texts: Iterable[Sequence[str]],
    bold: Bool[Tensor, "rows columns"] | None = None,
    **imshow: Any,
) -> AxesImage:
    """A heat map with a text in each cell, white on dark colours; gives the image for a colour bar.

    imshow: colours and range, by default blue from 0 to a quarter above the highest value.
    """
    highest = max(values.nan_to_num(0).max().item(), 0.1)
    image = ax.imshow(values.numpy(), aspect="auto", **{"cmap": "Blues", "vmin": 0, "vmax": 1.25 * highest} | imshow)
    shades = image.cmap(image.norm(image.get_array()))[..., :3] @ (0.299, 0.587, 0.114)
    for y, line in enumerate(texts):
        for x, text in enumerate(line):
            color = "white" if shades[y, x] < 0.49 else "black"
            weight = "bold" if bold is not None and bold[y, x] else "normal"
            ax.text(x, y, text, ha="center", va="center", size=7, linespacing=1.0, color=color, weight=weight)
    ax.set_xticks(range(len(columns)), columns, rotation=90)
    ax.set_yticks(range(len(rows)), rows)
    ax.grid(False)
    return image


def short(number: float) -> str:
    """Two digits behind the point and no zero before it, for a narrow cell: ".52", "−.03"."""
    return re.sub(r"\b0\.", ".", f"{number:z.2f}").replace("-", "−")


def color_blocks(labels: Sequence[Text], bold: Sequence[str] = ()) -> None:
    """Labels that are names of blocks get the block's colour, some of them in bold."""
    for label in labels:
        name = label.get_text().replace("\n", "")
        label.set(color=BLOCK_COLORS.get(name, "black"), weight="bold" if name in bold else "normal")


def show_columns(
    axes: Sequence[Sequence[Axes]] | np.ndarray, columns: Mapping[str, Tensor], bold: Sequence[str] = (), **title: Any
) -> None:
    """Pictures column by column, `[rows, 3, height, width]` by the column's title, the rows numbered on the left.

    A title that is a block's name, broken into lines or not, gets its colour, and is bold where it is one of `bold`.
    """
    for row, (panels, *pictures) in enumerate(zip(axes, *columns.values(), strict=True), 1):
        show_row(panels, pictures)
        panels[0].set_ylabel(row, rotation=0, ha="right", va="center")
    color_blocks([ax.set_title(name, **title) for ax, name in zip(axes[0], columns, strict=True)], bold)


def name_points(ax: Axes, points: Mapping[str, tuple[float, float]], names: Sequence[str], size: float = 8) -> None:
    """Names beside some of the points, each on the side where the fewest points and names are, in a block's colour.

    Call it last: it measures the figure as it is then.
    """
    ax.figure.draw_without_rendering()
    places = ax.transData.transform(list(points.values())) * 72 / ax.figure.dpi  # in points of print
    taken = [(x - 3, x + 3, y - 3, y + 3) for x, y in places]
    for name, (x, y) in zip(points, places, strict=True):
        if name not in names:
            continue
        width = 0.6625 * size * len(name)
        sides = ((7, -4), (-7 - width, -4), (-width / 2, 5), (-width / 2, -14), (3, -14), (3, 5))
        boxes = [(x + dx, x + dx + width, y + dy, y + dy + size) for dx, dy in sides]
        hits = [sum(a < d and c < b and e < h and g < f for c, d, g, h in taken) for a, b, e, f in boxes]
        best = hits.index(min(hits))
        taken.append(boxes[best])
        offset = (sides[best][0], sides[best][1] + 1)
        look = {"size": size, "color": BLOCK_COLORS.get(name, "black"), "textcoords": "offset points"}
        ax.annotate(name, points[name], offset, **look)


def sign_of(block: str, filled: bool = True) -> tuple[str, str, dict[str, Any]]:
    """`look_of` a block as `add_legend` takes it, with an empty marker if it is not one of those that are meant."""
    look = look_of(block)
    return look["marker"], look["color"], {"markersize": 6} | ({} if filled else {"mfc": "white"})


def draw_rows_of_blocks(ax: Axes, numbers: Mapping[str, Mapping[str, Interval | None]]) -> None:
    """A row per name, the first on top, and in it one below the other a dot with its interval per block; None is a gap.

    numbers: by the rows' names and the blocks. What is no block has `look_of`'s mark for controls.
    """
    for place, by_block in enumerate(numbers.values()):
        for i, (block, number) in enumerate(by_block.items()):
            if number is not None:
                y = place + 0.7 / len(by_block) * (i - (len(by_block) - 1) / 2)
                draw_dot(ax, number, y, *sign_of(block)[:2], bar=1.0, markersize=3.5)
    ax.set(ylim=(len(numbers) - 0.4, -0.6))
    ax.set_yticks(range(len(numbers)), list(numbers))
    ax.grid(False, axis="y")


def draw_beside_control(ax: Axes, block: str, names: Sequence[str], numbers: Float[Tensor, "samples names 2"]) -> None:
    """A curve over named places in the block's colour, and its control's dotted in grey, with their intervals."""
    for kind, (color, line) in enumerate(((BLOCK_COLORS[block], "-"), (CONTROL_COLOR, ":"))):
        look = {"color": color, "linestyle": line, "marker": BLOCK_MARKERS[block], "markersize": 3}
        draw_band(
            ax,
            [float(x) for x in range(len(names))],
            [interval_of(samples) for samples in numbers[..., kind].T],
            **look,
        )
    ax.set_xticks(range(len(names)), names)
    ax.margins(x=0.2)


KIND_LOOKS = (
    {"shift": -0.15},
    {"shift": 0.1, "color": CONTROL_COLOR, "marker": "o", "mfc": "white"},
    {"shift": 0.3, "color": "black", "marker": "|"},
)
"""Of the kinds of a number in `draw_blocks`: features, in the block's colour and marker, their control, a third one."""


def draw_blocks(
    ax: Axes, by_block: Mapping[str, Float[Tensor, "samples kinds"]], blocks: Sequence[str], zero: bool = True
) -> None:
    """`draw_rows` with a row for each of `blocks`, and in it each kind's number with its interval, as KIND_LOOKS says.

    A block without samples has an empty row. zero: with a line at 0.
    """
    numbers = {block: [interval_of(kind) for kind in by_block.get(block, torch.empty(0, 0)).T] for block in blocks}
    draw_rows(ax, numbers, KIND_LOOKS)
    if zero:
        ax.axvline(0, color="black", linewidth=0.6)
    ax.set_ylim(len(blocks) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")


def show_written(
    later: Reading, trials: Trials, pictures: Float[Tensor, "lines models 3 3 height width"], models: Sequence[str]
) -> tuple[Figure, list[list[str]], list[list[list[str]]]]:
    """What `writing.draw_lines` drew as a figure; its lines in words (feature, what it reads, prompt), and its signs.

    The signs under the pictures say whether the judge sees what the feature reads; there are none without a judge.
    models: the words above the models' pictures.
    """
    prompts = [later.prompts[row] for row in trials.rows.tolist()]
    lines = [[str(each.id), each.label, prompt] for each, prompt in zip(trials.targets, prompts, strict=True)]
    blocks = [each.id.block for each in trials.targets]
    heads = [(f"{b}: {name}", BLOCK_COLORS[b], prompt) for b, (_, name, prompt) in zip(blocks, lines, strict=True)]
    signs = [[[""] * 3] * len(models)] * len(lines)
    if later.assets.known:
        seen = see_values(later.assets.judge, pictures.flatten(0, 2)).unflatten(0, pictures.shape[:3])
        shown = [line[..., each.value].tolist() for line, each in zip(seen, trials.targets, strict=True)]
        signs = [[["✗✓"[int(x)] for x in group] for group in line] for line in shown]
    fig = show_lines(pictures, heads, signs, models, ("unedited", "on", "random"), TEXT_WIDTH)
    if later.assets.known:
        fig.supxlabel("✓ the judge sees in this picture what the feature reads, ✗ it does not", size=8)
    return fig, lines, signs
