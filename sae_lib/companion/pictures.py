"""Pictures in figures: alone in a panel, in lines, under an activation map, and the difference of two."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from sae_lib.activations.drawing import MAX_SHOWN

SEEN = 7.0
"""From how many of 255 levels on a change of colour is seen at a glance (`is_seen`). Of some fifty strokes on the
pocket model, looked at side by side, the faintest that stood out had 7.2."""


def difference(
    before: Float[Tensor, "3 height width"], after: Float[Tensor, "3 height width"]
) -> Float[Tensor, "3 height width"]:
    """Where two pictures differ: the mean absolute difference of the colours, in viridis.

    Dark is no difference, yellow is half of the range or more; the scale is the same for all pictures.
    """
    change = (after - before).abs().mean(0).mul(2).clamp(max=1)
    return _colored(change, "viridis")


def is_seen(before: Float[Tensor, "3 height width"], after: Float[Tensor, "3 height width"]) -> bool:
    """Whether one sees at a glance, side by side, that two pictures differ.

    The picture is divided into 16 x 16 cells; in one of them the mean colour changes by SEEN levels or more (the mean
    of red, green and blue). Means over cells, since waves or edges that shift by a pixel change many colours unnoticed.
    """
    change = F.adaptive_avg_pool2d(after - before, 16).abs().mean(0)
    return change.max().item() * 255 >= SEEN


def lay_over(
    picture: Float[Tensor, "3 height width"], activation_map: Float[Tensor, "rows columns"]
) -> Float[Tensor, "3 height width"]:
    """A picture under an activation map, with a thin border around the active cells.

    The map is enlarged cell by cell; more active cells are brighter and more opaque. Where the map is 0 the picture is
    untouched, and no cell is more than 35 % opaque, so that one sees the picture's colours.
    """
    blown = F.interpolate(activation_map[None, None], picture.shape[-2:])[0, 0]
    scaled = blown / blown.max().clamp(min=1e-9)
    opacity = torch.where(scaled > 0, 0.1 + 0.25 * scaled, 0)
    laid = (1 - opacity) * picture + opacity * _colored(0.4 + 0.6 * scaled, "plasma")
    there = F.pad((scaled > 0).float()[None, None], (1, 1, 1, 1), mode="replicate")[0]
    border = (scaled > 0) & (-F.max_pool2d(-there, 3, stride=1)[0] == 0)
    return torch.where(border, 0.4 * laid + 0.6 * _colored(scaled.clamp(min=1), "plasma"), laid)


def outline_cells(ax: Axes, mask: Float[Tensor, "rows columns"], side: int) -> None:
    """Draws the border of the cells that are not 0, white on black, over a picture `side` pixels wide."""
    cell = side / len(mask)
    there = F.pad(mask > 0, (1, 1, 1, 1))
    across = (there[1:, 1:-1] != there[:-1, 1:-1]).nonzero().tolist()  # an edge above cell (row, column)
    along = (there[1:-1, 1:] != there[1:-1, :-1]).nonzero().tolist()  # one on its left
    lines = [[(x, y), (x + 1, y)] for y, x in across] + [[(x, y), (x, y + 1)] for y, x in along]
    placed = [[(x * cell - 0.5, y * cell - 0.5) for x, y in line] for line in lines]
    for color, width in (("black", 1.8), ("white", 0.9)):
        ax.add_collection(LineCollection(placed, colors=color, linewidths=width, capstyle="round"), autolim=False)


def _colored(values: Float[Tensor, "height width"], name: str) -> Float[Tensor, "3 height width"]:
    return torch.from_numpy(colormaps[name](values.numpy())[..., :3]).float().movedim(-1, 0)


def show_lines(
    pictures: Float[Tensor, "lines groups columns 3 height width"],
    heads: Sequence[tuple[str, str, str]],
    signs: Sequence[Sequence[Sequence[str]]],
    groups: Sequence[str],
    columns: Sequence[str],
    width: float,
) -> Figure:
    """A figure of pictures in lines, with groups side by side.

    heads: per line, a title in bold, its colour and a caption. signs: what stands under each picture. groups: titles
    above the groups. columns: names under the last line. width: of the figure, in inches.
    """
    lines, wide, many = pictures.shape[:3]
    gaps = [0.15 if place % (many + 1) == many else 1 for place in range(wide * (many + 1) - 1)]
    fig, axes = plt.subplots(lines, len(gaps), figsize=(width, 0.35 + 0.87 * lines), squeeze=False, width_ratios=gaps)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    for i, (row, (title, color, caption)) in enumerate(zip(axes, heads, strict=True)):
        for gap in row[many :: many + 1]:
            gap.axis("off")
        where = {"va": "bottom", "annotation_clip": False, "in_layout": False}
        look = {"fontsize": 8, "fontweight": "bold", "color": color}
        head = row[0].annotate(title, (0, 1.04), xycoords="axes fraction", **where, **look)
        row[0].annotate(f"  “{caption}”", (1, 0.1), xycoords=head, fontsize=7, **where)
        row[0].set_title(" ", fontsize=8, pad=2)
        for group in range(wide):
            for ax, picture, sign, name in zip(
                row[group * (many + 1) :], pictures[i, group], signs[i][group], columns, strict=False
            ):
                show_picture(ax, picture)
                ax.set_xlabel(sign if i < lines - 1 else f"{sign}\n{name}", fontsize=8, labelpad=1)
            if i == 0:
                row[group * (many + 1) + many // 2].set_title(f"{groups[group]}\n", fontsize=9, pad=2)
    return fig


def show_picture(ax: Axes, picture: Float[Tensor, "channels height width"], **imshow: Any) -> AxesImage:
    """Shows the picture (3 channels in [0, 1]) or map (1 channel) in a bare panel; returns the image for a colour bar.

    A PDF keeps the picture's own pixels and does not enlarge them, which makes a grid of pictures a third smaller.
    """
    picture = picture.float()
    if picture.shape[-1] > MAX_SHOWN:
        scale = MAX_SHOWN / picture.shape[-1]
        picture = F.interpolate(picture[None], scale_factor=scale, mode="area")[0]
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
    return ax.imshow(picture.movedim(0, -1).squeeze(-1).numpy(force=True), **({"interpolation": "none"} | imshow))
