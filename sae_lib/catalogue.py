"""All features of the four SAEs, to look through: what they mean, how often they fire, what they look like, which fit a text."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_lib.blocks import PAPER_BLOCKS
from sae_lib.clip import Clip, load_clip
from sae_lib.features import FeatureId, search_features
from sae_lib.interventions import Intervention, intervene, modulate, replace_with_feature
from sae_lib.judges import attribute_values, judge_truth, load_judge
from sae_lib.meaning import Truth, find_meaning, reading_scores
from sae_lib.painting import Edit, Layer, OnStep, Painter
from sae_lib.pictures import draw_pictures, lay_over
from sae_lib.prompts import load_prompts
from sae_lib.store import cached
from sae_lib.updates import capture_updates, to_vectors

PICTURES = {"smoke": 32, "rehearsal": 8, "pocket": 384, "sdxl": 1_000}
"""Held-out captions that are drawn and read, by scale."""

TOP, BETAS = 4, (-10.0, -5.0, 5.0, 10.0)
"""Pictures on a card: those in which the feature is most active, and the first of them modulated."""

_NOISE_SEED, _SHOWN, _KEPT_PANELS = 1_000, 128, 400


class Row(NamedTuple):
    """What a card says of one feature."""

    id: FeatureId
    firing_rate: float
    """Share of the positions at which it is active."""
    meaning: str
    """The attribute value that its map predicts best, "red (colour)"; empty where nothing knows the truth."""
    score: float
    """How well it does so on pictures that had no part in the choice: 0 is chance, 1 perfect (`meaning.reading_scores`)."""


class Panel(NamedTuple):
    """The pictures of a card, values in [0, 1]."""

    icon: Float[Tensor, "3 height width"]
    """Empty prompt; the block gives out its input and k times the feature's mean activation."""
    top: Float[Tensor, "top 3 height width"]
    """The pictures in which it is most active, its maps laid over them."""
    strip: Float[Tensor, "betas 3 height width"]
    """The first of them modulated by BETAS."""


class Firing(NamedTuple):
    """A feature that is active in a picture, or at one of its positions."""

    id: FeatureId
    strength: float
    """In multiples of its mean non-zero activation: at the position, or where it is strongest."""
    share: float
    """Of the picture's positions at which it is active."""


class Catalogue:
    """The features of a painter's SAEs, read from held-out captions in one step of Turbo.

    What all features need is computed once and kept in the cache; the pictures of a card are drawn when they are asked
    for. Nothing happens before it is needed, so that a missing model is told of where it is missed. prompt_file and
    clip_source are those of the notebooks, for sdxl scale.
    """

    def __init__(self, painter: Painter, prompt_file: str = "", clip_source: str = ""):
        self.painter = painter
        self.known = painter.scale != "sdxl"
        """Whether a judge knows what is true of a picture."""
        self._prompt_source, self._clip_source = (
            ("pocket", "pocket") if painter.rehearsal else (prompt_file, clip_source)
        )
        self._folder: Path | None = None
        self._panels: OrderedDict[FeatureId, Panel] = OrderedDict()

    @cached_property
    def prompts(self) -> list[str]:
        """The held-out captions."""
        count = PICTURES["rehearsal" if self.painter.rehearsal else self.painter.scale]
        return load_prompts(self.painter.scale, count, "held-out", self._prompt_source)

    def prepare(self, on_picture: OnStep | None = None) -> Path:
        """Reads the pictures, if no run before did; the folder of the artefact."""
        painter = self.painter
        with painter.lock:
            if self._folder is None:
                inputs = {"scale": painter.scale, "sources": painter.sources, "sae_folder": painter.sae_folder}
                make = lambda folder: self._make(folder, on_picture)
                self._folder = cached("catalogue", inputs | {"prompts": self.prompts}, make)
            return self._folder

    @cached_property
    def _read(self) -> dict[str, Tensor]:
        return load_file(self.prepare() / "catalogue.safetensors")

    @property
    def pictures(self) -> Float[Tensor, "pictures 3 height width"]:
        """Of the captions, at most 128 pixels wide."""
        return self._read["pictures"].float() / 255

    def activations(self, block: str) -> tuple[Float[Tensor, "pictures cells k"], Int[Tensor, "pictures cells k"]]:
        """Kept activations of a block's features and their numbers, as `TopKSAE.encode_sparse` gives them."""
        return self._read[f"{block}.values"].float(), self._read[f"{block}.indices"].long()

    @torch.no_grad()
    def _make(self, folder: Path, on_picture: OnStep | None) -> None:
        painter, pipe = self.painter, self.painter.pipe("turbo")
        call = painter.call("Turbo, 1 step", _NOISE_SEED, painter.counts.harvest_batch)[1]
        judge, grid = (load_judge(painter.scale, pipe.device) if self.known else None), painter.grid("Turbo, 1 step")
        parts: dict[str, list[Tensor]] = {}
        for start in range(0, len(self.prompts), call.batch_size):
            if on_picture:
                on_picture(start, len(self.prompts))
            prompts = self.prompts[start : start + call.batch_size]
            rows = range(start, start + len(prompts))
            with capture_updates(pipe, PAPER_BLOCKS) as updates:
                drawn = draw_pictures(pipe, prompts, call, rows)
            found = {"pictures": _shrunk(drawn)}
            for block, sae in painter.saes.items():
                values, indices = sae.encode_sparse(to_vectors(updates[block][0].to(sae.pre_bias)))
                each = (values.cpu().half(), indices.cpu().to(torch.int16))
                found[f"{block}.values"], found[f"{block}.indices"] = (x.unflatten(0, (len(rows), -1)) for x in each)
            if judge is not None:
                found["present"], found["valid"] = judge_truth(judge, drawn, grid)
            for name, part in found.items():
                parts.setdefault(name, []).append(part)
        read = {name: torch.cat(each) for name, each in parts.items()}
        if judge is not None:
            read |= self._meanings(read)
        save_file({name: each.contiguous() for name, each in read.items()}, folder / "catalogue.safetensors")

    def _meanings(self, read: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each feature's value and score: chosen on the even pictures, scored on the odd ones."""
        truth = Truth(read["present"], read["valid"])
        halves = [torch.arange(half, len(truth.present), 2) for half in (0, 1)]
        found = {}
        for block, sae in self.painter.saes.items():
            values, indices = read[f"{block}.values"].float(), read[f"{block}.indices"].long()
            on_halves = [reading_scores(sae.to_dense(values[half], indices[half]), truth.take(half)) for half in halves]
            found[f"{block}.meaning"], found[f"{block}.score"], _ = find_meaning(*on_halves)
        return found

    @cached_property
    def rows(self) -> list[Row]:
        """All features, block by block."""
        found, names = [], [f"{value} ({name})" for name, value in attribute_values()] if self.known else []
        for block, sae in self.painter.saes.items():
            values, indices = self.activations(block)
            fired = torch.zeros(sae.n_f).index_add_(0, indices.flatten(), (values > 0).float().flatten())
            rates = (fired / values[..., 0].numel()).tolist()
            if names:
                meaning, score = self._read[f"{block}.meaning"].tolist(), self._read[f"{block}.score"].tolist()
            for number, rate in enumerate(rates):
                told = (names[meaning[number]], score[number]) if names and rate else ("", 0.0)
                found.append(Row(FeatureId(block, number), rate, *told))
        return found

    @cached_property
    def _row_of(self) -> dict[FeatureId, Row]:
        return {row.id: row for row in self.rows}

    def row(self, feature: FeatureId) -> Row:
        """What a card says of it. Raises ValueError for a feature that is not there."""
        if feature not in self._row_of:
            raise ValueError(f"there is no feature {feature}: blocks are {', '.join(PAPER_BLOCKS)}")
        return self._row_of[feature]

    @cached_property
    def _top(self) -> dict[str, tuple[Float[Tensor, "top n_f"], Int[Tensor, "top n_f"]]]:
        """By block, each feature's highest mean activations over the positions of a picture, and in which pictures."""
        found = {}
        for block, sae in self.painter.saes.items():
            values, indices = (each.flatten(1) for each in self.activations(block))
            means = values.new_zeros(len(values), sae.n_f).scatter_add_(1, indices, values)
            found[block] = means.topk(min(15, len(means)), dim=0)
        return found

    def top_pictures(self, feature: FeatureId) -> tuple[list[int], Float[Tensor, "pictures height width"]]:
        """The captions' numbers in whose pictures it is most active, and its maps there; those where it is not are left
        out."""
        self.row(feature)
        means, rows = (each[:TOP, feature.feature] for each in self._top[feature.block])
        rows = rows[means > 0]
        values, indices = (each[rows] for each in self.activations(feature.block))
        maps = torch.where(indices == feature.feature, values, 0).sum(-1)
        return rows.tolist(), maps.unflatten(1, (-1, self.painter.grid("Turbo, 1 step")))

    def panel(self, feature: FeatureId) -> Panel:
        """The pictures of its card; the last ones are kept. Raises ValueError for a feature that never fired."""
        if feature not in self._panels:
            self._panels[feature] = self._draw_panel(feature)
            while len(self._panels) > _KEPT_PANELS:
                self._panels.popitem(last=False)
        return self._panels[feature]

    def _draw_panel(self, feature: FeatureId) -> Panel:
        rows, maps = self.top_pictures(feature)
        if not rows:
            raise ValueError(f"{feature} is active in none of the {len(self.prompts)} pictures.")
        painter, (block, number) = self.painter, feature
        sae, amount = painter.saes[block], painter.amount(feature, float(painter.saes[block].k))
        icon = self._draw([""], replace_with_feature(sae, number, amount), block, [0])
        strip = self._draw(
            [self.prompts[rows[0]]] * len(BETAS),
            modulate(sae, number, torch.tensor(BETAS)),
            block,
            rows[:1] * len(BETAS),
        )
        top = [lay_over(self.pictures[row], each) for row, each in zip(rows, maps, strict=True)]
        return Panel(_shrunk(icon)[0] / 255, torch.stack(top), _shrunk(strip) / 255)

    def _draw(self, prompts: list[str], fn: Intervention, block: str, indices: list[int]) -> Tensor:
        _, call = self.painter.call("Turbo, 1 step", _NOISE_SEED, len(prompts))
        self.painter.give_way()
        with self.painter.lock:
            pipe = self.painter.pipe("turbo")
            with intervene(pipe, {block: fn}):
                return draw_pictures(pipe, prompts, call, indices)

    def search(self, text: str, limit: int = 40) -> list[FeatureId]:
        """Features that fit a text, best first: by number ("down.2.1/17", "17"), by block, by words of the meaning, and by
        CLIP, which compares the text with their top pictures. Of an empty text all, the highest score first."""
        if numbered := re.fullmatch(r"(?:([\w.]+)/)?(\d+)", text.strip()):
            block, number = numbered[1], int(numbered[2])
            return [row.id for row in self.rows if row.id.feature == number and block in (None, row.id.block)]
        ranked = sorted(self.rows, key=lambda row: -row.score)
        words = text.lower().split()
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
        clip = load_clip(self.painter.scale, self._clip_source, self.painter.pipe("turbo").device)
        return clip, clip.embed_images(self.pictures)

    def firing(
        self,
        read: Mapping[str, Float[Tensor, "n_f height width"]],
        cell: tuple[int, int] | None = None,
        limit: int = 24,
    ) -> list[Firing]:
        """The features that are active in a picture (`Painter.read`), the highest mean over its positions first; with a cell
        (row, column) those active there, the strongest in multiples of their mean activation first.

        Raises ValueError for a cell that the grid has not.
        """
        found = []
        for block, maps in read.items():
            if cell and not all(0 <= at < side for at, side in zip(cell, maps.shape[-2:], strict=True)):
                raise ValueError(f"there is no cell {cell}: the grid is {maps.shape[-2]} x {maps.shape[-1]}")
            units, flat = self.painter.statistics[block].mean, maps.flatten(1)
            peak = (maps[:, cell[0], cell[1]] if cell else flat.amax(1)) / units
            rank, share = peak if cell else flat.mean(1), (flat > 0).float().mean(1)
            live = ((units > 0) & (rank > 0)).nonzero().flatten().tolist()
            found += [(rank[i].item(), Firing(FeatureId(block, i), peak[i].item(), share[i].item())) for i in live]
        return [each for _, each in sorted(found, key=lambda one: -one[0])[:limit]]

    @cached_property
    def first_edit(self) -> Edit:
        """Where a painter starts: the first held-out caption, and a feature in an empty mask: of the eight with the highest
        score (without meanings: that fire most often) the one that, everywhere, changes this picture most."""
        painter, side = self.painter, self.painter.grid("Turbo, 1 step")
        ranked = sorted(self.rows, key=lambda row: (row.score, row.firing_rate), reverse=True)
        usable = [row.id for row in ranked if painter.statistics[row.id.block].mean[row.id.feature] > 0]
        plain = Edit(self.prompts[0])
        before = painter.draw(plain).before

        def change(feature: FeatureId) -> float:
            return (painter.draw(replace(plain, layers=(Layer(feature),))).after - before).abs().mean().item()

        return replace(plain, layers=(Layer(max(usable[:8], key=change), mask=((0.0,) * side,) * side),))


def _shrunk(pictures: Float[Tensor, "pictures 3 height width"]) -> Tensor:
    """In 8 bits, at most _SHOWN pixels wide."""
    if pictures.shape[-1] > _SHOWN:
        pictures = F.interpolate(pictures, scale_factor=_SHOWN / pictures.shape[-1], mode="area")
    return (pictures * 255).round().to(torch.uint8)
