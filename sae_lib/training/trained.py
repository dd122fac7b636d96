"""The SAEs of a recipe, trained once and kept: in which settings, and beside which controls."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.stream import PermutedStream, TrainingStream
from sae_lib.cache.artefact import cached, write_whole
from sae_lib.models.blocks import architecture_of
from sae_lib.saes.controls import PCA
from sae_lib.saes.sizes import KINDS, Kind, sae_size
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.config import SAEConfig
from sae_lib.training.loop import train_saes
from sae_lib.training.trainer import LOG_FILE

if TYPE_CHECKING:
    from sae_lib.assets import Assets
from sae_lib.training.recipe import TrainingRun, load_prompts_once

_PERMUTED, _PCA, _PCA_PARTS = "permuted", "pca.safetensors", ("mean", "components")
_PCA_PROMPTS = 1_000
"""Training prompts that a PCA beside published SAEs is fitted on."""


class Trained(NamedTuple):
    """SAEs trained on one stream, with the controls made from the same vectors."""

    folder: Path | None
    """The artefact: one folder per SAE, as `train_saes` writes them. None for published SAEs."""
    scale: str
    saes: dict[SAEConfig, TopKSAE]
    permuted: dict[str, TopKSAE]
    """By block: an SAE of the last kind trained on the dimension-permuted updates. Empty unless asked for."""
    pca: dict[str, PCA]
    """By block: as many principal components of the stream's first portion as that SAE's k. Empty unless asked for."""

    @property
    def name(self) -> str:
        """A name for the SAEs, for the inputs of artefacts that are made from them."""
        if self.folder is not None:
            return self.folder.name
        weights = (sae.encoder.weight.numpy(force=True).tobytes() for sae in self.saes.values())
        return "published-" + hashlib.sha256(b"".join(weights)).hexdigest()[:12]

    def log(self, config: SAEConfig) -> list[dict[str, float]]:
        """The rows of an SAE's training log; a published SAE has none."""
        if self.folder is None:
            return []
        return [json.loads(row) for row in (self.folder / config.folder_name / LOG_FILE).read_text().splitlines()]

    def configs(self, kind: Kind) -> dict[str, SAEConfig]:
        """The configurations of the SAEs of one kind, by block."""
        sizes = {c: sae_size(kind, c.d_model, self.scale, architecture_of(c.block)) for c in self.saes}
        return {c.block: c for c in self.saes if (c.k, c.n_f) == sizes[c]}

    def of_kind(self, kind: Kind) -> dict[str, TopKSAE]:
        """The SAEs of one kind, by block."""
        return {block: self.saes[config] for block, config in self.configs(kind).items()}


def train_in_setting(
    assets: "Assets",
    model: str,
    settings: CallSettings,
    prompts: int,
    kinds: Sequence[Kind] = KINDS,
    controls: bool = False,
) -> Trained:
    """SAEs of the assets' blocks, trained on the updates of one setting, from the cache if they are there.

    model: "turbo", "base" or "flux". settings: of the pipeline calls; its seed is also the seed of the vectors' order
    and of the SAEs' first weights. prompts: the number of training prompts; every position and step of them is seen
    `passes` times (see `Scale`). controls: also train an SAE of the last kind on dimension-permuted updates, and fit a
    PCA with as many components as that SAE keeps.

    Raises what `load_prompts` and `train_saes` raise.
    """
    pipe = assets.pipe(model)
    run = TrainingRun(
        assets.scale,
        model,
        assets.sources[model],
        prompts=prompts,
        prompt_source=assets.prompt_source,
        blocks=assets.blocks,
        kinds=tuple(kinds),
        **{name: getattr(settings, name) for name in ("steps", "guidance_scale", "noise", "seed", "batch_size")},
    )
    stream, configs = run.stream(pipe), run.configs(pipe)
    last = {c for c in configs if (c.k, c.n_f) == sae_size(kinds[-1], c.d_model, assets.scale, run.architecture)}
    permuted = [config for config in configs if controls and config in last]

    inputs = {"run": asdict(run), "stream": stream.description, "controls": controls}
    inputs |= {"configs": [asdict(config) for config in configs]}
    folder = cached("saes", inputs, _maker(run, pipe, stream, permuted), resumable=True)
    device = {"device": pipe._execution_device}
    saes = {config: TopKSAE.load(folder / config.folder_name, config.block, **device) for config in configs}
    controlled = {c.block: TopKSAE.load(folder / _PERMUTED / c.folder_name, c.block, **device) for c in permuted}
    return Trained(folder, assets.scale, saes, controlled, _load_pca(folder, controlled, pipe))


def _maker(
    run: TrainingRun, pipe: DiffusionPipeline, stream: TrainingStream, permuted: Sequence[SAEConfig]
) -> Callable[[Path], None]:
    """The artefact's maker. It does not know the assets, so that other shipped SAEs do not make it anew."""

    def make(folder: Path) -> None:
        run.train(folder, pipe, stream)
        if permuted:
            train_saes(PermutedStream(stream), permuted, folder / _PERMUTED, pipe._execution_device)
            _fit_pca(folder, stream, {config.block: config.k for config in permuted})

    return make


def train_side_by_side(
    run: TrainingRun,
    pipe: DiffusionPipeline,
    sizes: Sequence[tuple[int, float]],
    components: Mapping[str, int],
) -> Trained:
    """SAEs of pairs of k and expansion factor in each block of a recipe, trained on one stream, or from the cache.

    components: by block, of the PCA that is fitted on the same vectors.

    Raises what `train_saes` raises.
    """
    stream = run.stream(pipe)
    of_size = [replace(run, ks=(k,), expansion_factors=(factor,)) for k, factor in sizes]
    configs = [config for recipe in of_size for config in recipe.configs(pipe)]

    def make(folder: Path) -> None:
        if configs:
            train_saes(stream, configs, folder, pipe._execution_device)
        _fit_pca(folder, stream, components)

    inputs = {"run": asdict(run), "stream": stream.description, "components": components}
    inputs |= {"configs": [asdict(config) for config in configs]}
    folder = cached("grid", inputs, make, resumable=True)
    saes = {c: TopKSAE.load(folder / c.folder_name, c.block, device=pipe._execution_device) for c in configs}
    return Trained(folder, run.scale, saes, {}, _load_pca(folder, components, pipe))


def _fit_pca(folder: Path, stream: TrainingStream, components: Mapping[str, int]) -> None:
    fits = PCA.fit_blocks([stream.in_order()], components)
    tensors = {f"{block}.{part}": getattr(fit, part) for block, fit in fits.items() for part in _PCA_PARTS}
    write_whole(folder / _PCA, functools.partial(save_file, tensors))


def _load_pca(folder: Path, blocks: Iterable[str], pipe: DiffusionPipeline) -> dict[str, PCA]:
    tensors = load_file(folder / _PCA, str(pipe._execution_device)) if (blocks := list(blocks)) else {}
    return {block: PCA(*(tensors[f"{block}.{part}"] for part in _PCA_PARTS)) for block in blocks}


def trains_saes(assets: "Assets", saes: str = "trained") -> bool:
    """Whether `one_step_saes` trains with these arguments, or loads published SAEs."""
    return assets.scale != "sdxl" or saes == "trained" or assets.untrained


def one_step_saes(assets: "Assets", seed: int = 0, saes: str = "trained") -> Trained:
    """The SAEs of this companion: of one-step Turbo updates, two per block (`sae_size`), with their PCA.

    saes: "trained" (from the cache if they are there, with permuted controls) or, at sdxl scale, "published": the
    authors' SAEs from the Hub or from the assets' folder, and a PCA of few training prompts. Other scales have no
    published SAEs, and a rehearsal has only those of a folder: both train in any case.

    Raises ValueError for another word, and what `load_saes`, `load_prompts` and `train_saes` raise.
    """
    if saes not in ("published", "trained"):
        raise ValueError(f"saes is {saes!r}; choose 'published' or 'trained'")
    counts, turbo = assets.counts, assets.pipe()
    settings = CallSettings(steps=1, guidance_scale=0.0, seed=seed, batch_size=counts.harvest_batch)
    if trains_saes(assets, saes):
        return train_in_setting(assets, "turbo", settings, counts.train_prompts, controls=True)
    loaded = {}
    for kind in KINDS:
        for block, sae in assets.saes(kind).items():
            changes = {"d_model": sae.d_model, "auxk": min(256, sae.n_f // 2)}
            loaded[SAEConfig.paper(block, sae.k, sae.n_f, **changes)] = sae
    prompts = load_prompts_once(assets.scale, min(_PCA_PROMPTS, counts.train_prompts), "train", assets.prompt_source)
    stream = TrainingStream(turbo, prompts, assets.blocks, settings)
    pca = PCA.fit_blocks([stream.in_order()], {block: sae.k for block, sae in assets.saes(KINDS[-1]).items()})
    return Trained(None, assets.scale, loaded, {}, pca)
