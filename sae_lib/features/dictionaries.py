"""Other dictionaries of the same updates, with which the features of the SAEs are compared.

All have as many units active per cell. Three need no training: random directions, neurons and principal components. The
others are trained by the SAEs' recipe on as many vectors: other seeds, SAEs of which one half stays random (the sanity
checks of arXiv:2602.14111), SAEs of dimension-permuted updates and SAEs of an untrained U-Net.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_lib.activations.denoising import stream_updates
from sae_lib.activations.stream import PermutedStream, TrainingStream
from sae_lib.activations.updates import to_vectors
from sae_lib.assets import Assets
from sae_lib.cache.artefact import cached, cached_tensors, write_whole
from sae_lib.features.meaning import (
    both_signs,
    chance_scores,
    compare_reading,
    expected_scores,
    find_meaning,
    fires_in_both,
    keep_top,
    leave_out,
    linear_probe,
    match_dictionaries,
    other_scenes,
    p_values,
    reading_scores,
    sparse_probes,
)
from sae_lib.features.reading import NOISE_SEED, Reading, Renders
from sae_lib.models.rehearsal import with_random_unet
from sae_lib.saes.controls import PCA, untrained
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.config import SAEConfig
from sae_lib.training.loop import train_saes
from sae_lib.training.recipe import TrainingRun

UNTRAINED = ("random directions", "neurons", "principal components")
"""Dictionaries that are compared with the shipped SAE, and are as sparse as it is. The random directions are an SAE of
its size before its first step; neurons and components are scaled to equal variance and enter with both signs."""
FROZEN = {"SAE, random decoder": "decoder", "SAE, random encoder": "encoder"}
PERMUTED, BLANK = "SAE, permuted updates", "SAE, untrained U-Net"
SANITY = (*FROZEN, PERMUTED, BLANK)
"""Compared with "SAE, trained here", the first seed: they have its recipe and its number of vectors."""
DENSE, ELSEWHERE = "neurons, all cells", "another picture's truth"
NAMES = ("SAE", *UNTRAINED, "SAE, trained here", *SANITY, DENSE, ELSEWHERE)
"""All dictionaries. "SAE" is the shipped one. DENSE is as many neurons, drawn at random, which are active in all cells.
ELSEWHERE pairs the shipped features with the truth of other pictures of the same half."""

LINEAR = "linear probe"
"""The ceiling: what ridge regression reads from the whole update."""

_COMPONENTS, _SEEDS = "components.safetensors", "seeds"

Units = Callable[[Int[Tensor, " rows"]], Float[Tensor, "rows cells units"]]
"""A dictionary's activations in given rows of the reading."""


class Dictionaries:
    """The SAEs of three seeds for each of the assets' blocks and, if there is a judge, the
    dictionaries of NAMES.

    reading: the pictures in which they are read, None without a judge. prompts, passes: how much they are
    trained on, by default what the scale says. Everything is made when it is first asked for and kept in the cache.
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
        """The artefact with everything that was trained."""
        inputs = {"run": asdict(self.recipe), "configs": [asdict(config) for config in self.configs]}
        return cached("seeds_and_controls", inputs, self._train, resumable=True)

    def _train(self, folder: Path) -> None:
        pipe, first = self.assets.pipe(), self._first
        stream, device = self.recipe.stream(pipe), pipe._execution_device
        train_saes(stream, self.configs, folder / _SEEDS, device)
        if not self.assets.known:
            return
        for name, part in FROZEN.items():
            train_saes(stream, [replace(config, frozen=part) for config in first], folder / name, device)
        train_saes(PermutedStream(stream), first, folder / PERMUTED, device)
        fits = PCA.fit_blocks([stream.in_order()], {config.block: config.d_model for config in first})
        components = {block: fit.components for block, fit in fits.items()}
        write_whole(folder / _COMPONENTS, partial(save_file, components))
        arguments = stream.prompts, stream.blocks, stream.settings, stream.passes, None, self.seed
        train_saes(TrainingStream(self.blank, *arguments), first, folder / BLANK, device)

    @cached_property
    def seeds(self) -> list[dict[str, TopKSAE]]:
        """By block, the SAEs of each of the three seeds."""
        return [self._load(_SEEDS, [c for c in self.configs if c.seed == number]) for number in self.recipe.sae_seeds]

    @cached_property
    def saes(self) -> dict[str, dict[str, TopKSAE]]:
        """By name and block, the dictionaries that are SAEs, without the shipped one."""
        shipped = {block: untrained(sae, self.seed) for block, sae in self.assets.saes().items()}
        trained = {name: self._load(name, self._first) for name in SANITY}
        return {"random directions": shipped, "SAE, trained here": self.seeds[0], **trained}

    def _load(self, name: str, configs: Sequence[SAEConfig]) -> dict[str, TopKSAE]:
        return {c.block: TopKSAE.load(self.folder / name / c.folder_name, c.block) for c in configs}

    @cached_property
    def blank(self) -> DiffusionPipeline:
        """Turbo with a U-Net of random weights."""
        return with_random_unet(self.assets.pipe(), self.seed)

    @cached_property
    def updates(self) -> dict[str, Float[Tensor, "pictures cells d_model"]]:
        """By block, the updates of the reading's pictures, as 16-bit floats."""
        return self._captured("updates", lambda: self._capture(self.assets.pipe()))

    @cached_property
    def blank_updates(self) -> dict[str, Float[Tensor, "pictures cells d_model"]]:
        """By block, the updates of the untrained U-Net for the same captions and noise."""
        return self._captured("updates_untrained", lambda: self._capture(self.blank))

    def _captured(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return cached_tensors(name, {"reading": self.reading.make().name, "seed": self.seed}, make)[1]

    def _capture(self, pipe: DiffusionPipeline) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {block: [] for block in self.assets.blocks}
        call = self.assets.call(self.assets.one_step, NOISE_SEED)[1]
        for rows, updates in stream_updates(pipe, self.reading.prompts, self.assets.blocks, call):
            for block, update in updates.items():
                parts[block].append(to_vectors(update[0]).unflatten(0, (len(rows), -1)).half())
        return {block: torch.cat(batches) for block, batches in parts.items()}

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
        mean, spread, sae = matched.mean(0), (matched @ basis).std(0), self.assets.saes()[block]
        some = torch.randperm(2 * matched.shape[1], generator=torch.Generator().manual_seed(self.seed))[: sae.n_f]

        def kept(rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows cells units"]:
            signed = both_signs((self.updates[block][rows].float() - mean) @ basis / spread)
            return signed[..., some] if name == DENSE else keep_top(signed, sae.k)

        return kept

    def _elsewhere(self, rows: int) -> Int[Tensor, " rows"]:
        return other_scenes(rows, torch.Generator().manual_seed(self.seed))

    def meanings(self, name: str, permutations: int = 500) -> tuple[Path, dict[str, dict[str, Tensor]]]:
        """By block, what a dictionary's live units mean.

        `live` holds their numbers, `value`, `score` and `margin` what `find_meaning` says of them, and `p` how often
        chance scores as high (`chance_scores`).
        """
        halves = self.reading.halves

        def make() -> dict[str, Tensor]:
            tensors = {}
            for block in self.assets.blocks:
                truths = [self.reading.truth(block).take(half) for half in halves]
                first, second = (self.units(name, block)(half) for half in halves)
                live = fires_in_both(first, second)
                first, second = first[..., live], second[..., live]
                meaning = find_meaning(reading_scores(first, truths[0]), reading_scores(second, truths[1]))
                by_chance = chance_scores(second, truths[1], meaning.value, permutations, self.seed)
                parts = meaning._asdict() | {"live": live.nonzero().flatten(), "p": p_values(meaning.score, by_chance)}
                tensors |= {f"{block}/{part}": tensor for part, tensor in parts.items()}
            return tensors

        folder, tensors = cached_tensors(
            "meanings", self._identity | {"name": name, "permutations": permutations}, make
        )
        return folder, _by_first(tensors)

    def scores_on_renders(
        self, renders: Renders, timestep: int, permutations: int = 500
    ) -> tuple[Path, dict[str, dict[str, Float[Tensor, " live"]]]]:
        """By "exact" or "judge" and block, how well the live shipped features read their
        `meanings` on noised renders."""
        folder, meanings = self.meanings("SAE", permutations)

        def make() -> dict[str, Tensor]:
            scores = {}
            for block, x in renders.updates(timestep).items():
                codes = self.assets.saes()[block].encode(x)[..., meanings[block]["live"]]
                for whose, truth in zip(("exact", "judge"), renders.truths[self.assets.grid(block)], strict=True):
                    points = reading_scores(codes, truth).gather(1, meanings[block]["value"][:, None])
                    scores[f"{whose}/{block}"] = points[:, 0]
            return scores

        inputs = {"meanings": folder.name, "rendered": len(renders), "timestep": timestep, "seed": renders.seed}
        folder, scores = cached_tensors("exact_scores", inputs, make)
        return folder, _by_first(scores)

    def compare(self) -> tuple[Path, dict[str, int], dict[str, dict[str, Float[Tensor, "values replicates"]]]]:
        """`compare_reading` of all NAMES: per block the number of candidates, and by block and name the scores."""

        def make() -> dict[str, Tensor]:
            tensors = {}
            for block in self.assets.blocks:
                named = {name: self.units(name, block) for name in NAMES}
                count, by_name = compare_reading(named, self.reading.truth(block), self.reading.halves)
                tensors |= {f"{block}/{name}": scores for name, scores in by_name.items()}
                tensors[f"{block}/count"] = torch.tensor(count)
            return tensors

        folder, tensors = cached_tensors("reading_compared", self._identity, make)
        compared = _by_first(tensors)
        return folder, {block: by_name.pop("count").item() for block, by_name in compared.items()}, compared

    def probe(
        self, names: Sequence[str], sizes: Sequence[int]
    ) -> dict[str, dict[str, Float[Tensor, "values replicates"]]]:
        """By block and probe, how well each value is read.

        `LINEAR` is a `linear_probe` on the raw update; "NAME, SIZE" is one of the `sparse_probes` on a dictionary's
        units, which may use SIZE of them.
        """

        def make() -> dict[str, Tensor]:
            tensors, (match, score) = {}, self.reading.halves
            for block in self.assets.blocks:
                known, asked = (self.reading.truth(block).take(half) for half in (match, score))
                x, weights = self.updates[block].float(), leave_out(len(score))
                maps = {LINEAR: x[score] @ linear_probe(x[match], known)}
                for name in names:
                    units = self.units(name, block)
                    probes = sparse_probes(units(match), known, sizes)
                    maps |= {f"{name}, {size}": units(score) @ probe for size, probe in zip(sizes, probes, strict=True)}
                eye = torch.eye(known.present.shape[-1])
                tensors |= {f"{block}/{n}": expected_scores(read, eye, asked, weights) for n, read in maps.items()}
            return tensors

        inputs = self._identity | {"names": list(names), "sizes": list(sizes)}
        return _by_first(cached_tensors("reading_probes", inputs, make)[1])

    def stability(self) -> tuple[Path, dict[str, dict[str, dict[str, Tensor]]]]:
        """How far the features of one seed are found again in two others, by "trained" or "untrained" and by block.

        `all`: per feature, its mean cosine with its partners in the two other seeds. Where the truth is
        known, also of the live features: `stable` (this cosine), `score` (see `find_meaning`), `rate` (share
        of cells where they fire).
        """

        def make() -> dict[str, Tensor]:
            tensors = {}
            for block in self.assets.blocks:
                trained = [saes[block] for saes in self.seeds]
                blank = [untrained(sae, self.seed + i) for i, sae in enumerate(trained)]
                for name, three in (("trained", trained), ("untrained", blank)):
                    measured = self._stability_of(block, three)
                    tensors |= {f"{name}/{block}/{part}": tensor for part, tensor in measured.items()}
            return tensors

        known = self._identity if self.assets.known else {"trained": self.folder.name, "seed": self.seed}
        folder, tensors = cached_tensors("stability", known, make)
        return folder, {name: _by_first(blocks) for name, blocks in _by_first(tensors).items()}

    def _stability_of(self, block: str, three: Sequence[TopKSAE]) -> dict[str, Tensor]:
        decoders = [sae.decoder.weight for sae in three]
        stable = torch.stack([match_dictionaries(decoders[0], other)[1] for other in decoders[1:]]).mean(0)
        if not self.assets.known:
            return {"all": stable}
        halves, truth = self.reading.halves, self.reading.truth(block)
        codes = [three[0].encode(self.updates[block][half].float()) for half in halves]
        live = fires_in_both(*codes)
        tables = [reading_scores(code[..., live], truth.take(half)) for code, half in zip(codes, halves, strict=True)]
        rate = (torch.cat(codes)[..., live] > 0).float().mean((0, 1))
        return {"all": stable, "stable": stable[live], "score": find_meaning(*tables).score, "rate": rate}

    @property
    def _identity(self) -> dict:
        return {"reading": self.reading.make().name, "trained": self.folder.name, "seed": self.seed}


def _by_first(table: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Names of the form "first/rest" as nested dicts."""
    nested: dict[str, dict[str, Tensor]] = {}
    for name, tensor in table.items():
        first, _, rest = name.partition("/")
        nested.setdefault(first, {})[rest] = tensor
    return nested
