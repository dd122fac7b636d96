"""All features of some assets' SAEs, to look through: what they mean, how often they fire, what they look
like, which fit a text."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae_lib.companion.pictures import lay_over
from sae_lib.features.feature import FeatureId, search_features
from sae_lib.features.interventions import modulate, replace_with_feature
from sae_lib.features.reading import Reading, objects_in
from sae_lib.features.writing import (
    AROUND,
    EVERYWHERE,
    TRIED,
    TRIED_AGAIN,
    Strengths,
    Target,
    Written,
    choose_strengths,
    draw_changed,
    tried_again,
    well_read,
    well_written,
)
from sae_lib.judges.attributes import attribute_values, judge_and_truth, values_in
from sae_lib.judges.clip import Clip
from sae_lib.paint.edits import Edit, Layer
from sae_lib.paint.painter import OnStep, Painter

TOP, BETAS = 4, (-10.0, -5.0, 5.0, 10.0)
"""Pictures on a card: those in which the feature is most active, and the first of them modulated."""

DEFAULT_STRENGTH = 10.0
"""In multiples of the mean activation, where nothing says how strongly a block's features are turned on: the
authors' for painting."""

_SHOWN, _KEPT_PANELS = 128, 400


class Row(NamedTuple):
    """What a card says of one feature."""

    id: FeatureId
    firing_rate: float
    """Share of the positions at which it is active."""
    meaning: str
    """The attribute value that its map predicts best, "red (colour)"; empty where nothing knows the truth."""
    score: float
    """How well it does so on pictures that had no part in the choice: 0 is chance,
    1 perfect (`meaning.reading_scores`)."""


class Panel(NamedTuple):
    """The pictures of a card, values in [0, 1]."""

    rows: list[int]
    """The captions' numbers in whose pictures it is most active."""
    icons: Float[Tensor, "gammas 3 height width"]
    """Empty prompt; the block gives out its input and gamma * k times the feature's mean activation."""
    top: Float[Tensor, "top 3 height width"]
    """Their pictures, its maps laid over them."""
    strip: Float[Tensor, "betas 3 height width"]
    """The first of them modulated."""

    @property
    def icon(self) -> Float[Tensor, "3 height width"]:
        """Of the first gamma."""
        return self.icons[0]


class Firing(NamedTuple):
    """A feature that is active in a picture, or at one of its positions."""

    id: FeatureId
    strength: float
    """In multiples of its mean non-zero activation: at the position, or where it is strongest."""
    share: float
    """Of the picture's positions at which it is active."""


class Catalogue:
    """The features of a painter's SAEs, by the shared reading of held-out pictures (`Reading`).

    What all features need is computed once and kept in the cache; the pictures of a card are drawn when they are asked
    for. Nothing happens before it is needed, so that a missing model is told of where it is missed.
    """

    def __init__(self, painter: Painter):
        self.painter, self.assets = painter, painter.assets
        self._panels: OrderedDict[FeatureId, Panel] = OrderedDict()

    @cached_property
    def reading(self) -> Reading:
        """The held-out pictures."""
        with self.assets.lock:
            return Reading(self.assets)

    @property
    def prompts(self) -> list[str]:
        """The held-out captions."""
        return self.reading.prompts

    def prepare(self, on_picture: OnStep | None = None) -> Path:
        """Reads the pictures, if no run before did; the folder of the artefact."""
        with self.assets.lock:
            return self.reading.make(on_picture)

    @cached_property
    def pictures(self) -> Float[Tensor, "pictures 3 height width"]:
        """Of the captions, at most 128 pixels wide."""
        return _shrunk(self.reading.pictures)

    @cached_property
    def rows(self) -> list[Row]:
        """All features, block by block."""
        known, found = self.assets.known, []
        names = [f"{value} ({name})" for name, value in attribute_values()] if known else []
        for block in self.assets.blocks:
            rates = self.reading.shares(block).mean(0).tolist()
            if known:
                value, score, _ = (each.tolist() for each in self.reading.meaning(block))
            for number, rate in enumerate(rates):
                says = (names[value[number]], score[number]) if known and rate else ("", 0.0)
                found.append(Row(FeatureId(block, number), rate, *says))
        return found

    @cached_property
    def _row_of(self) -> dict[FeatureId, Row]:
        return {row.id: row for row in self.rows}

    def row(self, feature: FeatureId) -> Row:
        """What a card says of it. Raises ValueError for a feature that is not there."""
        if feature in self._row_of:
            return self._row_of[feature]
        if feature.block not in self.assets.blocks:
            raise ValueError(f"there is no feature {feature}: blocks are {', '.join(self.assets.blocks)}")
        n_f = self.assets.saes()[feature.block].n_f
        raise ValueError(f"there is no feature {feature}: {feature.block} has {n_f}, numbered from 0")

    def live(self, block: str) -> list[Row]:
        """A block's features that have a card: active in one of the pictures, and with a unit of strength."""
        units = self.assets.statistics()[block].mean
        return [row for row in self.rows if row.id.block == block and row.firing_rate > 0 and units[row.id.feature] > 0]

    @cached_property
    def _top(self) -> dict[str, tuple[Float[Tensor, "top n_f"], Int[Tensor, "top n_f"]]]:
        """By block, each feature's highest mean activations over the positions of a picture, and in which pictures."""
        means = {block: self.reading.means(block) for block in self.assets.blocks}
        return {block: each.topk(min(15, len(each)), dim=0) for block, each in means.items()}

    def top_pictures(
        self, feature: FeatureId, count: int = TOP
    ) -> tuple[list[int], Float[Tensor, "pictures height width"]]:
        """The captions' numbers in whose pictures it is most active, and its maps there, at most 15; those where
        it is not are left out."""
        self.row(feature)
        means, rows = (each[:count, feature.feature] for each in self._top[feature.block])
        rows = rows[means > 0].tolist()
        return rows, self.reading.maps(*feature, rows)

    def panel(self, feature: FeatureId) -> Panel:
        """The pictures of its card; the last ones are kept. Raises ValueError for a feature that never fired."""
        if feature not in self._panels:
            (self._panels[feature],) = self.panels([feature])
            while len(self._panels) > _KEPT_PANELS:
                self._panels.popitem(last=False)
        return self._panels[feature]

    def panels(
        self,
        features: Sequence[FeatureId],
        betas: Sequence[float] = BETAS,
        gammas: Sequence[float] = (1.0,),
        top: int = TOP,
    ) -> list[Panel]:
        """The pictures of some features' cards, in their order; those of a block are drawn together. A figure may ask
        for other betas (modulation), gammas (icons) and numbers of top pictures.

        Raises ValueError for a feature that never fired.
        """
        shown = {feature: self.top_pictures(feature, top) for feature in features}
        for feature, (rows, _) in shown.items():
            if not rows:
                raise ValueError(f"{feature} is active in none of the {len(self.prompts)} pictures.")
        full = [self.painter.amount(each, float(self.assets.saes()[each.block].k)) for each in shown]
        of_icons, of_strips = ([each for each in shown for _ in amounts] for amounts in (gammas, betas))
        alone = [gamma * amount for amount in full for gamma in gammas]
        empty = [""] * len(alone), [0] * len(alone)
        icons = draw_changed(self.assets, replace_with_feature, of_icons, alone, *empty, turn=self._turn)
        first = [rows[0] for rows, _ in shown.values() for _ in betas]
        asked = [self.prompts[row] for row in first], self.reading.noise(first)
        strips = draw_changed(self.assets, modulate, of_strips, [*betas] * len(shown), *asked, turn=self._turn)
        parts = (_shrunk(each).unflatten(0, (len(shown), -1)) for each in (icons, strips))
        pictures = dict(zip(shown, zip(*parts, strict=True), strict=True))
        return [Panel(shown[f][0], pictures[f][0], self._laid_over(*shown[f]), pictures[f][1]) for f in features]

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A stroke in a painter goes first."""
        self.painter.give_way()
        with self.assets.lock:
            yield

    def _laid_over(
        self, rows: Sequence[int], maps: Float[Tensor, "pictures rows columns"]
    ) -> Float[Tensor, "pictures 3 height width"]:
        return torch.stack([lay_over(self.pictures[row], each) for row, each in zip(rows, maps, strict=True)])

    def search(self, text: str, limit: int = 40) -> list[FeatureId]:
        """Features that fit a text: by number ("down.2.1/17", "17"); by block and by words of the meaning, those first
        that write it (`in_order_of_use`); and by CLIP, which compares the text with their top pictures. Of an empty
        text all, in the same order."""
        if numbered := re.fullmatch(r"(?:([\w.]+)/)?(\d+)", text.strip()):
            block, number = numbered[1], int(numbered[2])
            return [row.id for row in self.rows if row.id.feature == number and block in (None, row.id.block)]
        ranked, words = in_order_of_use(self.rows, self.written), text.lower().split()
        told = [row.id for row in ranked if all(word in f"{row.id} {row.meaning}" for word in words)]
        found = dict.fromkeys(told[:limit])
        if words and len(found) < limit:
            found |= dict.fromkeys(self._like(text, limit - len(found)))
        return list(found)

    def _like(self, text: str, limit: int) -> list[FeatureId]:
        (clip, embedded), fits = self._clip, []
        for block, (means, rows) in self._top.items():
            scores = torch.where(means[0] > 0, search_features(clip.embed_texts([text])[0], embedded, rows.T), 0)
            fits += [(score, FeatureId(block, number)) for number, score in enumerate(scores.tolist()) if score > 0]
        return [feature for _, feature in sorted(fits, key=lambda each: -each[0])[:limit]]

    @cached_property
    def _clip(self) -> tuple[Clip, Float[Tensor, "pictures dimensions"]]:
        """CLIP and the pictures as it sees them, from the first search that wants it on."""
        return self.assets.clip, self.assets.clip.embed_images(self.pictures)

    def firing(
        self,
        read: Mapping[str, Float[Tensor, "n_f height width"]],
        cell: tuple[int, int] | None = None,
        limit: int = 24,
    ) -> list[Firing]:
        """The features that are active in a picture (`Painter.read`), the highest mean over its positions first; with a
        cell (row, column) those active there, the strongest first. All in multiples of a feature's mean activation.

        cell: of the finest of the blocks' grids; of a coarser grid the cell that holds it. Raises ValueError for
        one that is not there.
        """
        found, finest = [], finest_grid(read)
        if cell and not all(0 <= at < finest for at in cell):
            raise ValueError(f"there is no cell {cell}: the finest grid is {finest} x {finest}")
        for block, maps in read.items():
            units, flat = self.assets.statistics()[block].mean, maps.flatten(1)
            row, column = (at * maps.shape[-1] // finest for at in cell or (0, 0))
            peak = (maps[:, row, column] if cell else flat.amax(1)) / units
            rank, share = peak if cell else flat.mean(1) / units, (flat > 0).float().mean(1)
            live = ((units > 0) & (rank > 0)).nonzero().flatten().tolist()
            found += [(rank[i].item(), Firing(FeatureId(block, i), peak[i].item(), share[i].item())) for i in live]
        return [each for _, each in sorted(found, key=lambda one: -one[0])[:limit]]

    @cached_property
    def _tries(self) -> tuple[Strengths, dict[Target, Written]]:
        """What features wrote when strengths were chosen, and what those wrote that were tried again; of both
        nothing without a judge."""
        if not self.assets.known:
            return Strengths({}, {}, {}), {}
        with self.assets.lock:
            features, captions = TRIED[self.assets.scale]
            strengths = choose_strengths(self.reading, features, captions)
            ranked = well_written(well_read(self.reading, features), strengths)
            return strengths, tried_again(self.reading, ranked, *TRIED_AGAIN[self.assets.scale])

    @cached_property
    def best(self) -> dict[str, Row]:
        """By block, the feature to begin painting with.

        Of the block's best-read features those are tried again that raise the value they read most above another live
        feature in the same place (`writing.choose_strengths`), all in captions of this reading; the best is the one
        that then raises its value most above the other, less the other values that come or go for each value that the
        picture shows. Without a judge: the one that fires most often.
        """
        live = {block: rows for block in self.assets.blocks if (rows := self.live(block))}
        often = {block: max(rows, key=lambda row: row.firing_rate) for block, rows in live.items()}
        gains = reversed(self._tries[1])  # the first of a block stays
        return often | {each.id.block: self.row(each.id) for each in gains}

    @cached_property
    def written(self) -> dict[FeatureId, Written]:
        """What each feature wrote that was tried as its block's brush: in more captions if it was tried again, else
        when strengths were chosen. Nothing without a judge."""
        strengths, again = self._tries
        return strengths.by_feature | {each.id: found for each, found in again.items()}

    def strength(self, block: str) -> float:
        """How strongly a block's features are turned on unless a reader says otherwise: as its best one gained most
        when tried again, and as the authors do where it gained nothing."""
        best = self.best.get(block)
        found = self.written.get(best.id) if best else None
        return found.strength if found and found.gain > 0 else DEFAULT_STRENGTH

    def brush(self, row: Row, mask: tuple[tuple[float, ...], ...] | None = None) -> Layer:
        """A feature as a layer, at its block's strength."""
        return Layer(row.id, self.strength(row.id.block), mask)

    @cached_property
    def first_edit(self) -> Edit:
        """Where a painter starts: the first held-out caption, and one of the features of `best` in an empty mask.

        It is the one whose stroke shows most. Those go first that are brushed over objects, before those that are
        turned on around them or everywhere; of these those whose value the judge sees afterwards and did not see
        before; of these the one with the largest change of the picture inside the stroke, less the change outside.
        Without a judge: the one that, everywhere, changes the picture most.
        """
        edit = Edit(self.prompts[0])
        plain, grids = self.painter.draw(edit).before, self.painter.grids(edit.model)

        def shows(row: Row) -> tuple[bool, bool, float]:
            mask = self.where(plain, row)
            after = self.painter.draw(replace(edit, layers=(self.brush(row, mask),))).after
            return (
                self.family(row) not in (*EVERYWHERE, *AROUND),
                self.seen(row, plain, after),
                contrast(plain, after, mask),
            )

        first = max(self.best.values(), key=shows)
        empty = ((0.0,) * grids[first.id.block],) * grids[first.id.block]
        return replace(edit, layers=(self.brush(first, empty),))

    def family(self, row: Row) -> str:
        """The attribute whose value a feature reads."""
        return row.meaning.partition(" (")[2].removesuffix(")")

    def where(self, picture: Float[Tensor, "3 height width"], row: Row) -> tuple[tuple[float, ...], ...] | None:
        """The cells of a feature's block where the judge sees objects, or for a background
        (`writing.AROUND`) where it sees none; None for everywhere, where no object says where to paint
        (`writing.EVERYWHERE`), and without a judge."""
        if not self.assets.known or self.family(row) in EVERYWHERE:
            return None
        cells = self.objects(picture, row.id.block)
        if self.family(row) in AROUND:
            cells = tuple(tuple(1 - there for there in line) for line in cells)
        return cells if any(map(any, cells)) else None

    def objects(self, picture: Float[Tensor, "3 height width"], block: str) -> tuple[tuple[float, ...], ...]:
        """The cells of a block's grid where the judge sees objects; all cells where it sees none."""
        side = self.assets.grid(block)
        _, truths = judge_and_truth(self.assets.judge, picture[None], [side])
        return tuple(map(tuple, objects_in(truths[side])[0].float().tolist()))

    def seen(self, row: Row, before: Float[Tensor, "3 height width"], after: Float[Tensor, "3 height width"]) -> bool:
        """Whether the judge sees the value that a feature reads in the picture after an edit, and did not before."""
        if not self.assets.known or not row.meaning:
            return False
        return row.meaning in self.judged(after, row) and row.meaning not in self.judged(before, row)

    def judged(self, picture: Float[Tensor, "3 height width"], row: Row) -> list[str]:
        """The values that the judge sees in a picture, of the family of the value that a feature
        reads, as in `Row.meaning`."""
        judgements, _ = judge_and_truth(self.assets.judge, picture[None], [])
        there = values_in(judgements)[0].tolist()
        names = [(name, f"{value} ({name})") for name, value in attribute_values()]
        return [
            text for (name, text), is_there in zip(names, there, strict=True) if is_there and name == self.family(row)
        ]


def in_order_of_use(rows: Iterable[Row], written: Mapping[FeatureId, Written]) -> list[Row]:
    """Features as somebody who paints should try them, since the best reader may write nothing.

    First those that wrote the value they read, by what they gained; then those that were not tried, by how well they
    read; then, in the same order, those that wrote nothing.
    """

    def place(row: Row) -> tuple[int, float, float]:
        if row.id not in written:
            return 1, 0.0, -row.score
        found = written[row.id]
        return (0, -found.gain, -row.score) if found.rise > 0 else (2, 0.0, -row.score)

    return sorted(rows, key=place)


def finest_grid(maps: Mapping[str, Float[Tensor, "n_f height width"]]) -> int:
    """Cells along each side of the finest grid among some blocks' maps."""
    return max(each.shape[-1] for each in maps.values())


def contrast(
    before: Float[Tensor, "3 height width"],
    after: Float[Tensor, "3 height width"],
    mask: Iterable[Iterable[float]] | None = None,
) -> float:
    """Mean absolute change of a colour inside a mask, less that outside; of the whole picture without one."""
    change = (after - before).abs().mean(0)
    if mask is None:
        return change.mean().item()
    inside = F.interpolate(torch.tensor(mask)[None, None], change.shape)[0, 0] > 0
    return sum(sign * change[part].mean().item() for sign, part in ((1, inside), (-1, ~inside)) if part.any())


def _shrunk(pictures: Float[Tensor, "pictures 3 height width"]) -> Float[Tensor, "pictures 3 _ _"]:
    """At most _SHOWN pixels wide."""
    if pictures.shape[-1] <= _SHOWN:
        return pictures
    return F.interpolate(pictures, scale_factor=_SHOWN / pictures.shape[-1], mode="area")
