"""SAE checkpoints of other libraries: the authors' (sdxl-unbox), SAELens, sparsify.

What is loaded is complete: every tensor of the file is used and none is left as an untrained SAE has it (`assemble`
says what is refused, and what cannot be seen).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_lib.cache.reading import (
    check_tensors,
    file_in,
    read_object,
    read_pickle,
    read_safetensors,
    refuse_other_type,
    whole_number,
)
from sae_lib.models.blocks import BLOCKS
from sae_lib.saes.topk import TopKSAE, assemble, column_lengths, read_sizes, write_sae

HUB_FOLDERS = {"surokpro2/sdxl-saes": "", "wendlerc/sdxl-turbo-saes": "hparam_study/"}
"""The authors' repositories of SDXL's SAEs on the Hub -> what stands before a checkpoint's folder."""

FLUX_HUB = "antoniomari/SAE_flux_18"
"""The author's repository of FLUX's only SAE, of block double.18; its files lie at the top."""

_SAELENS = "6.0.0"
"""The format's version: without it SAELens takes the file for an older one and drops the metadata."""


def load_sdxl_unbox(folder: str | Path) -> tuple[TopKSAE, Tensor | None, Tensor | None]:
    """An SAE as the authors publish it, with the mean and standard deviation of each feature's non-zero activations.

    folder: `.../final` with config.json and state_dict.pth, and mean.pt and std.pt where they were measured (else
    None). Pickles are read with `weights_only=True`, on the CPU. The authors' own loader is strict too: all of their
    checkpoints have the five tensors.

    Raises FileNotFoundError for a missing file; ValueError for a pickle that holds more than tensors, a truncated file,
    and tensors that are not those that config.json says.
    """
    file, config = _read_config(folder, "config.json", ("n_dirs_local", "d_model", "k"))
    sizes, path = read_sizes(file, config, ("d_model", "n_dirs_local", "k")), file.with_name("state_dict.pth")
    stored = read_pickle(path)
    if isinstance(stored, Mapping) and "encoder.weight" in stored:  # as FLUX's may lie on the Hub: not wrapped
        stored = {"state_dict": stored}
    if not isinstance(stored, Mapping) or "state_dict" not in stored:
        raise ValueError(f"{path} holds no 'state_dict'; wanted a checkpoint of sdxl-unbox")
    sae = assemble(path, sizes, stored["state_dict"])
    mean, std = (_read_measured(file.with_name(name), sae.n_f) for name in ("mean.pt", "std.pt"))
    return sae, mean, std


def _read_measured(path: Path, n_f: int) -> Tensor | None:
    """One number per feature, if there is such a file."""
    if not path.exists():
        return None
    return check_tensors(path, {path.stem: read_pickle(path)}, {path.stem: (n_f,)})[path.stem]


def load_saelens(folder: str | Path) -> tuple[TopKSAE, dict[str, Any]]:
    """An SAE in SAELens' format (cfg.json, sae_weights.safetensors) and its metadata.

    `rescale_acts_by_decoder_norm`, which SAELens sets by default, multiplies the pre-activations by the lengths of the
    decoder's rows and divides the activations by them before decoding. The same numbers come from rows of unit length
    and an encoder and `latent_bias` times their lengths: so it is loaded.

    Raises FileNotFoundError for a missing file; ValueError for another architecture than topk, for settings
    that this SAE does not have (normalised or reshaped activations, a pre-bias that is not applied), a damaged
    file, tensors that are not those that cfg.json says, and decoder rows of length 0 that SAELens would divide by.
    """
    file, config = _read_config(folder, "cfg.json", ("architecture", "d_in", "d_sae", "k"))
    wanted = {"architecture": "topk", "apply_b_dec_to_input": True, "normalize_activations": "none"}
    _refuse_other_settings(file, config, wanted | {"reshape_activations": "none"})
    metadata, rescale = config.get("metadata") or {}, config.get("rescale_acts_by_decoder_norm", False)
    refuse_other_type(metadata, dict, f"metadata in {file}")
    refuse_other_type(rescale, bool, f"rescale_acts_by_decoder_norm in {file}")
    path = file.with_name("sae_weights.safetensors")
    names = {"encoder.weight": "W_enc.T", "decoder.weight": "W_dec.T", "pre_bias": "b_dec", "latent_bias": "b_enc"}
    sae = assemble(path, read_sizes(file, config, ("d_in", "d_sae", "k")), read_safetensors(path), names)
    if rescale:
        lengths = column_lengths(path, sae)
        sae.decoder.weight /= lengths
        sae.encoder.weight *= lengths[:, None]
        sae.latent_bias *= lengths
    return sae, {name: value for name, value in metadata.items() if name != "sae_lens_version"}


def load_sparsify(folder: str | Path) -> TopKSAE:
    """An SAE in sparsify's format (cfg.json, sae.safetensors; the folder of one hookpoint).

    Raises FileNotFoundError for a missing file; ValueError for another activation than topk, a transcoder or a skip
    connection, a damaged file, and tensors that are not those that cfg.json says.
    """
    file, config = _read_config(folder, "cfg.json", ("d_in", "k"))
    wanted = {"activation": "topk", "transcode": False, "skip_connection": False, "signed": False}
    _refuse_other_settings(file, config, wanted)
    config = {"num_latents": 0, "expansion_factor": 32} | config  # what sparsify takes where they are missing
    if not whole_number(file, config, "num_latents", least=0):
        config["num_latents"] = whole_number(file, config, "d_in") * whole_number(file, config, "expansion_factor")
    path = file.with_name("sae.safetensors")
    names = {"encoder.weight": "encoder.weight", "decoder.weight": "W_dec.T"}
    names |= {"pre_bias": "b_dec", "latent_bias": "encoder.bias"}
    return assemble(path, read_sizes(file, config, ("d_in", "num_latents", "k")), read_safetensors(path), names)


def export_saelens(sae: TopKSAE, folder: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes the SAE for SAELens (>= 6), whose encode and decode then give our numbers.

    metadata: what else the file shall say, such as the content of `diffusion.json`.

    Raises FileExistsError if another SAE is in the folder.
    """
    weights = {"W_enc": sae.encoder.weight.T, "W_dec": sae.decoder.weight.T}
    config = {
        "architecture": "topk",
        "d_in": sae.d_model,
        "d_sae": sae.n_f,
        "k": sae.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"sae_lens_version": _SAELENS, **(metadata or {})},
    }
    weights |= {"b_enc": sae.latent_bias, "b_dec": sae.pre_bias}
    _write(folder, "cfg.json", config, "sae_weights.safetensors", weights)


def export_sparsify(sae: TopKSAE, folder: str | Path) -> None:
    """Writes the SAE for sparsify, as the folder of one hookpoint.

    Raises FileExistsError if another SAE is in the folder.
    """
    config = {
        "activation": "topk",
        "expansion_factor": sae.n_f // sae.d_model,
        "normalize_decoder": True,
        "num_latents": sae.n_f,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_model,
    }
    weights = {"encoder.weight": sae.encoder.weight, "encoder.bias": sae.latent_bias}
    weights |= {"W_dec": sae.decoder.weight.T, "b_dec": sae.pre_bias}
    _write(folder, "cfg.json", config, "sae.safetensors", weights)


def load_from_hub(repository: str, block: str, k: int = 10, n_f: int = 5120) -> TopKSAE:
    """One of the authors' published SAEs, by block, k and n_f.

    repository: "surokpro2/sdxl-saes" or "wendlerc/sdxl-turbo-saes"; "antoniomari/SAE_flux_18" has one SAE, of FLUX's
    "double.18" (k 20, n_f 12288).

    Raises ValueError for an unknown repository or block, and ConnectionError, which says what to download and where to
    put it, if it is not on this machine and cannot be fetched.
    """
    return load_sdxl_unbox(download_sdxl_unbox(repository, block, k, n_f))[0]


def download_sdxl_unbox(repository: str, block: str, k: int, n_f: int) -> Path:
    """The folder of one of the authors' checkpoints, from the Hub or its cache on this machine; for `load_sdxl_unbox`.

    Raises ValueError for an unknown repository or block, ConnectionError if it is not here and cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    name, files = _checkpoint(repository, block, k, n_f)
    try:
        folder = Path(snapshot_download(repository, allow_patterns=files), name)
    except OSError as error:
        folder = None
        reason = str(error).splitlines()[0]
    else:
        reason = "it has no such folder"
    if folder is None or not folder.is_dir():
        raise ConnectionError(
            f"cannot get {name} of {repository} ({reason}): on a connected machine run `hf download {repository} "
            f"--include '{files}' --local-dir FOLDER`, copy FOLDER here, and load it with "
            f"load_sdxl_unbox('FOLDER/{name}')"
        )
    return folder


def _checkpoint(repository: str, block: str, k: int, n_f: int) -> tuple[str, str]:
    """A checkpoint's folder in a repository, and the pattern of its files."""
    if repository == FLUX_HUB:
        if (block, k, n_f) != ("double.18", 20, 12_288):
            raise ValueError(
                f"{FLUX_HUB} has one SAE, of block 'double.18' with k = 20 and n_f = 12288; "
                f"asked for {block!r}, k = {k}, n_f = {n_f}"
            )
        return "", "*"
    if repository not in HUB_FOLDERS:
        known = ", ".join((*HUB_FOLDERS, FLUX_HUB))
        raise ValueError(f"unknown repository {repository!r}; choose one of {known}")
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}; valid blocks: {', '.join(BLOCKS)}")
    name = f"{HUB_FOLDERS[repository]}{BLOCKS[block]}_k{k}_hidden{n_f}_auxk256_bs4096_lr0.0001/final"
    return name, f"{name}/*"


def _read_config(folder: str | Path, name: str, keys: tuple[str, ...]) -> tuple[Path, dict[str, Any]]:
    """The configuration's file and what it says."""
    file = file_in(folder, name, "give the folder that holds it")
    return file, read_object(file, keys)


def _refuse_other_settings(file: Path, config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise ValueError(f"the SAE of {file} has {name} {config[name]!r:.80}; this library computes {value!r} only")


def _write(
    folder: str | Path, config_name: str, config: Mapping[str, Any], weights_name: str, weights: Mapping[str, Tensor]
) -> None:
    stored = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in weights.items()}
    write_sae(folder, config_name, config, weights_name, stored)
