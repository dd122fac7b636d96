"""Where a picture shows what a phrase names: grounded masks, and their cells on a block's grid (RIEBench)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sae_lib.editing.cases import BACKGROUND, EVERYTHING, Case
from sae_lib.judges.attributes import load_judge


@runtime_checkable
class Finder(Protocol):
    """Finds a noun's instances in one picture."""

    def __call__(
        self, picture: Float[Tensor, "3 height width"], noun: str
    ) -> Bool[Tensor, "instances height width"]: ...


class GridMask(NamedTuple):
    """A mask on a block's grid."""

    cells: Bool[Tensor, "side side"]
    specks: int
    """Number of instances too small for any cell; for these the cell that they cover most is taken."""


class CaseMasks(NamedTuple):
    """The two masks of an edit, on every grid that its blocks have."""

    cells: dict[int, tuple[Bool[Tensor, "side side"], Bool[Tensor, "side side"]]]
    """By the grid's side: where the source's units are read and added; where the target's units are subtracted."""
    specks: int
    """Number of instances too small for a cell of the coarsest grid."""


class NothingFound(ValueError):
    """A phrase that names nothing in its picture: the case is counted as failed."""


def load_finder(scale: str, rehearsal: bool = False, device: str | torch.device = "cpu") -> Finder:
    """pocket and smoke: the dense judge. sdxl: GroundingDINO and SAM 2.1, of tiny random weights in a rehearsal.

    Raises what loading them raises: ConnectionError without network, with the models' names.
    """
    if scale != "sdxl":
        return JudgeFinder(load_judge(scale, device))
    from sae_lib.judges.grounding import load_grounded_sam

    return load_grounded_sam(rehearsal, device)


class JudgeFinder:
    """The connected components whose judged attributes include every word of the noun: "star", "red star"."""

    def __init__(self, judge: nn.Module):
        self._judge = judge

    def __call__(self, picture: Tensor, noun: str) -> Tensor:
        from sae_lib.pocket.judge import judge_images

        (judgement,) = judge_images(self._judge, picture[None])
        wanted = set(noun.split())
        instances = [thing.mask for thing in judgement.objects if wanted <= set(thing.attributes.values())]
        return torch.stack(instances) if instances else torch.zeros(0, *picture.shape[-2:], dtype=torch.bool)


def find_mask(
    finder: Finder, picture: Float[Tensor, "3 height width"], phrase: str, side: int, dilate: bool = True
) -> GridMask:
    """The cells of a block's grid in which the phrase's instances lie (authors' code).

    Instances are found in the picture, put on the grid one by one (`to_grid`) and united. "#everything" is every cell;
    "background" all cells but those of the "foreground" (pocket: of any object); "~x" all but those of x.

    Raises NothingFound if there is no instance, or no cell left.
    """
    return find_masks(finder, picture, phrase, [side], dilate)[side]


def find_masks(
    finder: Finder,
    picture: Float[Tensor, "3 height width"],
    phrase: str,
    sides: Iterable[int],
    dilate: bool = True,
) -> dict[int, GridMask]:
    """`find_mask` on several grids, by their sides; the finder looks at the picture once.

    Raises NothingFound if there is no instance, or no cell left on one of the grids.
    """
    sides = list(sides)
    if phrase == EVERYTHING:
        return {side: GridMask(torch.ones(side, side, dtype=torch.bool), 0) for side in sides}
    invert = phrase.startswith("~") or BACKGROUND in phrase
    noun = phrase.removeprefix("~")
    if BACKGROUND in phrase:
        noun = "" if isinstance(finder, JudgeFinder) else "foreground"
    instances = finder(picture, noun)
    if len(instances) == 0:
        raise NothingFound(f"nothing in the picture is {noun or 'foreground'!r}")
    masks = {}
    for side in sides:
        placed = [to_grid(instance, side, dilate) for instance in instances]
        cells = torch.stack([instance.cells for instance in placed]).any(0) ^ invert
        if not cells.any():
            raise NothingFound(f"no cell of the {side} x {side} grid is left for {phrase!r}")
        masks[side] = GridMask(cells, sum(instance.specks for instance in placed))
    return masks


def to_grid(mask: Bool[Tensor, "height width"], side: int, dilate: bool = True) -> GridMask:
    """A mask on a block's grid, as the authors' code makes it with OpenCV.

        blur by a Gaussian of 31 x 31 at 512 pixels (sigma 31/6), keep what is above 0      if dilate (camera ready)
        resize by Lanczos interpolation over 8 x 8 pixels around each cell's centre, keep what is above 0
        if nothing is left: the cell that the mask covers most

    The blur is scaled to the picture: it moves a border by 15 pixels of 512, half a cell. Where the kernel's negative
    lobes prevail the value is 0.
    """
    size = mask.shape[-1]
    field = mask.float()[None, None]
    if dilate:
        reach = max(1, round(15 * size / 512))
        field = F.max_pool2d(field, 2 * reach + 1, stride=1, padding=reach)  # blurred above 0 = any pixel within reach
    cells = _lanczos(_lanczos(field[0, 0], side).T, side).T > 1e-6
    if cells.any():
        return GridMask(cells, 0)
    cover = F.adaptive_avg_pool2d(mask.float()[None, None], side).flatten()
    return GridMask((torch.arange(side * side) == cover.argmax()).view(side, side), 1)


def _lanczos(field: Float[Tensor, "rows columns"], side: int) -> Float[Tensor, "rows side"]:
    """Each cell's value along the columns: 8 taps of Lanczos' kernel (a = 4) at the cell's centre, borders repeated."""
    size = field.shape[1]
    centres = (torch.arange(side) + 0.5) * size / side - 0.5
    taps = centres.floor()[:, None] + torch.arange(-3, 5)
    distance = taps - centres[:, None]
    weights = torch.sinc(distance) * torch.sinc(distance / 4)
    weights = weights / weights.sum(1, keepdim=True)
    return (field[:, taps.long().clamp(0, size - 1)] * weights).sum(-1).clamp(min=0)


def masks_of_cases(
    cases: Sequence[Case], finder: Finder, edited: Tensor, original: Tensor, sides: Iterable[int], dilate: bool = True
) -> list[CaseMasks | str]:
    """Each case's two masks on grids of these sides, or the sentence that says why it has none.

    An edit that changes something has its first mask from the edited picture and its second one from the original
    picture. Where an object is added, both come from the edited picture; where one is deleted, from the original.
    """
    sides, masks = sorted(sides), []
    for case, first, second in zip(cases, edited, original, strict=True):
        try:
            source = target = None
            if case.category != 3:
                source = find_masks(finder, first, case.editing_phrase, sides, dilate)
            if case.category != 2:
                target = find_masks(finder, second, case.original_phrase, sides, dilate)
            one, other = source or target, target or source
            specks = sum(grids[sides[0]].specks for grids in (source, target) if grids is not None)
            masks.append(CaseMasks({side: (one[side].cells, other[side].cells) for side in sides}, specks))
        except NothingFound as error:
            masks.append(str(error))
    return masks
