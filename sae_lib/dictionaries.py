"""What the features of SAEs are compared with: other dictionaries of the same updates, each with as many units active per cell.

Those that need no training: random directions, neurons, principal components. Those that are trained, by one recipe on as many vectors: other
seeds, SAEs half of which stays random (the sanity checks of arXiv:2602.14111), SAEs of dimension-permuted updates and of an untrained U-Net.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_lib.assets import MODELS, Assets
from sae_lib.denoising import stream_updates
from sae_lib.harvest import PermutedStream, TrainingStream
from sae_lib.meaning import both_signs, keep_top, other_scenes
from sae_lib.pipelines import load_pipeline
from sae_lib.reading import NOISE_SEED, Reading
from sae_lib.recipes import TrainingRun
from sae_lib.sae import TopKSAE
from sae_lib.store import cached
from sae_lib.training import train_saes
from sae_lib.transfer import PCA, untrained
from sae_lib.updates import to_vectors

UNTRAINED = ("random directions", "neurons", "principal components")
"""As sparse as the shipped SAE, whose rivals they are. Random directions are an SAE of its size before its first step; the others are scaled to equal
variance and enter with both signs."""
FROZEN = {"SAE, random decoder": "decoder", "SAE, random encoder": "encoder"}
PERMUTED, BLANK = "SAE, permuted updates", "SAE, untrained U-Net"
SANITY = (*FROZEN, PERMUTED, BLANK)
"""Rivals of "SAE, trained here", the first seed: same recipe, same number of vectors."""
DENSE, ELSEWHERE = "neurons, all cells", "another picture's truth"
NAMES = ("SAE", *UNTRAINED, "SAE, trained here", *SANITY, DENSE, ELSEWHERE)
"""All: "SAE" is the shipped one, DENSE the neurons that are active everywhere, ELSEWHERE the shipped features in other pictures of the half."""

_COMPONENTS, _UPDATES, _SEEDS = "components.safetensors", "updates.safetensors", "seeds"

Units = Callable[[Int[Tensor, " rows"]], Float[Tensor, "rows cells units"]]
"""A dictionary's activations in given rows of the reading."""


class Dictionaries:
    """The SAEs of three seeds, and where something knows the truth also the dictionaries of NAMES, of the assets' blocks.

    reading: whose pictures they are read in, None where nothing knows the truth. prompts, passes: what is trained on, by default the scale's. Everything is made when it is first
    asked for, and kept in the cache.
    """

    def __init__(
        self,
        assets: Assets,
        reading: Reading | None,
        prompts: int | None = None,
        passes: int | None = None,
        seed: int = 0,
    ):
        self.assets, self.reading, self.seed = assets, reading, seed
        self.recipe = TrainingRun(
            self.assets.scale,
            source=self.assets.source,
            prompt_source=self.assets.prompt_source,
            prompts=prompts or self.assets.counts.train_prompts,
            seed=seed,
            blocks=self.assets.blocks,
            kinds=("panel",),
            sae_seeds=(seed, seed + 1, seed + 2),
            passes=passes,
        )
        self.configs = self.recipe.configs(self.assets.pipe())
        self._first = [config for config in self.configs if config.seed == seed]

    @cached_property
    def folder(self) -> Path:
        """Of what was trained."""
        inputs = {"run": asdict(self.recipe), "configs": [asdict(config) for config in self.configs]}
        return cached("seeds_and_controls", inputs, self._train, resumable=True)

    def _train(self, folder: Path) -> None:
        pipe, first = self.assets.pipe(), self._first
        stream = self.recipe.stream(pipe)
        train_saes(stream, self.configs, folder / _SEEDS, pipe.device)
        if not self.assets.known:
            return
        for name, part in FROZEN.items():
            train_saes(stream, [replace(config, frozen=part) for config in first], folder / name, pipe.device)
        train_saes(PermutedStream(stream), first, folder / PERMUTED, pipe.device)
        fits = PCA.fit_blocks([stream.in_order()], {config.block: config.d_model for config in first})
        save_file({block: fit.components for block, fit in fits.items()}, folder / _COMPONENTS)
        told = stream.prompts, stream.blocks, stream.settings, stream.passes, None, self.seed
        train_saes(TrainingStream(self.blank, *told), first, folder / BLANK, pipe.device)

    @cached_property
    def seeds(self) -> list[dict[str, TopKSAE]]:
        """By block, the SAEs of each of the three seeds."""
        return [self._load(_SEEDS, [c for c in self.configs if c.seed == number]) for number in self.recipe.sae_seeds]

    @cached_property
    def saes(self) -> dict[str, dict[str, TopKSAE]]:
        """By name and block, the dictionaries that are SAEs, but for the shipped one."""
        shipped = {block: untrained(sae, self.seed) for block, sae in self.assets.saes().items()}
        trained = {name: self._load(name, self._first) for name in SANITY}
        return {"random directions": shipped, "SAE, trained here": self.seeds[0], **trained}

    def _load(self, name: str, configs) -> dict[str, TopKSAE]:
        return {c.block: TopKSAE.load(self.folder / name / c.folder_name, c.block) for c in configs}

    @cached_property
    def blank(self):
        """Turbo with a U-Net of random weights."""
        from sae_lib.pocket.models import build_pipeline

        pipe = load_pipeline("turbo", self.assets.scale)
        pipe.unet = build_pipeline("turbo", seed=self.seed).unet.eval()
        return pipe

    @cached_property
    def updates(self) -> dict[str, Float[Tensor, "pictures cells d_model"]]:
        """By block, the updates of the pictures of the reading, in 16 bit."""
        return self._captured("updates", lambda folder: self._capture(self.assets.pipe(), folder))

    @cached_property
    def blank_updates(self) -> dict[str, Float[Tensor, "pictures cells d_model"]]:
        """The same of the untrained U-Net, on the same captions and noise."""
        return self._captured("updates_untrained", lambda folder: self._capture(self.blank, folder))

    def _captured(self, name: str, make: Callable[[Path], None]) -> dict[str, Tensor]:
        return load_file(cached(name, {"reading": self.reading.make().name, "seed": self.seed}, make) / _UPDATES)

    def _capture(self, pipe, folder: Path) -> None:
        parts: dict[str, list[Tensor]] = {block: [] for block in self.assets.blocks}
        call = self.assets.call(MODELS[0], NOISE_SEED)[1]
        for rows, updates in stream_updates(pipe, self.reading.prompts, self.assets.blocks, call):
            for block, update in updates.items():
                parts[block].append(to_vectors(update[0]).unflatten(0, (len(rows), -1)).half())
        save_file({block: torch.cat(each) for block, each in parts.items()}, folder / _UPDATES)

    @cached_property
    def components(self) -> dict[str, Float[Tensor, "d_model d_model"]]:
        """By block, all principal components of the training updates, in rows."""
        return load_file(self.folder / _COMPONENTS)

    def units(self, name: str, block: str) -> Units:
        """The activations of one of NAMES. Raises ValueError for another name."""
        if name not in NAMES:
            raise ValueError(f"no dictionary {name!r}; there are {', '.join(NAMES)}")
        if name == "SAE":
            return lambda rows: self.reading.activations(block, rows)
        if name == ELSEWHERE:
            return lambda rows: self.reading.activations(block, rows[self._elsewhere(len(rows))])
        if name in self.saes:
            x = (self.blank_updates if name == BLANK else self.updates)[block]
            return lambda rows: self.saes[name][block].encode(x[rows].float())
        matched = self.updates[block][self.reading.halves[0]].float().flatten(0, 1)
        basis = self.components[block].T if name == "principal components" else torch.eye(matched.shape[1])
        mean, spread, k = matched.mean(0), (matched @ basis).std(0), self.assets.saes()[block].k

        def kept(rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows cells units"]:
            signed = both_signs((self.updates[block][rows].float() - mean) @ basis / spread)
            return signed if name == DENSE else keep_top(signed, k)

        return kept

    def _elsewhere(self, rows: int) -> Int[Tensor, " rows"]:
        return other_scenes(rows, torch.Generator().manual_seed(self.seed))
