"""Trained SAEs, by block: the shipped ones, the authors' published ones, or those of the user's folder."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sae_lib.cache.reading import file_in, read_object
from sae_lib.models.blocks import (
    ALL_BLOCKS,
    ATTENTION_BLOCKS,
    PAPER_BLOCKS,
    architecture_of,
    blocks_of,
    is_flux,
    refuse_unknown_block,
    select_blocks,
    width_of,
)
from sae_lib.models.scales import get_scale
from sae_lib.saes.exchange import FLUX_HUB, download_sdxl_unbox, load_saelens, load_sdxl_unbox, load_sparsify
from sae_lib.saes.sizes import Kind, sae_size
from sae_lib.saes.statistics import FeatureStatistics
from sae_lib.saes.topk import CONFIG_FILE, WEIGHTS_FILE, TopKSAE, column_lengths, read_sizes

if TYPE_CHECKING:
    import diffusers

SHIPPED = Path(__file__).parents[1] / "pocket" / "saes"
"""The pocket models' SAEs, two per block, in 16 bit; `python -m notebooks.experiments.pocket.train saes` makes them."""

SHIPPED_FLUX = SHIPPED.with_name("flux_saes")
"""The pocket FLUX's SAEs, of its last double-stream block and of the chosen blocks; stage `flux_saes` makes them."""

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
    seed: int | None = None,
) -> dict[str, TopKSAE]:
    """One SAE for each of some blocks, by block, trained on one-step updates.

    which: "panel", the SAEs whose features are looked at (`sae_size` says how large), "transfer", those of Figure 3 and
    RIEBench, or a number of activations kept. At pocket and smoke scale they are shipped. At sdxl scale they are the
    authors' from the Hub (k = 5, 10, 20, and 160 for Figure 3; n_f = 5120 unless given).

    source: in their place a folder that `train_saes` wrote, or one with the authors' checkpoints under their own names.
    n_f and seed choose where a folder has several SAEs of that k. What a stopped program left half-written there,
    under a hidden name or as `NAME.partial-PID`, is no SAE. blocks: see `select_blocks`; of a `source`, "" means all
    that it has, those of the scale first.

    16 bit leave the decoder columns of our SAEs at unit length only to a thousandth, so they are scaled to unit length
    here; the authors' columns stay as published.

    Raises ValueError for an unknown scale or block, for a size that is not there or there twice, for damaged files, and
    for a seed of the published SAEs, which have none; FileNotFoundError if the folder or a block's SAE is missing,
    ConnectionError if the Hub cannot be reached.
    """
    folders = find_saes(which, scale, source, blocks, n_f, seed)
    return {block: _load_sae(folder, block, device) for block, folder in folders.items()}


def load_statistics(
    which: Kind | int = "panel",
    scale: str = "pocket",
    source: str | Path = "",
    blocks: str | Iterable[str] = "",
    n_f: int | None = None,
    seed: int | None = None,
) -> dict[str, FeatureStatistics]:
    """The features' statistics of the SAEs that `load_saes` gives.

    The authors measured only mean and standard deviation: the other statistics of their SAEs are NaN.

    Raises what `load_saes` raises, and FileNotFoundError if an SAE has no statistics.
    """
    folders = find_saes(which, scale, source, blocks, n_f, seed)
    return {block: _load_statistics(folder) for block, folder in folders.items()}


def find_saes(
    which: Kind | int,
    scale: str,
    source: str | Path = "",
    blocks: str | Iterable[str] = "",
    n_f: int | None = None,
    seed: int | None = None,
) -> Mapping[str, Path]:
    """By block, the folder of the SAE that `load_saes` loads; raises what it raises."""
    get_scale(scale)
    architecture = architecture_of(blocks)
    wanted = select_blocks(blocks, scale, architecture)
    if scale == "sdxl" and not source:
        if seed is not None:
            raise ValueError(f"seed is {seed}, but the published SAEs say no seed: give a source, or no seed")
        k = sae_size(which, _PUBLISHED_WIDTH, scale, architecture)[0] if isinstance(which, str) else which
        if architecture == "flux":
            return {block: download_sdxl_unbox(FLUX_HUB, block, k, n_f or 12_288) for block in wanted}
        repository = _HUB.get(k, _HUB_DEFAULT)
        return {block: download_sdxl_unbox(repository, block, k, n_f or 5120) for block in wanted}
    folder = Path(os.path.expanduser(source or (SHIPPED_FLUX if architecture == "flux" else SHIPPED)))
    if not folder.is_dir():
        way = "give a folder that train_saes wrote" if source else "restore it with git, or run `make pocket`"
        raise FileNotFoundError(f"no folder of SAEs {folder.name!r}: {way}")
    there = _list(folder)
    if source and blocks == "" and there:
        wanted = [*(block for block in wanted if block in there), *(block for block in there if block not in wanted)]
    return {block: _find(folder, there, block, which, scale, n_f, seed) for block in wanted}


_FILES = (f"*/{CONFIG_FILE}", f"*/{WEIGHTS_FILE}", f"**/final/{CONFIG_FILE}", "**/final/state_dict.pth")
"""One of these makes a folder an SAE's: what lacks the others is refused, not passed over."""


def _list(folder: Path) -> dict[str, list[Path]]:
    """By block, in the order in which they run, the folders of all SAEs, whether ours or the authors'."""
    saes = sorted({path.parent for pattern in _FILES for path in folder.glob(pattern)})
    saes = [sae for sae in saes if not _is_leftover(sae.relative_to(folder))]
    found = {}
    for block, module in ALL_BLOCKS.items():
        starts = f"{block}_", f"{module}_"
        found[block] = [sae for sae in saes if (sae.parent if _is_the_authors(sae) else sae).name.startswith(starts)]
    return {block: paths for block, paths in found.items() if paths}


def _is_leftover(path: Path) -> bool:
    """Whether a stopped program left it, half-written."""
    return any(part.startswith(".") or ".partial-" in part for part in path.parts)


def _find(
    folder: Path,
    there: Mapping[str, list[Path]],
    block: str,
    which: Kind | int,
    scale: str,
    n_f: int | None,
    seed: int | None,
) -> Path:
    """The folder of the only SAE of this block, size and seed."""
    if block not in there:
        has = f"it has SAEs of {', '.join(there)}" if there else "it has none of any block"
        way = "name these in blocks, or train or copy it" if there else "give the folder around the SAEs' own folders"
        raise FileNotFoundError(f"no SAE of block {block!r} in {folder.name} ({has}): {way}")

    def fits(sae_folder: Path) -> bool:
        path = file_in(sae_folder, CONFIG_FILE, "not completely copied; train or copy it again")
        sae = read_object(path, ("d_model", "k"))
        n_f_name = "n_f" if "n_f" in sae else "n_dirs_local"
        d_model, features, k = read_sizes(path, sae, ("d_model", n_f_name, "k"))
        asked = (which, features) if isinstance(which, int) else sae_size(which, d_model, scale, architecture_of(block))
        training = sae.get("training")
        trained_with = training.get("seed") if isinstance(training, dict) else None
        return (asked[0], n_f or asked[1]) == (k, features) and seed in (None, trained_with)

    fitting = [path for path in there[block] if fits(path)]
    if len(fitting) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in fitting or there[block])
        size = f"k = {which}" if isinstance(which, int) else f"the size of a {which} SAE"
        size += "".join(f" and {key} = {value}" for key, value in (("n_f", n_f), ("seed", seed)) if value is not None)
        way = "choose by n_f or seed, or move the others away" if fitting else "ask for one of these by its k and n_f"
        raise ValueError(
            f"{len(fitting)} SAEs of block {block!r} with {size} in {folder.name}, wanted 1; it has {names}: {way}"
        )
    return fitting[0]


def _load_sae(folder: Path, block: str, device: str | torch.device) -> TopKSAE:
    if _is_the_authors(folder):
        return load_sdxl_unbox(folder)[0].to(device)
    sae = TopKSAE.load(folder, block, device)
    column_lengths(folder, sae)
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


_ANY = {
    ("cfg.json", "sae_weights.safetensors"): "SAELens",
    ("cfg.json", "sae.safetensors"): "sparsify",
    ("config.json", "state_dict.pth"): "the authors",
    (CONFIG_FILE, WEIGHTS_FILE): "ours",
}
"""By the names of its files, whose format an SAE's folder has."""


def load_any(folder: str | Path, block: str = "") -> tuple[TopKSAE, str]:
    """The SAE in a folder of any format that this library reads, and the block that it is for.

    Formats: ours, the authors', SAELens' and sparsify's; the names of the files tell them apart. SAELens' SAEs other
    than topk come as a `JumpReLUSAE`. The decoder columns of ours are scaled to unit length, as by `load_saes`.

    block: where the folder does not say it. Ours say it in their training; SAELens' in `block` or `hook_name` of their
    metadata; sparsify's and the authors' by the name of the folder. It is a code ("up.0.0") or the path of the module.

    Raises FileNotFoundError for a missing folder; ValueError for a folder of no known format, for an unknown block, one
    that is not said or another than the folder says, and what the format's loader raises. Pickles are read only of the
    authors' format, and without running code.
    """
    folder = Path(os.path.expanduser(folder))
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: give the folder that holds an SAE's files")
    formats = [name for files, name in _ANY.items() if all((folder / file).is_file() for file in files)]
    if len(formats) != 1:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        known = "; ".join(f"{' and '.join(files)} ({name})" for files, name in _ANY.items())
        raise ValueError(f"{folder} holds {there}; wanted the files of one format: {known}")
    sae, said = _load_any(folder, formats[0])
    if block and said and block != said:
        raise ValueError(f"the SAE in {folder} says that it is for block {said!r}, and {block!r} was asked for")
    block = block or said
    if not block:
        raise ValueError(f"the SAE in {folder} does not say which block it is for: name it with --block, as in up.0.0")
    refuse_unknown_block(block, block)
    return sae, block


def _load_any(folder: Path, form: str) -> tuple[TopKSAE, str]:
    """The SAE, and the block that the folder says; empty if it says none."""
    if form == "ours":
        sae = TopKSAE.load(folder)
        column_lengths(folder, sae)
        sae.normalize_decoder_()
        return sae, str(read_object(folder / CONFIG_FILE)["training"].get("block", ""))
    if form == "SAELens":
        sae, metadata = load_saelens(folder)
        return sae, str(metadata.get("block") or _code_of(metadata.get("hook_name") or ""))
    if form == "sparsify":
        return load_sparsify(folder), _code_of(folder.name)
    name = folder.parent.name if _is_the_authors(folder) else folder.name
    return load_sdxl_unbox(folder)[0], _code_of(name.partition("_k")[0])


def _code_of(name: str) -> str:
    """The code of a block that is named by its code or by its module's path; empty for any other name."""
    return name if name in ALL_BLOCKS else next((code for code, path in ALL_BLOCKS.items() if path == name), "")


def rehearsal_saes(
    pipe: "diffusers.DiffusionPipeline",
    blocks: str | Iterable[str] = PAPER_BLOCKS,
    kind: Kind = "panel",
    seed: int = 0,
) -> tuple[dict[str, TopKSAE], dict[str, FeatureStatistics]]:
    """Untrained SAEs of the blocks' widths, by block, and statistics in which every unit of strength is 1."""
    saes, statistics = {}, {}
    architecture = "flux" if is_flux(pipe) else "sdxl"
    order = list(blocks_of(pipe)) if is_flux(pipe) else ATTENTION_BLOCKS
    for block in select_blocks(blocks, "sdxl", architecture):
        width = width_of(pipe, block)
        k, n_f = sae_size(kind, width, "sdxl", architecture)
        generator = torch.Generator().manual_seed(seed + order.index(block))
        saes[block] = TopKSAE(width, n_f, k, generator).requires_grad_(False).to(pipe._execution_device)
        ones = torch.ones(n_f)
        statistics[block] = FeatureStatistics(ones, ones, ones, ones, torch.tensor(1))
    return saes, statistics
