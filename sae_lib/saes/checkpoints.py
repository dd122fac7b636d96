"""Trained SAEs, by block: the shipped ones, the authors' published ones, or those of the user's folder."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sae_lib.models.blocks import ATTENTION_BLOCKS, BLOCKS, PAPER_BLOCKS, select_blocks, width_of
from sae_lib.models.scales import get_scale
from sae_lib.saes.exchange import download_sdxl_unbox, load_sdxl_unbox
from sae_lib.saes.sizes import Kind, sae_size
from sae_lib.saes.statistics import FeatureStatistics
from sae_lib.saes.topk import CONFIG_FILE, TopKSAE

if TYPE_CHECKING:
    import diffusers

SHIPPED = Path(__file__).parents[1] / "pocket" / "saes"
"""The pocket models' SAEs, two per block, in 16 bit; `python -m notebooks.experiments.pocket.train saes` makes them."""

_HUB = {160: "wendlerc/sdxl-turbo-saes"}
_HUB_DEFAULT = "surokpro2/sdxl-saes"
_PUBLISHED_WIDTH = 1280


def load_saes(
    which: Kind | int = "panel",
    scale: str = "pocket",
    source: str | Path = "",
    device: str | torch.device = "cpu",
    blocks: str | Iterable[str] = "",
    n_f: int | None = None,
) -> dict[str, TopKSAE]:
    """One SAE for each of some blocks, by block, trained on one-step updates.

    which: "panel", the SAEs whose features are looked at (`sae_size` says how large), "transfer", those of Figure 3 and
    RIEBench, or a number of activations kept. At pocket and smoke scale they are shipped. At sdxl scale they are the
    authors' from the Hub (k = 5, 10, 20, and 160 for Figure 3; n_f = 5120 unless given).

    source: in their place a folder that `train_saes` wrote, or one with the authors' checkpoints under their own names.
    n_f chooses where a folder has several SAEs of that k. blocks: see `select_blocks`.

    16 bit leave the decoder columns of our SAEs at unit length only to a thousandth, so they are scaled to unit length
    here; the authors' columns stay as published.

    Raises ValueError for an unknown scale or block, for a size that is not there or there twice, and for damaged files;
    FileNotFoundError if the folder or a block's SAE is missing, ConnectionError if the Hub cannot be reached.
    """
    folders = find_saes(which, scale, source, blocks, n_f)
    return {block: _load_sae(folder, block, device) for block, folder in folders.items()}


def load_statistics(
    which: Kind | int = "panel",
    scale: str = "pocket",
    source: str | Path = "",
    blocks: str | Iterable[str] = "",
    n_f: int | None = None,
) -> dict[str, FeatureStatistics]:
    """The features' statistics of the SAEs that `load_saes` gives.

    The authors measured only mean and standard deviation: the other statistics of their SAEs are NaN.

    Raises what `load_saes` raises, and FileNotFoundError if an SAE has no statistics.
    """
    folders = find_saes(which, scale, source, blocks, n_f)
    return {block: _load_statistics(folder) for block, folder in folders.items()}


def find_saes(
    which: Kind | int, scale: str, source: str | Path = "", blocks: str | Iterable[str] = "", n_f: int | None = None
) -> Mapping[str, Path]:
    """By block, the folder of the SAE that `load_saes` loads; raises what it raises."""
    get_scale(scale)
    wanted = select_blocks(blocks, scale)
    if scale == "sdxl" and not source:
        k = sae_size(which, _PUBLISHED_WIDTH, scale)[0] if isinstance(which, str) else which
        repository = _HUB.get(k, _HUB_DEFAULT)
        return {block: download_sdxl_unbox(repository, block, k, n_f or 5120) for block in wanted}
    folder = Path(source or SHIPPED)
    if not folder.is_dir():
        way = "give a folder that train_saes wrote" if source else "restore it with git, or run `make pocket`"
        raise FileNotFoundError(f"no folder of SAEs {folder.name!r}: {way}")
    return {block: _find(folder, block, which, scale, n_f) for block in wanted}


def _find(folder: Path, block: str, which: Kind | int, scale: str, n_f: int | None) -> Path:
    """The folder of the only SAE of this block and size, whether ours or the authors'."""
    there = {path.parent: json.loads(path.read_text()) for path in sorted(_configs(folder, block))}
    if not there:
        blocks = [code for code in BLOCKS if _configs(folder, code)]
        has = f"it has SAEs of {', '.join(blocks)}" if blocks else "it has none of any block"
        raise FileNotFoundError(
            f"no SAE of block {block!r} in {folder.name} ({has}): train or copy it, or ask for other blocks"
        )

    def fits(sae: Mapping[str, Any]) -> bool:
        size = sae["k"], sae.get("n_f", sae.get("n_dirs_local"))
        if isinstance(which, int):
            return size[0] == which and n_f in (None, size[1])
        k, features = sae_size(which, sae.get("d_model", _PUBLISHED_WIDTH), scale)
        return size == (k, n_f or features)

    fitting = [path for path, sae in there.items() if fits(sae)]
    if len(fitting) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in there)
        size = f"k = {which}" if isinstance(which, int) else f"the size of a {which} SAE"
        raise ValueError(
            f"{len(fitting)} SAEs of block {block!r} with {size} in {folder.name}, wanted 1; it has {names}"
        )
    return fitting[0]


def _configs(folder: Path, block: str) -> list[Path]:
    return [*folder.glob(f"{block}_*/{CONFIG_FILE}"), *folder.glob(f"**/{BLOCKS[block]}_*/final/{CONFIG_FILE}")]


def _load_sae(folder: Path, block: str, device: str | torch.device) -> TopKSAE:
    if _is_the_authors(folder):
        return load_sdxl_unbox(folder)[0].to(device)
    sae = TopKSAE.load(folder, block, device)
    sae.normalize_decoder_()
    return sae


def _load_statistics(folder: Path) -> FeatureStatistics:
    if not _is_the_authors(folder):
        return FeatureStatistics.load(folder)
    _, mean, std = load_sdxl_unbox(folder)
    if mean is None or std is None:
        raise FileNotFoundError(f"no mean.pt and std.pt in {folder}: copy them too, strengths are measured in them")
    unknown = torch.full_like(mean, torch.nan)
    return FeatureStatistics(mean, std, unknown, unknown, torch.zeros((), dtype=torch.int64))


def _is_the_authors(folder: Path) -> bool:
    return folder.name == "final"


def rehearsal_saes(
    pipe: "diffusers.StableDiffusionXLPipeline",
    blocks: str | Iterable[str] = PAPER_BLOCKS,
    kind: Kind = "panel",
    seed: int = 0,
) -> tuple[dict[str, TopKSAE], dict[str, FeatureStatistics]]:
    """Untrained SAEs of the blocks' widths, by block, and statistics in which every unit of strength is 1."""
    saes, statistics = {}, {}
    for block in select_blocks(blocks, "sdxl"):
        width = width_of(pipe, block)
        k, n_f = sae_size(kind, width, "sdxl")
        generator = torch.Generator().manual_seed(seed + ATTENTION_BLOCKS.index(block))
        saes[block] = TopKSAE(width, n_f, k, generator).requires_grad_(False).to(pipe.device)
        ones = torch.ones(n_f)
        statistics[block] = FeatureStatistics(ones, ones, ones, ones, torch.tensor(1))
    return saes, statistics
