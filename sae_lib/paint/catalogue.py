"""All features of some assets' SAEs, for browsing: their meanings, firing rates and pictures,
and the search by text."""

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
from jaxtyping import Bool, Float, Int
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
    cells_to_write,
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
from sae_lib.pocket.captions import unlearnt_words, vocabulary

TOP, BETAS = 4, (-10.0, -5.0, 5.0, 10.0)
"""The pictures on a card: so many in which the feature is most active, and the first of them
modulated by these betas."""

DEFAULT_STRENGTH = 10.0
"""The strength, in multiples of the mean activation, where none was chosen for a block; the authors paint with it."""

CLEAR = 0.35
"""The smallest reading score of a feature with a clear meaning. Of random directions in the place of features, as many
and as sparse, about one in twenty reads some value that well (20 of 352; `Reading(control=1)` at pocket scale)."""

NO_CLEAR_MEANING, NEVER_FIRED = "no clear meaning", "never fired"

NEARLY_BEST = 0.5
"""CLIP's hits below this share of the best hit's score are weak: with cosines that differ little, half as many of their
top pictures fit the text (`search_features`)."""

_SHOWN, _KEPT_PANELS, _FITTING = 128, 400, 24


class Row(NamedTuple):
    """What a card says about a feature."""

    id: FeatureId
    firing_rate: float
    """Share of the positions at which it is active."""
    meaning: str
    """The attribute value that its map predicts best, such as "red (colour)"; empty where nothing knows the truth."""
    reads: float
    """How well it predicts it in pictures that had no part in the choice: 0 is chance, 1 is
    perfect; see `meaning.reading_scores`."""
    draws: float | None = None
    """How much more often the judge sees this value when the feature is painted, minus the same for random features of
    the block (`writing.Written.rise`): 0 is no more than they do, 1 always; None where it was not tried."""

    @property
    def clear(self) -> bool:
        """Whether it reads its value well enough to be called after it (CLEAR)."""
        return self.reads >= CLEAR

    @property
    def label(self) -> str:
        """What to call the feature: its meaning if that is clear; empty where nothing knows the truth."""
        if not self.firing_rate:
            return NEVER_FIRED
        return self.meaning if self.clear or not self.meaning else NO_CLEAR_MEANING


class Panel(NamedTuple):
    """The pictures of a card, values in [0, 1]."""

    rows: list[int]
    """The numbers of the captions in whose pictures the feature is most active."""
    icons: Float[Tensor, "gammas 3 height width"]
    """Drawn with an empty prompt; the block gives out its input and gamma * k times the feature's mean activation."""
    top: Float[Tensor, "top 3 height width"]
    """These captions' pictures under the feature's activation maps."""
    strip: Float[Tensor, "betas 3 height width"]
    """The first of these pictures, modulated."""

    @property
    def icon(self) -> Float[Tensor, "3 height width"]:
        """The icon of the first gamma."""
        return self.icons[0]


class Firing(NamedTuple):
    """A feature that is active in a picture, or at one of its positions."""

    id: FeatureId
    strength: float
    """Its activation at the position, or where it is strongest, in multiples of its mean non-zero activation."""
    share: float
    """The share of the picture's positions at which it is active."""


class Hits(NamedTuple):
    """What a search found."""

    features: list[FeatureId]
    """The best first."""
    weak: list[FeatureId]
    """Features that may fit: those without a clear meaning (`Row.clear`), and those that CLIP alone finds."""
    unlearnt: list[str]
    """The words of the query that the pocket model never learnt; empty for a model whose words nobody knows."""


class Catalogue:
    """The features of a painter's SAEs, by the shared reading of held-out pictures (`Reading`).

    What all features need is computed once and kept in the cache; the pictures of a card are drawn when they are asked
    for. Nothing is loaded before it is needed, so an error about a missing model appears where the model is needed.
    """

    def __init__(self, painter: Painter):
        self.painter, self.assets = painter, painter.assets
        self._panels: OrderedDict[FeatureId, Panel] = OrderedDict()
        self._folder: Path | None = None

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
        """Reads the pictures, unless the cache has them; returns the artefact's folder."""
        if self._folder is None:  # else nobody waits for a model that is drawing
            with self.assets.lock:
                self._folder = self.reading.make(on_picture)
        return self._folder

    def get_ready(self) -> None:
        """Makes what the first search needs, which would keep it waiting."""
        self._like("", 1)

    @cached_property
    def pictures(self) -> Float[Tensor, "pictures 3 height width"]:
        """The held-out pictures, at most 128 pixels wide."""
        return _shrunk(self.reading.pictures)

    @cached_property
    def rows(self) -> list[Row]:
        """All features, block by block."""
        known, written, rows = self.assets.known, self.written, []
        names = [f"{value} ({name})" for name, value in attribute_values()] if known else []
        for block in self.assets.blocks:
            rates = self.reading.shares(block).mean(0).tolist()
            if known:
                value, score, _ = (numbers.tolist() for numbers in self.reading.meaning(block))
            for number, rate in enumerate(rates):
                feature = FeatureId(block, number)
                says = (names[value[number]], score[number]) if known and rate else ("", 0.0)
                rows.append(Row(feature, rate, *says, written[feature].rise if feature in written else None))
        return rows

    @cached_property
    def _row_of(self) -> dict[FeatureId, Row]:
        return {row.id: row for row in self.rows}

    def row(self, feature: FeatureId) -> Row:
        """What a card says about a feature. Raises ValueError for one that is not there."""
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
    def _units(self) -> dict[str, Float[Tensor, " n_f"]]:
        """By block, the features' units of strength; asking the assets waits for a model that is drawing."""
        return {block: statistics.mean for block, statistics in self.assets.statistics().items()}

    @cached_property
    def _top(self) -> dict[str, tuple[Float[Tensor, "top n_f"], Int[Tensor, "top n_f"]]]:
        """By block, each feature's highest mean activations over a picture's positions, and the
        numbers of the pictures."""
        means = {block: self.reading.means(block) for block in self.assets.blocks}
        return {block: mean.topk(min(15, len(mean)), dim=0) for block, mean in means.items()}

    def top_pictures(
        self, feature: FeatureId, count: int = TOP
    ) -> tuple[list[int], Float[Tensor, "pictures height width"]]:
        """The numbers of the captions in whose pictures a feature is most active, at most 15, and its maps there.

        Pictures in which it is not active are left out.
        """
        self.row(feature)
        means, rows = (top[:count, feature.feature] for top in self._top[feature.block])
        rows = rows[means > 0].tolist()
        return rows, self.reading.maps(*feature, rows)

    def panel(self, feature: FeatureId) -> Panel:
        """The pictures of a feature's card; the last ones are kept. Raises ValueError for a
        feature that never fired."""
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
        """The pictures of some features' cards, in their order; those of a block are drawn together.

        betas: of the modulation. gammas: of the icons. top: how many top pictures. Raises ValueError for a
        feature that never fired.
        """
        shown = {feature: self.top_pictures(feature, top) for feature in features}
        for feature, (rows, _) in shown.items():
            if not rows:
                raise ValueError(f"{feature} is active in none of the {len(self.prompts)} pictures.")
        full = [self.painter.amount(feature, float(self.assets.saes()[feature.block].k)) for feature in shown]
        of_icons, of_strips = ([feature for feature in shown for _ in amounts] for amounts in (gammas, betas))
        alone = [gamma * amount for amount in full for gamma in gammas]
        empty = [""] * len(alone), [0] * len(alone)
        icons = draw_changed(self.assets, replace_with_feature, of_icons, alone, *empty, turn=self._turn)
        first = [rows[0] for rows, _ in shown.values() for _ in betas]
        asked = [self.prompts[row] for row in first], self.reading.noise(first)
        strips = draw_changed(self.assets, modulate, of_strips, [*betas] * len(shown), *asked, turn=self._turn)
        parts = (_shrunk(drawn).unflatten(0, (len(shown), -1)) for drawn in (icons, strips))
        pictures = dict(zip(shown, zip(*parts, strict=True), strict=True))
        return [Panel(shown[f][0], pictures[f][0], self._laid_over(*shown[f]), pictures[f][1]) for f in features]

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The models, after all strokes that a painter wants to draw."""
        self.painter.give_way()
        with self.assets.lock:
            yield

    def _laid_over(
        self, rows: Sequence[int], maps: Float[Tensor, "pictures rows columns"]
    ) -> Float[Tensor, "pictures 3 height width"]:
        return torch.stack(
            [lay_over(self.pictures[row], activation) for row, activation in zip(rows, maps, strict=True)]
        )

    def unlearnt(self, text: str) -> list[str]:
        """The words of a query that the pocket model never learnt and that begin no word of a meaning or a block.

        Empty for a model whose words nobody knows, at sdxl scale.
        """
        if not self.assets.known:
            return []
        families = {family for family, _ in attribute_values()}
        known = [*vocabulary(), *families, *(f"{block}/" for block in self.assets.blocks)]
        asked = [word for word in text.split() if not any(name.startswith(word.lower()) for name in known)]
        return unlearnt_words(" ".join(asked))

    def search(self, text: str, limit: int = 40) -> Hits:
        """Features that fit a text, at most `limit`.

        A number ("down.2.1/17", "17") finds the features of that number. An empty text finds all features. Other texts
        find features by block and by the words of their meaning (`in_order_of_use`). Where no meaning has all of the
        words, those fit of whose value all words are asked for. After them come weak hits: features without a clear
        meaning, and those whose top pictures CLIP finds to fit. Words that the model never learnt find nothing.
        """
        if numbered := re.fullmatch(r"(?:([\w.]+)/)?(\d+)", text.strip()):
            block, number = numbered[1], int(numbered[2])
            same = [row.id for row in self.rows if row.id.feature == number and block in (None, row.id.block)]
            return Hits(same, [], [])
        unlearnt, ranked = self.unlearnt(text), in_order_of_use(self.rows, self.written)
        learnt = [word for word in text.lower().replace(",", " ").split() if not self.unlearnt(word)]
        if not learnt:
            return Hits([] if unlearnt else [row.id for row in ranked[:limit]], [], unlearnt)
        words = [word for word in learnt if any(_has(row, word) for row in ranked)]
        in_names = bool(words) and all(any(str(row.id).startswith(word) for row in ranked) for word in words)
        named = [row for row in ranked if words and all(_has(row, word) for word in words)]
        named = named or [row for row in ranked if row.meaning and set(_value(row).split()) <= set(words)]
        hits = dict.fromkeys(row.id for row in named if in_names or row.clear)
        weak = dict.fromkeys(row.id for row in named if row.id not in hits)
        if not in_names and len(hits) < limit:
            close, far = self._like(" ".join(learnt), min(limit, _FITTING))
            hits |= dict.fromkeys(close)
            weak = {feature: None for feature in [*weak, *far] if feature not in hits}
        return Hits([*hits][:limit], [*weak][: max(0, limit - len(hits))], unlearnt)

    def _like(self, text: str, limit: int) -> tuple[list[FeatureId], list[FeatureId]]:
        """Features whose top pictures fit a text, and those that fit it weakly: next to a judge's meanings, all."""
        (clip, embedded), fits = self._clip, []
        wanted = clip.embed_texts([text])[0]
        for block, (means, rows) in self._top.items():
            scores = torch.where(means[0] > 0, search_features(wanted, embedded, rows.T), 0)
            fits += [(score, FeatureId(block, number)) for number, score in enumerate(scores.tolist()) if score > 0]
        fits = sorted(fits, key=lambda fit: -fit[0])[:limit]
        strong = 0 if self.assets.known else sum(score >= NEARLY_BEST * fits[0][0] for score, _ in fits)
        features = [feature for _, feature in fits]
        return features[:strong], features[strong:]

    @cached_property
    def _clip(self) -> tuple[Clip, Float[Tensor, "pictures dimensions"]]:
        """CLIP and its embeddings of the pictures, made by the first search that needs them."""
        return self.assets.clip, self.assets.clip.embed_images(self.pictures)

    def firing(
        self,
        read: Mapping[str, Float[Tensor, "n_f height width"]],
        cell: tuple[int, int] | None = None,
        limit: int = 24,
    ) -> list[Firing]:
        """The features that are active in a picture, or in one of its cells, the most active first.

        They are ranked by their mean over the picture's positions, or by their activation in the cell, in multiples of
        their mean activation. read: from `Painter.read`. cell: (row, column) of the finest of the blocks' grids; on a
        coarser grid the cell that holds it. Raises ValueError for a cell that is not there.
        """
        active, finest = [], finest_grid(read)
        if cell and not all(0 <= at < finest for at in cell):
            raise ValueError(f"there is no cell {cell}: the finest grid is {finest} x {finest}")
        for block, maps in read.items():
            units, flat = self._units[block], maps.flatten(1)
            row, column = (at * maps.shape[-1] // finest for at in cell or (0, 0))
            peak = (maps[:, row, column] if cell else flat.amax(1)) / units
            rank, share = peak if cell else flat.mean(1) / units, (flat > 0).float().mean(1)
            live = ((units > 0) & (rank > 0)).nonzero().flatten().tolist()
            active += [(rank[i].item(), Firing(FeatureId(block, i), peak[i].item(), share[i].item())) for i in live]
        return [firing for _, firing in sorted(active, key=lambda ranked: -ranked[0])[:limit]]

    @cached_property
    def _tries(self) -> tuple[Strengths, dict[Target, Written]]:
        """What features wrote when strengths were chosen, and when they were tried again; empty without a judge."""
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

        It is the first of the block in `writing.tried_again`: among the best-read features that wrote most when the
        strengths were chosen, the one that gained most when they were tried again (`writing.Written.gain`). Without a
        judge it is the one that fires most often.
        """
        live = {block: rows for block in self.assets.blocks if (rows := self.live(block))}
        often = {block: max(rows, key=lambda row: row.firing_rate) for block, rows in live.items()}
        gains = reversed(self._tries[1])  # the first of a block stays
        return often | {target.id.block: self.row(target.id) for target in gains}

    @cached_property
    def written(self) -> dict[FeatureId, Written]:
        """What each tried feature wrote: when it was tried again, or else when strengths were chosen.

        Empty without a judge.
        """
        strengths, again = self._tries
        return strengths.by_feature | {target.id: written for target, written in again.items()}

    def strength(self, block: str) -> float:
        """How strongly a block's features are turned on by default.

        As strongly as its best feature gained most when it was tried again; DEFAULT_STRENGTH where it gained nothing.
        """
        best = self.best.get(block)
        written = self.written.get(best.id) if best else None
        return written.strength if written and written.gain > 0 else DEFAULT_STRENGTH

    def brush(self, row: Row, mask: tuple[tuple[float, ...], ...] | None = None) -> Layer:
        """A feature as a layer, at its block's strength."""
        return Layer(row.id, self.strength(row.id.block), mask)

    @cached_property
    def first_edit(self) -> Edit:
        """Where a painter starts: the first held-out caption, and the feature of `best` whose stroke shows
        most, in an empty mask.

        Features that are brushed over objects come before those that are turned on around them or everywhere; then
        features whose value the judge sees only after the edit; then those with the largest change of the picture
        inside the stroke, minus the change outside. Without a judge it is the feature that changes the picture most.
        """
        edit = Edit(self.prompts[0], model=self.assets.one_step)
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
        """The attribute (a family of values) whose value a feature reads."""
        return row.meaning.partition(" (")[2].removesuffix(")")

    def where(self, picture: Float[Tensor, "3 height width"], row: Row) -> tuple[tuple[float, ...], ...] | None:
        """The mask in which to paint with a feature (`writing.cells_to_write`); None for
        everywhere, and without a judge."""
        if not self.assets.known:
            return None
        cells = cells_to_write(self.family(row), self._objects(picture, row.id.block))
        return None if cells is None else _as_mask(cells)

    def objects(self, picture: Float[Tensor, "3 height width"], block: str) -> tuple[tuple[float, ...], ...]:
        """The cells of a block's grid where the judge sees objects; all cells where it sees none."""
        return _as_mask(self._objects(picture, block))

    def _objects(self, picture: Float[Tensor, "3 height width"], block: str) -> Bool[Tensor, "side side"]:
        side = self.assets.grid(block)
        return objects_in(judge_and_truth(self.assets.judge, picture[None], [side])[1][side])[0]

    def seen(self, row: Row, before: Float[Tensor, "3 height width"], after: Float[Tensor, "3 height width"]) -> bool:
        """Whether the judge sees the value that a feature reads after an edit and did not see it before."""
        if not self.assets.known or not row.meaning:
            return False
        return row.meaning in self.judged(after, row) and row.meaning not in self.judged(before, row)

    def judged(self, picture: Float[Tensor, "3 height width"], row: Row) -> list[str]:
        """The values that the judge sees in a picture, of the family that a feature reads, written as `Row.meaning`."""
        judgements, _ = judge_and_truth(self.assets.judge, picture[None], [])
        there = values_in(judgements)[0].tolist()
        names = [(name, f"{value} ({name})") for name, value in attribute_values()]
        return [
            text for (name, text), is_there in zip(names, there, strict=True) if is_there and name == self.family(row)
        ]


def in_order_of_use(rows: Iterable[Row], written: Mapping[FeatureId, Written]) -> list[Row]:
    """Features in the order in which a painter should try them, since the best reader may write nothing.

    First come those that wrote the value they read, by their gain; then those that were not tried, by how well they
    read; last those that wrote nothing, by how well they read.
    """

    def place(row: Row) -> tuple[int, float, float]:
        if row.id not in written:
            return 1, 0.0, -row.reads
        wrote = written[row.id]
        return (0, -wrote.gain, -row.reads) if wrote.rise > 0 else (2, 0.0, -row.reads)

    return sorted(rows, key=place)


def _has(row: Row, word: str) -> bool:
    """Whether a word begins a feature's name or a word of its meaning."""
    return any(part.startswith(word) for part in (str(row.id), *re.findall(r"\w+", row.meaning)))


def _value(row: Row) -> str:
    """The value that a feature reads, without its family: "open eye"."""
    return row.meaning.partition(" (")[0]


def _as_mask(cells: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, cells.float().tolist()))


def finest_grid(maps: Mapping[str, Float[Tensor, "n_f height width"]]) -> int:
    """The side of the finest grid among some blocks' maps, in cells."""
    return max(of_block.shape[-1] for of_block in maps.values())


def contrast(
    before: Float[Tensor, "3 height width"],
    after: Float[Tensor, "3 height width"],
    mask: Iterable[Iterable[float]] | None = None,
) -> float:
    """The mean absolute change of a colour inside a mask, minus that outside; without a mask, in the whole picture."""
    change = (after - before).abs().mean(0)
    if mask is None:
        return change.mean().item()
    inside = F.interpolate(torch.tensor(mask)[None, None], change.shape)[0, 0] > 0
    return sum(sign * change[part].mean().item() for sign, part in ((1, inside), (-1, ~inside)) if part.any())


def _shrunk(pictures: Float[Tensor, "pictures 3 height width"]) -> Float[Tensor, "pictures 3 _ _"]:
    """The pictures, at most _SHOWN pixels wide."""
    if pictures.shape[-1] <= _SHOWN:
        return pictures
    return F.interpolate(pictures, scale_factor=_SHOWN / pictures.shape[-1], mode="area")
