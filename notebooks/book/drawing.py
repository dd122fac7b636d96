"""The gallery's pictures: one strip of tiles for every feature that fires, drawn many at once and kept in the cache.

A strip is what `Catalogue.panel` shows on a feature's card, side by side: the icon, the top pictures under their maps, and
the first of them modulated, with itself unchanged in the middle.
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
from sae_lib.blocks import PAPER_BLOCKS
from sae_lib.catalogue import BETAS, TOP
from sae_lib.features import FeatureId
from sae_lib.interventions import modulate, replace_with_feature
from sae_lib.pictures import as_image, lay_over
from sae_lib.store import cached

TILES = 1 + TOP + len(BETAS) + 1
"""On a strip: icon, top pictures, betas with 0 among them."""
BATCH = 16
"""Pictures a call: more were slower in all that was measured (20 a second on one core, 17 at 64, 12 at 128)."""
QUALITY = 82
"""Of WebP: some 6 kB a strip."""


def live_features(catalogue: Catalogue, block: str) -> list[FeatureId]:
    """Those that are active in one of the catalogue's pictures and whose mean activation is known."""
    known = catalogue.painter.statistics[block].mean
    rows = [row for row in catalogue.rows if row.id.block == block]
    return [row.id for row in rows if row.firing_rate > 0 and known[row.id.feature] > 0]


def draw_icons(catalogue: Catalogue, features: Sequence[FeatureId]) -> Float[Tensor, "features 3 height width"]:
    """What `Catalogue.panel` calls icon, of features of one block, values in [0, 1]."""
    painter, block = catalogue.painter, features[0].block
    sae = painter.saes[block]
    amounts = torch.tensor([painter.amount(feature, float(sae.k)) for feature in features])
    numbers = torch.tensor([feature.feature for feature in features])
    count = len(features)
    # The cards' own way of drawing, so that a seed or a setting cannot differ.
    return catalogue._draw([""] * count, replace_with_feature(sae, numbers, amounts), block, [0] * count)


def draw_modulated(
    catalogue: Catalogue, features: Sequence[FeatureId]
) -> Float[Tensor, "features betas 3 height width"]:
    """What `Catalogue.panel` calls strip, of features of one block, values in [0, 1]."""
    block, count = features[0].block, len(BETAS)
    numbers = torch.tensor([feature.feature for feature in features]).repeat_interleave(count)
    rows = [catalogue.top_pictures(feature)[0][0] for feature in features for _ in BETAS]
    fn = modulate(catalogue.painter.saes[block], numbers, torch.tensor(BETAS).repeat(len(features)))
    drawn = catalogue._draw([catalogue.prompts[row] for row in rows], fn, block, rows)
    return drawn.unflatten(0, (len(features), count))


def draw_strips(catalogue: Catalogue, features: Sequence[FeatureId]) -> Float[Tensor, "features tiles 3 height width"]:
    """All tiles of features of one block; where a feature has fewer top pictures, the rest is white."""
    icons, modulated = draw_icons(catalogue, features), draw_modulated(catalogue, features)
    strips = torch.ones(len(features), TILES, *icons.shape[1:])
    for strip, feature, icon, changed in zip(strips, features, icons, modulated, strict=True):
        rows, maps = catalogue.top_pictures(feature)
        middle = sum(beta < 0 for beta in BETAS)
        strip[0] = icon
        for place, (row, each) in enumerate(zip(rows, maps, strict=True)):
            strip[1 + place] = lay_over(catalogue.pictures[row], each)
        plain = catalogue.pictures[rows[:1]]
        strip[1 + TOP :] = torch.cat([changed[:middle], plain, changed[middle:]])
    return strips


def draw_block(scale: str, folder: Path, block: str) -> None:
    """Write `<number>.webp` for each live feature, then `features.json`: what the cards say, and how many are dead."""
    done = folder / block / "features.json"
    if done.is_file():
        return
    done.parent.mkdir(exist_ok=True)
    catalogue = Catalogue(Painter(scale))
    live = live_features(catalogue, block)
    for start in range(0, len(live), BATCH // len(BETAS)):
        part = live[start : start + BATCH // len(BETAS)]
        for feature, strip in zip(part, draw_strips(catalogue, part), strict=True):
            tiled = strip.movedim(0, 2).flatten(2)  # [3, height, tiles * width]
            as_image(tiled).save(folder / block / f"{feature.feature}.webp", quality=QUALITY, method=6)
    done.write_text(
        json.dumps({"n_f": catalogue.painter.saes[block].n_f, "live": [*map(partial(card, catalogue), live)]})
    )


def card(catalogue: Catalogue, feature: FeatureId) -> dict[str, str | int | float]:
    """What a card says of a feature; caption: of the picture in which it is most active."""
    row, (top, _) = catalogue.row(feature), catalogue.top_pictures(feature)
    told = {"number": feature.feature, "meaning": row.meaning, "score": round(row.score, 3)}
    return told | {"rate": round(row.firing_rate, 5), "caption": catalogue.prompts[top[0]], "top": len(top)}


def draw_gallery(scale: str = "pocket", workers: int | None = None) -> Path:
    """The folder with a folder for each block, from the cache or drawn now by one process a core.

    Drawing all of them at pocket scale takes some 500 seconds of one core; blocks that a killed run finished are kept.
    """

    def make(folder: Path) -> None:
        Catalogue(Painter(scale)).prepare()
        print("Drawing the gallery of features (once; some minutes) ...", flush=True)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers or min(os.cpu_count() or 1, len(PAPER_BLOCKS)), spawn) as pool:
            list(pool.map(partial(draw_block, scale, folder), PAPER_BLOCKS))

    return cached("gallery", {"scale": scale}, make, resumable=True)
