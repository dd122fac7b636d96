"""The gallery's pictures: one strip of tiles for every feature that fires, drawn many at once and kept in the cache.

A strip is what `Catalogue.panels` gives for a feature's card, side by side: the icon, the top pictures under their
maps, and the first of them modulated, with itself unchanged in the middle.
"""

import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib import Catalogue, Painter
from sae_lib.activations.drawing import as_image
from sae_lib.assets import Assets
from sae_lib.cache.artefact import cached, write_if_changed
from sae_lib.features.feature import FeatureId
from sae_lib.paint.catalogue import BETAS, TOP

TILES = 1 + TOP + len(BETAS) + 1
"""Number of tiles on a strip: the icon, the top pictures, and the betas with 0 among them."""
TOGETHER = 16
"""Number of features whose pictures are drawn together."""
QUALITY = 82
"""Quality of the WebP files, which gives some 6 kB per strip."""


def draw_strips(catalogue: Catalogue, features: Sequence[FeatureId]) -> Float[Tensor, "features tiles 3 height width"]:
    """All tiles of some features; where a feature has fewer top pictures, the rest is white."""
    strips, middle = [], sum(beta < 0 for beta in BETAS)
    for panel in catalogue.panels(features):
        strip = torch.ones(TILES, *panel.icon.shape)
        strip[0] = panel.icon
        strip[1 : 1 + len(panel.top)] = panel.top
        plain = catalogue.pictures[panel.rows[:1]]
        strip[1 + TOP :] = torch.cat([panel.strip[:middle], plain, panel.strip[middle:]])
        strips.append(strip)
    return torch.stack(strips)


def draw_block(scale: str, folder: Path, block: str) -> None:
    """Write `<number>.webp` for each live feature, then `features.json`: what the cards say, and how many are dead."""
    done = folder / block / "features.json"
    if done.is_file():
        return
    done.parent.mkdir(exist_ok=True)
    catalogue = Catalogue(Painter(Assets(scale)))
    live = [row.id for row in catalogue.live(block)]
    for start in range(0, len(live), TOGETHER):
        part = live[start : start + TOGETHER]
        for feature, strip in zip(part, draw_strips(catalogue, part), strict=True):
            tiled = strip.movedim(0, 2).flatten(2)  # [3, height, tiles * width]
            as_image(tiled).save(folder / block / f"{feature.feature}.webp", quality=QUALITY, method=6)
    cards = [card(catalogue, feature) for feature in live]
    drawn = {"n_f": catalogue.assets.saes()[block].n_f, "live": cards}
    write_if_changed(done, json.dumps(drawn).encode())  # whole: a later run takes it for a sign that the block is done


def card(catalogue: Catalogue, feature: FeatureId) -> dict[str, str | int | float]:
    """What a card says about a feature; its caption is that of the picture in which it is most active."""
    row, (top, _) = catalogue.row(feature), catalogue.top_pictures(feature)
    says = {"number": feature.feature, "meaning": row.meaning, "score": round(row.reads, 3)}
    return says | {"rate": round(row.firing_rate, 5), "caption": catalogue.prompts[top[0]], "top": len(top)}


def draw_gallery(scale: str = "pocket", workers: int | None = None) -> Path:
    """The gallery, a folder with one folder per block of the scale, from the cache or drawn now by
    one process per core.

    A feature costs some five rows of the U-Net; blocks that a killed run finished are kept.
    """
    blocks = Assets(scale).blocks

    def make(folder: Path) -> None:
        Catalogue(Painter(Assets(scale))).rows  # noqa: B018 - the reading and its scores, once for all processes
        print("Drawing the gallery of features (once; some minutes) ...", flush=True)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers or min(os.cpu_count() or 1, len(blocks)), spawn) as pool:
            list(pool.map(partial(draw_block, scale, folder), blocks))

    return cached("gallery", {"scale": scale, "blocks": list(blocks)}, make, resumable=True)
