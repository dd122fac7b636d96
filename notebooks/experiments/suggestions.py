"""The painter's three "Try this" edits, chosen by the judge: `python -m notebooks.experiments.suggestions`.

1. *Sweep*: every live feature of BLOCKS in each of CAPTIONS and in each area (the object, where nothing stands,
   everywhere), turned on and turned off, in one step, in one seed. The judge says what changed (`change_between`).
2. *Choice*: what changed one thing in the sweep, in the area where that is to be painted (KINDS), is tried in two
   seeds more. Of each change the best six are tried in one step and in four, in six seeds. Best is what worked most
   often; of equals, what changed least else, then the weaker one, then four steps before one.
3. *Test*: the best of each change, if it worked in all six seeds, is tested in ten seeds that no earlier step used: the
   first ten in whose unedited picture the judge sees one object of the caption's shape. The best of each kind comes
   first, in the order of KINDS, then the next. The first three that work in at least nine are offered. Stored is all
   that was tested.

Writes figures/results/suggestions.json (some four minutes on one idle core). The sweep is kept in the cache.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, product
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.drawing import draw_pictures
from sae_lib.assets import MODELS, Assets
from sae_lib.cache.artefact import cached
from sae_lib.cache.results import result_path, save_result
from sae_lib.features.feature import FeatureId, strength_unit
from sae_lib.features.interventions import add_features, intervene
from sae_lib.paint.edits import Edit, Layer
from sae_lib.paint.painter import Painter
from sae_lib.paint.suggestions import ENOUGH, GONE, NEW, RESULT, Change, changes_seen, in_words
from sae_lib.pocket.judge import judge_images
from sae_lib.pocket.world import ANCHORS, IMAGE_SIZE

COMMAND = "python -m notebooks.experiments.suggestions"
CAPTIONS = {
    "a large blue plain square on the left at sea": ("left", "right", "square"),
    "a large yellow plain circle on the right in a meadow": ("right", "left", "circle"),
}
"""Captions of one object: where it stands, where nothing stands, and its shape."""
AREAS = ("object", "empty", "everywhere")
BLOCKS = ("up.1.2", "up.1.1", "down.1.0")
"""The blocks whose features write most (notebook 08)."""
SWEPT = (10.0, 20.0, -10.0, -20.0)
SWEPT_IN, TRIED_IN, CHOSEN_IN = [0], [1, 2], list(range(3, 9))
"""The seeds of the first two steps; the second has two parts."""
TESTED_FROM, TESTED = 300, 10
"""The first seed of the test, and how many seeds it takes."""
RADIUS = {"object": 17.0, "empty": 12.0}
"""Pixels around the place that are painted."""
KINDS = {NEW: "empty", "colour": "object", "shape": "object", GONE: "object", "background": "everywhere"}
"""Kinds of change, those that a person sees best first, and the area in which each is to be painted."""
PER_CHANGE, OFFERED = 6, 3
_BATCH = 32


class Try(NamedTuple):
    """A feature in an area of a caption's picture."""

    prompt: str
    feature: FeatureId
    area: str
    strength: float
    model: str = MODELS[0]


def cells(prompt: str, area: str, side: int) -> Tensor:
    """The mask of an area: a disk around where the object stands or nothing does, or everything."""
    if area == "everywhere":
        return torch.ones(side, side)
    x, y = ANCHORS[CAPTIONS[prompt][AREAS.index(area)]]
    at = (torch.arange(side) + 0.5) * IMAGE_SIZE / side
    return ((at[None] - x) ** 2 + (at[:, None] - y) ** 2 <= RADIUS[area] ** 2).float()


def draw(assets: Assets, tries: Sequence[Try], seeds: Sequence[int]) -> Iterator[tuple[Try, int, Change | None]]:
    """What the judge sees change, for each try in each seed; in batches of one block and one setting."""
    plain: dict[tuple[str, int, str], Tensor] = {}

    def pictures(some: Sequence[tuple[Try, int]], model: str) -> Tensor:
        settings = CallSettings(assets.call(model)[1].steps, 0.0, 0, len(some))
        return draw_pictures(assets.pipe(), [one.prompt for one, _ in some], settings, [s * 1_000_003 for _, s in some])

    for model, block in dict.fromkeys((one.model, one.feature.block) for one in tries):
        mine = [(one, seed) for one in tries if (one.model, one.feature.block) == (model, block) for seed in seeds]
        sae, side, statistics = assets.saes()[block], assets.grid(block), assets.statistics()[block]
        new = {(one.prompt, seed): (one, seed) for one, seed in mine if (one.prompt, seed, model) not in plain}
        if missing := list(new.values()):
            drawn = pictures(missing, model)
            plain |= {(one.prompt, seed, model): picture for (one, seed), picture in zip(missing, drawn, strict=True)}
        for start in range(0, len(mine), _BATCH):
            batch = mine[start : start + _BATCH]
            numbers = torch.tensor([one.feature.feature for one, _ in batch])
            amounts = torch.tensor([one.strength * strength_unit(statistics, one.feature.feature) for one, _ in batch])
            masks = torch.stack([cells(one.prompt, one.area, side) for one, _ in batch])
            with intervene(assets.pipe(), {block: add_features(sae, numbers, amounts, masks)}):
                after = pictures(batch, model)
            before = torch.stack([plain[one.prompt, seed, model] for one, seed in batch])
            for (one, seed), change in zip(batch, changes_seen(assets, before, after), strict=True):
                yield one, seed, change


def sweep(assets: Assets, block: str) -> list[tuple[Try, Change]]:
    """Step 1: the tries of one block's features that changed one thing."""
    live = [FeatureId(block, i) for i in (assets.statistics()[block].mean > 0).nonzero().flatten().tolist()]
    tries = [Try(p, feature, area, s) for feature, p, area, s in product(live, CAPTIONS, AREAS, SWEPT)]

    def make(folder: Path) -> None:
        found = {number: change for number, (_, _, change) in enumerate(draw(assets, tries, SWEPT_IN)) if change}
        (folder / "changes.json").write_text(json.dumps(found))

    inputs = assets.identity | {"tries": [[*one, str(one.feature)] for one in tries], "seeds": SWEPT_IN}
    changes = json.loads((cached("suggestion_sweep", inputs, make) / "changes.json").read_text())
    print(f"{block}: {len(changes)} of {len(tries)} tries changed one thing", flush=True)
    return [(tries[int(number)], Change(*change)) for number, change in changes.items()]


class Tally(NamedTuple):
    """How often a try changed what it is to change."""

    one: Try
    kind: str
    value: str
    seen: list[Change | None]

    @property
    def worked(self) -> int:
        """In how many seeds the judge saw the change."""
        return sum(change is not None and change[:2] == (self.kind, self.value) for change in self.seen)

    @property
    def place(self) -> tuple[float, ...]:
        """The best first."""
        others = [change.others for change in self.seen if change and change[:2] == (self.kind, self.value)]
        return -self.worked, mean(others or [9]), abs(self.one.strength), self.one.model != MODELS[1]


def tally(assets: Assets, wanted: Sequence[tuple[Try, str, str]], seeds: Sequence[int]) -> list[Tally]:
    """Some tries, each with the change that it is to make, in some seeds; the best first."""
    seen: dict[Try, list[Change | None]] = {}
    for one, _, change in draw(assets, list(dict.fromkeys(one for one, _, _ in wanted)), seeds):
        seen.setdefault(one, []).append(change)
    return sorted((Tally(*each, seen[each[0]]) for each in wanted), key=lambda each: each.place)


def choose(assets: Assets, found: Sequence[tuple[Try, Change]]) -> list[Tally]:
    """Step 2: the best of each change that always worked, in the order of the test."""
    here = [(one, change.kind, change.value) for one, change in found if KINDS.get(change.kind) == one.area]
    again = by_change(tally(assets, here, TRIED_IN))
    best = [each for tallies in again for each in tallies[:PER_CHANGE] if each.worked]
    wanted = [(each.one._replace(model=model), each.kind, each.value) for each, model in product(best, MODELS[:2])]
    last = [tallies[0] for tallies in by_change(tally(assets, wanted, CHOSEN_IN))]
    for each in last:
        print(f"{each.worked} of {len(CHOSEN_IN)}  {each.kind} {each.value}  {each.one}", flush=True)
    ranked = sorted((each for each in last if each.worked == len(CHOSEN_IN)), key=lambda each: each.place)
    turn = lambda each: [other.kind for other in ranked[: ranked.index(each)]].count(each.kind)
    return sorted(ranked, key=lambda each: (turn(each), list(KINDS).index(each.kind)))


def by_change(tallies: Sequence[Tally]) -> list[list[Tally]]:
    """Tallies of one change each, in their order."""
    groups: dict[tuple[str, str], list[Tally]] = {}
    for each in tallies:
        groups.setdefault((each.kind, each.value), []).append(each)
    return list(groups.values())


def as_edit(one: Try, side: int, seed: int) -> Edit:
    """A try as the painter draws it."""
    mask = None if one.area == "everywhere" else tuple(map(tuple, cells(one.prompt, one.area, side).tolist()))
    return Edit(one.prompt, seed, one.model, (Layer(one.feature, one.strength, mask),))


def works(tested: Mapping[str, Any]) -> bool:
    """Whether an edit that was tested is offered."""
    return tested["worked"] >= ENOUGH * len(tested["seeds"])


def test(painter: Painter, best: Sequence[Tally]) -> list[dict[str, Any]]:
    """Step 3: what came of each in seeds of its own, drawn one by one by the painter, until three have worked."""
    tested: list[dict[str, Any]] = []
    for one, kind, value, _ in best:
        if sum(map(works, tested)) == OFFERED:
            break
        shape, edits, drawn = CAPTIONS[one.prompt][2], [], []
        for seed in count(TESTED_FROM):
            edit = as_edit(one, painter.assets.grid(one.feature.block), seed)
            pictures = painter.draw(edit)
            (judged,) = judge_images(painter.assets.judge, pictures.before[None])
            if [thing.attributes["shape"] for thing in judged.objects] == [shape]:
                edits.append(edit)
                drawn.append(pictures)
            if len(edits) == TESTED:
                break
        before, after = (torch.stack([pictures[part] for pictures in drawn]) for part in (0, 1))
        changes = changes_seen(painter.assets, before, after)
        worked = [change is not None and change[:2] == (kind, value) for change in changes]
        shown = edits[worked.index(True) if any(worked) else 0]
        tested.append(
            {
                "words": in_words(kind, value, shape),
                "edit": shown.to_json(),
                "kind": kind,
                "value": value,
                "worked": sum(worked),
                "seeds": [edit.seed for edit in edits],
            }
        )
        print(f"{sum(worked)} of {TESTED}: {tested[-1]['words']} ({one})", flush=True)
    return tested


def main() -> None:
    """All three steps."""
    painter = Painter(Assets("pocket"))
    assets = painter.assets
    tested = test(painter, choose(assets, [each for block in BLOCKS for each in sweep(assets, block)]))
    chosen = [each for each in tested if works(each)]
    save_result(result_path(RESULT), {"chosen": chosen, "tested": tested}, COMMAND)


if __name__ == "__main__":
    main()
