"""Which SAEs each scale trains, and on what: shared by the notebooks and by the SAEs that are shipped."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file

from sae_lib.blocks import SAE_BLOCKS
from sae_lib.denoising import CallSettings
from sae_lib.harvest import PermutedStream, TrainingStream, positions_per_step
from sae_lib.prompts import load_prompts
from sae_lib.sae import TopKSAE
from sae_lib.scales import get_scale
from sae_lib.store import cached
from sae_lib.training import SAEConfig, train_saes
from sae_lib.transfer import PCA

_PERMUTED, _PCA, _PCA_PARTS = "permuted", "pca.safetensors", ("mean", "components")


def panel_k(d_model: int) -> int:
    """k of the SAEs whose features are looked at: the paper's 10; less only where a rehearsal narrows the U-Net."""
    return min(10, d_model // 10)


def transfer_k(d_model: int) -> int:
    """k of the SAEs of Figure 3 and RIEBench: an eighth of d_model, as the paper's 160 is of 1,280."""
    return d_model // 8


def default_configs(
    scale: str, d_model: int, vectors: int, ks: Iterable[int], seed: int = 0, rehearsal: bool = False
) -> list[SAEConfig]:
    """One SAE a block and k, n_f = 4 d_model: `SAEConfig.paper` at sdxl scale, `SAEConfig.pocket` otherwise.

    vectors: what the stream gives out of each block, all passes together; at pocket scale it sets when a feature is dead.
    A rehearsal has the paper's values, with the batch so small that its few vectors make some steps.
    """
    changes: dict[str, Any] = {"d_model": d_model, "n_f": 4 * d_model, "seed": seed}
    make = SAEConfig.paper
    if scale != "sdxl":
        make = SAEConfig.pocket
        changes["steps"] = vectors // make("mid.0").batch_size
    elif rehearsal:
        batch = max(1, vectors // 16)
        changes |= {"batch_size": batch, "dead_vectors_threshold": 2 * batch, "auxk": min(256, 2 * d_model)}
    return [make(block, k, **changes) for k in ks for block in SAE_BLOCKS]


class Trained(NamedTuple):
    """SAEs trained on one stream, with the controls made from the same vectors."""

    folder: Path
    """The artefact: one folder a SAE, as `train_saes` writes them."""
    saes: dict[SAEConfig, TopKSAE]
    permuted: dict[str, TopKSAE]
    """By block: an SAE trained on the dimension-permuted updates. Empty unless asked for."""
    pca: dict[str, PCA]
    """By block: as many principal components of the stream's first fill as that SAE's k. Empty unless asked for."""

    def with_k(self, k: int) -> dict[str, TopKSAE]:
        """The SAEs of one k, by block."""
        return {config.block: sae for config, sae in self.saes.items() if config.k == k}


def train_in_setting(
    pipe,
    settings: CallSettings,
    ks: Sequence[int],
    vectors: int,
    scale: str,
    source: str = "",
    prompt_source: str = "",
    controls: bool = False,
) -> Trained:
    """SAEs of the four blocks trained on `vectors` update vectors each of one setting, from the cache if they are there.

    settings: of the pipeline calls; its seed is also that of the vectors' order and of the SAEs' first weights. The
    vectors come from as many training prompts as they take and are seen `passes` times (see `Scale`). source: what the
    pipeline was loaded from. controls: also an SAE of the last k on dimension-permuted updates, and a PCA of k components.

    Raises what `load_prompts` and `train_saes` raise.
    """
    rehearsal, d_model = source.startswith("random"), pipe.unet.config.block_out_channels[-1]
    passes = get_scale(scale, rehearsal).passes
    prompts = load_prompts(
        scale, math.ceil(vectors / (settings.steps * positions_per_step(pipe))), "train", prompt_source
    )
    stream = TrainingStream(pipe, prompts, SAE_BLOCKS, settings, passes, vectors, settings.seed)
    configs = default_configs(scale, d_model, vectors * passes, ks, settings.seed, rehearsal)
    permuted = [config for config in configs if controls and config.k == ks[-1]]

    def make(folder: Path) -> None:
        train_saes(stream, configs, folder, pipe.device)
        if controls:
            train_saes(PermutedStream(stream), permuted, folder / _PERMUTED, pipe.device)
            fits = PCA.fit_blocks([stream.in_order()], ks[-1])
            tensors = {f"{block}.{part}": getattr(fit, part) for block, fit in fits.items() for part in _PCA_PARTS}
            save_file(tensors, folder / _PCA)

    inputs = {"pipeline": type(pipe.scheduler).__name__, "scale": scale, "source": source, "vectors": vectors}
    inputs |= {"prompts": hashlib.sha256("\n".join(prompts).encode()).hexdigest(), "passes": passes}
    inputs |= {"settings": asdict(settings), "configs": [asdict(config) for config in configs], "controls": controls}
    folder = cached("saes", inputs, make)
    device = {"device": pipe.device}
    saes = {config: TopKSAE.load(folder / config.folder_name, config.block, **device) for config in configs}
    controlled = {c.block: TopKSAE.load(folder / _PERMUTED / c.folder_name, c.block, **device) for c in permuted}
    tensors = load_file(folder / _PCA, str(pipe.device)) if controls else {}
    pca = {block: PCA(*(tensors[f"{block}.{part}"] for part in _PCA_PARTS)) for block in controlled}
    return Trained(folder, saes, controlled, pca)


def one_step_saes(turbo, scale: str, source: str = "", prompt_source: str = "", seed: int = 0) -> Trained:
    """The SAEs of this companion: trained on one-step Turbo updates, two a block (`panel_k`, `transfer_k`), with controls."""
    counts = get_scale(scale, source.startswith("random"))
    d_model = turbo.unet.config.block_out_channels[-1]
    settings = CallSettings(steps=1, guidance_scale=0.0, seed=seed, batch_size=counts.harvest_batch)
    ks, vectors = (panel_k(d_model), transfer_k(d_model)), counts.train_prompts * positions_per_step(turbo)
    return train_in_setting(turbo, settings, ks, vectors, scale, source, prompt_source, controls=True)
