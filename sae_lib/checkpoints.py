"""Trained SAEs, by block: those shipped with the package, or a folder of one's own."""

import json
from pathlib import Path

import torch

from sae_lib.blocks import SAE_BLOCKS
from sae_lib.sae import CONFIG_FILE, TopKSAE
from sae_lib.scales import get_scale

SHIPPED = Path(__file__).parent / "pocket" / "weights" / "saes"
"""The pocket models' SAEs, two a block, in 16 bit; `python -m sae_lib.pocket.train saes` makes them."""


def load_saes(
    k: int, scale: str = "pocket", source: str | Path = "", device: str | torch.device = "cpu"
) -> dict[str, TopKSAE]:
    """One SAE for each of the four blocks, in the paper's order: trained on one-step updates, keeping `k` activations.

    pocket and smoke: the shipped ones (k = 10 and k = 16, n_f = 512). source: in their place a folder that `train_saes`
    wrote. Decoder columns are scaled to unit length, which 16 bit leave them only to a thousandth.

    Raises ValueError for an unknown scale, for sdxl without a source, for a k that is not there or there twice, and for
    damaged files; FileNotFoundError if the folder or a block's SAE is missing.
    """
    get_scale(scale)
    if scale == "sdxl" and not source:
        raise ValueError("no SAEs of SDXL are shipped: train them (notebook 03) and give their folder as source")
    folder = Path(source or SHIPPED)
    if not folder.is_dir():
        way = "give a folder that train_saes wrote" if source else "restore it with git, or run `make pocket`"
        raise FileNotFoundError(f"no folder of SAEs {folder.name!r}: {way}")
    saes = {block: TopKSAE.load(_find(folder, block, k), block, device) for block in SAE_BLOCKS}
    for sae in saes.values():
        sae.normalize_decoder_()
    return saes


def _find(folder: Path, block: str, k: int) -> Path:
    """The folder of the only SAE of this block and k."""
    there = {path.parent: json.loads(path.read_text())["k"] for path in sorted(folder.glob(f"{block}_*/{CONFIG_FILE}"))}
    found = [path for path, its_k in there.items() if its_k == k]
    if not there:
        raise FileNotFoundError(f"no SAE of block {block!r} in {folder.name}: train or copy it again")
    if len(found) != 1:
        names = ", ".join(path.name for path in there)
        raise ValueError(
            f"{len(found)} SAEs of block {block!r} with k = {k} in {folder.name}, wanted 1; it has {names}"
        )
    return found[0]
