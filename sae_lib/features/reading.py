"""A reading of held-out pictures, kept in the cache: the pictures, which features fire where in them, and what
the judge sees in them."""

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_lib.activations.denoising import conditioning
from sae_lib.activations.drawing import MAX_SHOWN, draw_pictures
from sae_lib.activations.steps import refuse_silent
from sae_lib.activations.updates import capture_updates, to_vectors, update_hooks
from sae_lib.assets import Assets
from sae_lib.cache.artefact import cached, cached_tensors
from sae_lib.features.meaning import Meaning, best_of, expected_scores, find_meaning, leave_out, reading_scores
from sae_lib.judges.attributes import Truth, attribute_values, exact_truth, judge_and_truth, values_in
from sae_lib.models.blocks import find_block
from sae_lib.saes.controls import untrained

PICTURES = {"smoke": 16, "rehearsal": 8, "pocket": 512, "sdxl": 1_000}
"""By scale, how many held-out captions features are read in: the first ones."""

LATER = {"smoke": 16, "rehearsal": 4, "pocket": 256, "sdxl": 100}
"""By scale, how many captions after those features write in: they had no part in what was chosen by reading."""

NOISE_SEED = 1_000
"""Seed of the noise of the pictures that are read; no SAE was trained on this noise."""

Rows = Sequence[int] | slice | Tensor
"""The numbers of some pictures of a reading."""


class Reading:
    """One-step Turbo pictures of held-out captions, read with the panel SAEs of the assets' blocks.

    Everything is made when it is first asked for, once, and kept in the cache. Row i is prompt i of `prompts`.

    later: reads the captions after the first PICTURES. Row i then has the noise of row `first + i`, so that no two
    readings share noise.
    control: a seed; reads the same pictures with random directions in place of features, as many and as many of them
    active (`controls.untrained`). What they show too, any sparse code of that size shows.
    """

    def __init__(self, assets: Assets, later: bool = False, control: int | None = None):
        size = "rehearsal" if assets.rehearsal else assets.scale
        self.assets = assets
        self.control = control
        self.saes = assets.saes()
        if control is not None:
            self.saes = {block: untrained(sae, control + place) for place, (block, sae) in enumerate(self.saes.items())}
        self.first = PICTURES[size] if later else 0
        """Number of the first caption among the held-out ones, and of its noise."""
        self.prompts = assets.prompts(self.first + (LATER if later else PICTURES)[size])[self.first :]
        self._folder: Path | None = None
        self._unedited: dict[tuple[str, int], Tensor] = {}
        self._together: dict[tuple[str, int], tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.prompts)

    def make(self, on_picture: Callable[[int, int], None] | None = None) -> Path:
        """Reads the pictures, unless the cache has them; returns the artefact's folder.

        on_picture: called before each batch with the number of pictures that are done, and of all pictures.
        """
        if self._folder is None:
            inputs = self.assets.identity | {"prompts": self.prompts, "first": self.first}
            if self.control is not None:
                inputs["control"] = self.control
            self._folder = cached("reading", inputs, lambda folder: self._make(folder, on_picture))
        return self._folder

    def noise(self, rows: Iterable[int]) -> list[int]:
        """The numbers of the noise that the pictures of some rows are drawn with, for `draw_pictures`."""
        return [self.first + row for row in rows]

    def will_draw(self, model: str, rows: Sequence[int]) -> None:
        """Say that `unedited` may be asked for some rows: those that are new will be drawn together, in batches.

        A picture's last digits depend on how many are drawn with it. So before a maker that asks for rows, which does
        not run if the cache has what it makes, they are named here: then what comes later gets the same pictures
        whether it ran or not.
        """
        size = self.assets.call(model, NOISE_SEED)[1].batch_size
        new = [row for row in dict.fromkeys(rows) if (model, row) not in self._together]
        for batch in (tuple(new[start : start + size]) for start in range(0, len(new), size)):
            self._together |= {(model, row): batch for row in batch}

    def unedited(self, model: str, rows: Sequence[int]) -> Float[Tensor, "rows 3 height width"]:
        """The pictures of some rows as one of the assets' `models` draws them, with the row's noise; drawn once."""
        self.will_draw(model, rows)
        name, call = self.assets.call(model, NOISE_SEED)
        for batch in dict.fromkeys(self._together[model, row] for row in rows):
            if (model, batch[0]) not in self._unedited:
                prompts = [self.prompts[row] for row in batch]
                drawn = draw_pictures(self.assets.pipe(name), prompts, call, self.noise(batch))
                self._unedited |= {(model, row): picture for row, picture in zip(batch, drawn, strict=True)}
        return torch.stack([self._unedited[model, row] for row in rows])

    def anew(self) -> "Reading":
        """The same reading without the pictures drawn so far: for a maker whose result several notebooks share."""
        other = copy.copy(self)
        other._unedited, other._together = {}, {}
        return other

    @torch.no_grad()
    def _make(self, folder: Path, on_picture: Callable[[int, int], None] | None) -> None:
        pipe, blocks = self.assets.pipe(), self.assets.blocks
        _, call = self.assets.call(self.assets.one_step, NOISE_SEED)
        parts: dict[str, list[Tensor]] = {}
        for start in range(0, len(self), call.batch_size):
            if on_picture:
                on_picture(start, len(self))
            prompts = self.prompts[start : start + call.batch_size]
            with capture_updates(pipe, blocks) as updates:
                drawn = draw_pictures(pipe, prompts, call, self.noise(range(start, start + len(prompts))))
            batch = {"pictures": _shrunk(drawn)}
            for block, sae in self.saes.items():
                values, indices = sae.encode_sparse(to_vectors(updates[block][0].to(sae.pre_bias)))
                code = (values.cpu(), indices.cpu().to(torch.int16))
                batch[f"{block}.values"], batch[f"{block}.indices"] = (x.unflatten(0, (len(prompts), -1)) for x in code)
            if self.assets.known:
                judged, truths = judge_and_truth(
                    self.assets.judge, drawn, {self.assets.grid(block) for block in blocks}
                )
                batch["shows"] = values_in(judged)
                for side, truth in truths.items():
                    batch[f"present.{side}"], batch[f"valid.{side}"] = truth
            for name, part in batch.items():
                parts.setdefault(name, []).append(part)
        read = {name: torch.cat(batches).contiguous() for name, batches in parts.items()}
        save_file(read, folder / "reading.safetensors")

    @cached_property
    def _read(self) -> dict[str, Tensor]:
        return load_file(self.make() / "reading.safetensors")

    @property
    def pictures(self) -> Float[Tensor, "pictures 3 height width"]:
        """Values in [0, 1], at most 256 pixels wide."""
        return self._read["pictures"].float() / 255

    def codes(self, block: str) -> tuple[Float[Tensor, "pictures cells k"], Int[Tensor, "pictures cells k"]]:
        """The kept activations at each position and the numbers of their features (`TopKSAE.encode_sparse`)."""
        return self._read[f"{block}.values"], self._read[f"{block}.indices"].long()

    def activations(self, block: str, rows: Rows = slice(None)) -> Float[Tensor, "pictures cells n_f"]:
        """The activations of all features, zeros included, in some of the pictures."""
        values, indices = (code[rows] for code in self.codes(block))
        return values.new_zeros(*values.shape[:2], self.saes[block].n_f).scatter_(-1, indices, values)

    def maps(self, block: str, feature: int, rows: Rows = slice(None)) -> Float[Tensor, "pictures side side"]:
        """A feature's activation maps (paper: S^rho) in some of the pictures."""
        values, indices = (code[rows] for code in self.codes(block))
        side = round(values.shape[1] ** 0.5)
        return torch.where(indices == feature, values, 0).sum(-1).unflatten(1, (side, side))

    def means(self, block: str) -> Float[Tensor, "pictures n_f"]:
        """Each feature's mean activation over the positions of a picture (authors' order of top pictures)."""
        values, indices = (code.flatten(1) for code in self.codes(block))
        total = values.new_zeros(len(values), self.saes[block].n_f).scatter_add_(1, indices, values)
        return total / self.codes(block)[0].shape[1]

    def shares(self, block: str) -> Float[Tensor, "pictures n_f"]:
        """The share of a picture's positions at which each feature is active."""
        values, indices = (code.flatten(1) for code in self.codes(block))
        fired = values.new_zeros(len(values), self.saes[block].n_f).scatter_add_(1, indices, (values > 0).to(values))
        return fired / self.codes(block)[0].shape[1]

    @property
    def shows(self) -> Float[Tensor, "pictures values"]:
        """Which attribute values the judge sees in each picture: 0 or 1, in the order of `attribute_values`."""
        self._refuse_unknown()
        return self._read["shows"]

    def truth(self, block: str) -> Truth:
        """What the judge says of each cell of the block's grid."""
        self._refuse_unknown()
        side = self.assets.grid(block)
        return Truth(self._read[f"present.{side}"], self._read[f"valid.{side}"])

    def objects(self, block: str) -> Bool[Tensor, "pictures side side"]:
        """The cells of the block's grid in which the judge sees an object; all cells of a picture without one."""
        return objects_in(self.truth(block))

    @property
    def halves(self) -> tuple[Int[Tensor, " matched"], Int[Tensor, " scored"]]:
        """The pictures in which features are matched with values, and those in which the match is scored."""
        return torch.arange(0, len(self), 2), torch.arange(1, len(self), 2)

    @cached_property
    def scores(self) -> dict[str, tuple[Float[Tensor, "n_f values"], Float[Tensor, "n_f values"]]]:
        """By block, `reading_scores` of all features in each of the two halves; 0 for a feature that never fires."""
        inputs = {"reading": self.make().name}
        read = load_file(cached("reading_scores", inputs, self._score) / "scores.safetensors")
        return {block: (read[f"{block}.matched"], read[f"{block}.scored"]) for block in self.assets.blocks}

    def _score(self, folder: Path) -> None:
        scores = {}
        for block in self.assets.blocks:
            for name, half in zip(("matched", "scored"), self.halves, strict=True):
                scores[f"{block}.{name}"] = reading_scores(self.activations(block, half), self.truth(block).take(half))
        save_file(scores, folder / "scores.safetensors")

    @cached_property
    def best_scores(self) -> dict[str, Float[Tensor, "values replicates"]]:
        """By block, how well the best feature of the first half for each value reads this value in the second half.

        Scored with all pictures of the second half, and with groups of them left out (`scene_samples`).
        """

        def make() -> dict[str, Tensor]:
            scores, half = {}, self.halves[1]
            for block, sae in self.saes.items():
                shares, asked = best_of(self.scores[block][0], sae.n_f), self.truth(block).take(half)
                scores[block] = expected_scores(self.activations(block, half), shares, asked, leave_out(len(half)))
            return scores

        return cached_tensors("reading_best", {"reading": self.make().name}, make)[1]

    def meaning(self, block: str) -> Meaning:
        """The value that each feature reads, matched in the first half of the pictures and scored in the second."""
        return find_meaning(*self.scores[block])

    def live(self, block: str) -> Int[Tensor, " live"]:
        """The features that fire in both halves and have a unit of strength (random directions need none)."""
        fires = torch.stack([(self.means(block)[half] > 0).any(0) for half in self.halves]).all(0)
        if self.control is None:
            fires &= self.assets.statistics()[block].mean > 0
        return fires.nonzero().flatten()

    def _refuse_unknown(self) -> None:
        if not self.assets.known:
            raise ValueError("nothing knows what is true of SDXL's pictures: only the pocket world has a judge")


class Renders:
    """Rendered held-out scenes, whose truth is exact: a second opinion on what a `Reading` takes from the judge.

    They are seen through the autoencoder, as generated pictures are. seed: of the scenes, their captions and the noise.
    """

    def __init__(self, assets: Assets, count: int, seed: int = 0):
        from sae_lib.pocket.captions import sample_captions
        from sae_lib.pocket.world import sample_scenes

        self.assets, self.seed = assets, seed
        self.scenes = sample_scenes(count, seed + 2, "test")  # not those of `seed`, with which notebooks start
        self.captions = [caption.text for caption in sample_captions(count, seed + 2, "test")]

    def __len__(self) -> int:
        return len(self.scenes)

    @cached_property
    @torch.inference_mode()
    def latents(self) -> Float[Tensor, "scenes channels height width"]:
        """The scenes' latents by the autoencoder, not scaled."""
        from sae_lib.pocket.world import render

        vae = self.assets.pipe().vae
        return torch.cat([vae.encode(2 * part - 1).latent_dist.mean for part in render(self.scenes).split(50)])

    @cached_property
    def truths(self) -> dict[int, tuple[Truth, Truth]]:
        """By grid of the assets' blocks, the exact truth and what the judge says."""
        vae, grids = self.assets.pipe().vae, [self.assets.grid(block) for block in self.assets.blocks]
        with torch.inference_mode():
            seen = torch.cat([(vae.decode(part).sample / 2 + 0.5).clamp(0, 1) for part in self.latents.split(50)])
        judged = judge_and_truth(self.assets.judge, seen, set(grids))[1]
        return {grid: (exact_truth(self.scenes, grid), judged[grid]) for grid in dict.fromkeys(grids)}

    @torch.inference_mode()
    def updates(self, timestep: int) -> dict[str, Float[Tensor, "scenes cells d_model"]]:
        """By block, the updates of one U-Net pass over the scenes, noised to a timestep, with their captions."""
        pipe, parts = self.assets.pipe(), {block: [] for block in self.assets.blocks}
        alpha = pipe.scheduler.alphas_cumprod[timestep]
        noise = torch.randn(self.latents.shape, generator=torch.Generator().manual_seed(self.seed + timestep))
        x = alpha.sqrt() * self.latents * pipe.vae.config.scaling_factor + (1 - alpha).sqrt() * noise
        for rows in torch.arange(len(self)).split(20):
            with ExitStack() as hooks:
                for block, updates in parts.items():
                    hooks.enter_context(update_hooks(find_block(pipe, block), updates.append))
                pipe.unet(x[rows], timestep, **conditioning(pipe, [self.captions[row] for row in rows], guided=False))
        refuse_silent((block for block, updates in parts.items() if not updates), pipe)
        updates_of = {block: torch.cat(updates) for block, updates in parts.items()}
        return {block: to_vectors(update).unflatten(0, (len(self), -1)) for block, update in updates_of.items()}


def objects_in(truth: Truth) -> Bool[Tensor, "pictures side side"]:
    """The cells that show an object; all cells of a picture without one."""
    shapes = torch.tensor([name == "shape" for name, _ in attribute_values()])
    there = truth.present[..., shapes].any(-1)
    there |= ~there.any(1, keepdim=True)
    return there.unflatten(1, (round(there.shape[1] ** 0.5),) * 2)


def _shrunk(pictures: Float[Tensor, "pictures 3 height width"]) -> Tensor:
    """The pictures in 8 bits, at most MAX_SHOWN pixels wide."""
    if pictures.shape[-1] > MAX_SHOWN:
        pictures = F.interpolate(pictures, scale_factor=MAX_SHOWN / pictures.shape[-1], mode="area")
    return (pictures * 255).round().to(torch.uint8)
