"""Trained SAEs, by block: those shipped with the package, the authors' published ones, or a folder of one's own."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from sae_lib.blocks import BLOCKS, SAE_BLOCKS
from sae_lib.formats import download_sdxl_unbox, load_sdxl_unbox
from sae_lib.sae import CONFIG_FILE, TopKSAE
from sae_lib.scales import get_scale
from sae_lib.statistics import FeatureStatistics

SHIPPED = Path(__file__).parent / "pocket" / "saes"
"""The pocket models' SAEs, two a block, in 16 bit; `python -m sae_lib.pocket.train saes` makes them."""

_HUB = {160: "wendlerc/sdxl-turbo-saes"}
_HUB_DEFAULT = "surokpro2/sdxl-saes"


def load_saes(
    k: int, scale: str = "pocket", source: str | Path = "", device: str | torch.device = "cpu", n_f: int | None = None
) -> dict[str, TopKSAE]:
    """One SAE for each of the four blocks, in the paper's order: trained on one-step updates, keeping `k` activations.

    pocket and smoke: the shipped ones (k = 10 and k = 16, n_f = 512). sdxl: the authors' from the Hub (n_f = 5120 unless
    given; k = 5, 10, 20, and 160 for Figure 3). source: in their place a folder that `train_saes` wrote, or one with the
    authors' checkpoints under their own names. n_f chooses where a folder has several of that k. Decoder columns of ours
    are scaled to unit length, which 16 bit leave them only to a thousandth; the authors' stay as published.

    Raises ValueError for an unknown scale, for a k that is not there or there twice, and for damaged files;
    FileNotFoundError if the folder or a block's SAE is missing, ConnectionError if the Hub cannot be reached.
    """
    return {block: _load_sae(folder, block, device) for block, folder in find_saes(k, scale, source, n_f).items()}


def load_statistics(
    k: int, scale: str = "pocket", source: str | Path = "", n_f: int | None = None
) -> dict[str, FeatureStatistics]:
    """The features' statistics of the SAEs that `load_saes` gives. The authors measured mean and standard deviation only:
    of theirs the others are NaN.

    Raises what `load_saes` raises, and FileNotFoundError if an SAE has no statistics.
    """
    return {block: _load_statistics(folder) for block, folder in find_saes(k, scale, source, n_f).items()}


def find_saes(k: int, scale: str, source: str | Path = "", n_f: int | None = None) -> Mapping[str, Path]:
    """By block, the folder of the SAE that `load_saes` loads; raises what it raises."""
    get_scale(scale)
    if scale == "sdxl" and not source:
        repository = _HUB.get(k, _HUB_DEFAULT)
        return {block: download_sdxl_unbox(repository, block, k, n_f or 5120) for block in SAE_BLOCKS}
    folder = Path(source or SHIPPED)
    if not folder.is_dir():
        way = "give a folder that train_saes wrote" if source else "restore it with git, or run `make pocket`"
        raise FileNotFoundError(f"no folder of SAEs {folder.name!r}: {way}")
    return {block: _find(folder, block, k, n_f) for block in SAE_BLOCKS}


def _find(folder: Path, block: str, k: int, n_f: int | None) -> Path:
    """The folder of the only SAE of this block and k: ours, or one of the authors'."""
    paths = [*folder.glob(f"{block}_*/{CONFIG_FILE}"), *folder.glob(f"**/{BLOCKS[block]}_*/final/{CONFIG_FILE}")]
    there = {path.parent: json.loads(path.read_text()) for path in sorted(paths)}
    found = [
        path
        for path, told in there.items()
        if told["k"] == k and n_f in (None, told.get("n_f", told.get("n_dirs_local")))
    ]
    if not there:
        raise FileNotFoundError(f"no SAE of block {block!r} in {folder.name}: train or copy it again")
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in there)
        raise ValueError(
            f"{len(found)} SAEs of block {block!r} with k = {k} in {folder.name}, wanted 1; it has {names}"
        )
    return found[0]


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
