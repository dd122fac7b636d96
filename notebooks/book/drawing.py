"""The gallery's pictures: one strip of tiles for every feature that fires, drawn many at once and kept in the cache.

On a strip stand, side by side, the pictures in which the feature is most active, the same under its maps, and the first
of them modulated: what `Catalogue.panels` gives for a feature's card, without the icon. Icons are left out because many
of a block are alike: alone with the noise, one feature of most pocket blocks changes little.
"""

import io
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from notebooks.book.progress import OnStep, silent
from sae_lib import Catalogue, Painter
from sae_lib.activations.drawing import as_image
from sae_lib.assets import Assets
from sae_lib.cache.artefact import cached, write_if_changed
from sae_lib.companion.pictures import lay_over
from sae_lib.features.feature import FeatureId
from sae_lib.features.interventions import modulate
from sae_lib.features.reading import Reading
from sae_lib.features.writing import draw_changed
from sae_lib.paint.catalogue import BETAS, TOP, Row

TILES = 2 * TOP + len(BETAS)
"""Number of tiles on a strip: the top pictures, the same under the maps, and the first of them at each beta."""
TOGETHER = 16
"""Number of features whose pictures are drawn together."""
QUALITY = 82
"""Quality of the WebP files, which gives some 6 kB per strip."""

Tops = Mapping[int, Sequence[int]]
"""By the number of a block's feature, the rows of the reading in whose pictures it is most active."""


def draw_strips(
    reading: Reading, block: str, tops: Tops, betas: Sequence[float]
) -> Float[Tensor, "features tiles 3 height width"]:
    """All tiles of some features; where a feature has fewer top pictures, the rest is white."""
    features = [FeatureId(block, number) for number in tops for _ in betas]
    first = [rows[0] for rows in tops.values() for _ in betas]
    asked = [reading.prompts[row] for row in first], reading.noise(first)
    changed = draw_changed(reading.assets, modulate, features, [*betas] * len(tops), *asked)
    most, pictures = (TILES - len(betas)) // 2, reading.pictures
    strips = torch.ones(len(tops), TILES, *changed.shape[1:])
    for strip, (number, rows) in zip(strips, tops.items(), strict=True):
        strip[: len(rows)] = pictures[rows]
        for place, (row, activation) in enumerate(zip(rows, reading.maps(block, number, rows), strict=True)):
            strip[most + place] = lay_over(pictures[row], activation)
    strips[:, 2 * most :] = changed.unflatten(0, (len(tops), -1))
    return strips


def draw_block(scale: str, folder: Path, betas: Sequence[float], block: str, tops: Tops) -> None:
    """Write `<block>/<number>.webp` for each feature; those that a killed run wrote are kept."""
    (folder / block).mkdir(exist_ok=True)
    left = [number for number in tops if not (folder / block / f"{number}.webp").is_file()]
    reading = Reading(Assets(scale))
    for start in range(0, len(left), TOGETHER):
        part = {number: tops[number] for number in left[start : start + TOGETHER]}
        for number, strip in zip(part, draw_strips(reading, block, part, betas), strict=True):
            tiled = strip.movedim(0, 2).flatten(2)  # [3, height, tiles * width]
            write_if_changed(folder / block / f"{number}.webp", _as_webp(tiled))


def _as_webp(picture: Float[Tensor, "3 height width"]) -> bytes:
    with io.BytesIO() as file:
        as_image(picture).save(file, "WEBP", quality=QUALITY, method=6)
        return file.getvalue()


class Gallery(NamedTuple):
    """A drawn gallery."""

    pictures: Path
    """The folder with `<block>/<number>.webp` for each feature that has a card."""
    cards: dict[str, list[dict[str, Any]]]
    """By block, what the cards say (`card`)."""
    n_f: dict[str, int]
    """By block, the number of features, with those that have no card."""


def card(catalogue: Catalogue, row: Row) -> dict[str, Any]:
    """What a card says about a feature; its caption is that of the picture in which it is most active."""
    top, _ = catalogue.top_pictures(row.id)
    says = {"number": row.id.feature, "label": row.label, "clear": row.clear, "reads": row.reads, "draws": row.draws}
    return says | {"rate": row.firing_rate, "caption": catalogue.prompts[top[0]], "top": top}


def cards_of(catalogue: Catalogue) -> dict[str, list[dict[str, Any]]]:
    """What all cards say, by block."""
    return {block: [card(catalogue, row) for row in catalogue.live(block)] for block in catalogue.assets.blocks}


def draw_gallery(
    scale: str = "pocket",
    workers: int | None = None,
    on_step: OnStep = silent,
) -> Gallery:
    """The gallery; its pictures come from the cache or are drawn now by one process per core.

    A feature costs four rows of the U-Net; what a killed run drew is kept. The pictures depend on the reading alone, so
    what the cards say may change without a new picture. on_step: told what is done, how much of it, of how much, where.
    """
    catalogue = Catalogue(Painter(Assets(scale)))
    catalogue.prepare(lambda done, total: on_step("Pictures that features are read in", done, total, ""))
    on_step("What features draw, unless notebook 08 has measured it", 0, 1, "")
    cards = cards_of(catalogue)
    on_step("What features draw, unless notebook 08 has measured it", 1, 1, "")
    tops = {block: {of["number"]: of["top"] for of in of_block} for block, of_block in cards.items()}

    def tell(folder: Path) -> None:
        drawn = {block: len([*folder.glob(f"{block}/*.webp")]) for block in tops}
        at = [f"{block} {drawn[block]}/{len(tops[block])}" for block in tops if 0 < drawn[block] < len(tops[block])]
        on_step("Cards of the gallery", sum(drawn.values()), sum(map(len, tops.values())), ", ".join(at))

    def make(folder: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers or min(os.cpu_count() or 1, len(tops)), spawn) as pool:
            jobs = [pool.submit(draw_block, scale, folder, BETAS, block, of_block) for block, of_block in tops.items()]
            while wait(jobs, 1, FIRST_EXCEPTION).not_done and not any(job.done() and job.exception() for job in jobs):
                tell(folder)
            for job in jobs:
                job.result()
        tell(folder)

    pictures = cached("gallery", {"scale": scale, "tops": tops, "betas": list(BETAS)}, make, resumable=True)
    return Gallery(pictures, cards, {block: catalogue.assets.saes()[block].n_f for block in cards})
