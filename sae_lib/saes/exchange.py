"""SAE checkpoints of other libraries: the authors' (sdxl-unbox), SAELens, sparsify."""

import functools
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae_lib.models.blocks import BLOCKS
from sae_lib.saes.topk import TopKSAE, write_sae

HUB_FOLDERS = {"surokpro2/sdxl-saes": "", "wendlerc/sdxl-turbo-saes": "hparam_study/"}
"""The authors' repositories on the Hub -> what stands before a checkpoint's folder."""

_SAELENS = "6.0.0"
"""The format's version: without it SAELens takes the file for an older one and drops the metadata."""


def load_sdxl_unbox(folder: str | Path) -> tuple[TopKSAE, Tensor | None, Tensor | None]:
    """An SAE as the authors publish it, with the mean and standard deviation of each feature's non-zero activations.

    folder: `.../final` with config.json and state_dict.pth, and mean.pt and std.pt where they were measured (else
    None). Pickles are read with `weights_only=True`, on the CPU.

    Raises FileNotFoundError for a missing file; ValueError for a pickle that holds more than tensors, a truncated file,
    and shapes that differ from config.json.
    """
    folder = Path(folder)
    config = _read_config(folder, "config.json", ("n_dirs_local", "d_model", "k"))
    stored = _read_pickle(folder / "state_dict.pth")
    tensors = stored.get("state_dict") if isinstance(stored, Mapping) else None
    if not tensors:
        raise ValueError(f"{folder / 'state_dict.pth'} holds no 'state_dict'; wanted a checkpoint of sdxl-unbox")
    sae = _build(folder, config["d_model"], config["n_dirs_local"], config["k"], tensors)
    measured = [folder / name for name in ("mean.pt", "std.pt")]
    mean, std = (_read_pickle(path).float() if path.is_file() else None for path in measured)
    for path, statistic in zip(measured, (mean, std), strict=True):
        if statistic is not None and list(statistic.shape) != [sae.n_f]:
            raise ValueError(f"{path} holds {list(statistic.shape)}, wanted one number for each of {sae.n_f} features")
    return sae, mean, std


def load_saelens(folder: str | Path) -> tuple[TopKSAE, dict[str, Any]]:
    """An SAE in SAELens' format (cfg.json, sae_weights.safetensors) and its metadata.

    Raises FileNotFoundError for a missing file; ValueError for another architecture than topk, for settings
    that this SAE does not have (normalised or reshaped activations, a pre-bias that is not applied), a damaged
    file, or wrong shapes.
    """
    folder = Path(folder)
    config = _read_config(folder, "cfg.json", ("architecture", "d_in", "d_sae", "k"))
    wanted = {"architecture": "topk", "apply_b_dec_to_input": True, "normalize_activations": "none"}
    wanted |= {"reshape_activations": "none", "rescale_acts_by_decoder_norm": False}
    _refuse_other_settings(folder, config, wanted)
    stored = _read_safetensors(folder / "sae_weights.safetensors", ("W_enc", "W_dec", "b_enc", "b_dec"))
    tensors = {"encoder.weight": stored["W_enc"].T, "decoder.weight": stored["W_dec"].T}
    tensors |= {"pre_bias": stored["b_dec"], "latent_bias": stored["b_enc"]}
    return _build(folder, config["d_in"], config["d_sae"], config["k"], tensors), {
        name: value for name, value in (config.get("metadata") or {}).items() if name != "sae_lens_version"
    }


def load_sparsify(folder: str | Path) -> TopKSAE:
    """An SAE in sparsify's format (cfg.json, sae.safetensors; the folder of one hookpoint).

    Raises FileNotFoundError for a missing file; ValueError for another activation than topk, a transcoder or a skip
    connection, a damaged file, or wrong shapes.
    """
    folder = Path(folder)
    config = _read_config(folder, "cfg.json", ("d_in", "k"))
    _refuse_other_settings(folder, config, {"activation": "topk", "transcode": False, "skip_connection": False})
    stored = _read_safetensors(folder / "sae.safetensors", ("encoder.weight", "encoder.bias", "W_dec", "b_dec"))
    tensors = {"encoder.weight": stored["encoder.weight"], "decoder.weight": stored["W_dec"].T}
    tensors |= {"pre_bias": stored["b_dec"], "latent_bias": stored["encoder.bias"]}
    return _build(folder, config["d_in"], len(stored["encoder.bias"]), config["k"], tensors)


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
    """One of the authors' published SAEs, by block, k and n_f: "surokpro2/sdxl-saes" or "wendlerc/sdxl-turbo-saes".

    Raises ValueError for an unknown repository or block, and ConnectionError, which says what to download and where to
    put it, if it is not on this machine and cannot be fetched.
    """
    return load_sdxl_unbox(download_sdxl_unbox(repository, block, k, n_f))[0]


def download_sdxl_unbox(repository: str, block: str, k: int, n_f: int) -> Path:
    """The folder of one of the authors' checkpoints, from the Hub or its cache on this machine; for `load_sdxl_unbox`.

    Raises ValueError for an unknown repository or block, ConnectionError if it is not here and cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    if repository not in HUB_FOLDERS:
        raise ValueError(f"unknown repository {repository!r}; choose one of {', '.join(HUB_FOLDERS)}")
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}; valid blocks: {', '.join(BLOCKS)}")
    name = f"{HUB_FOLDERS[repository]}{BLOCKS[block]}_k{k}_hidden{n_f}_auxk256_bs4096_lr0.0001/final"
    try:
        folder = Path(snapshot_download(repository, allow_patterns=f"{name}/*"), name)
    except OSError as error:
        folder = None
        reason = str(error).splitlines()[0]
    else:
        reason = "it has no such folder"
    if folder is None or not folder.is_dir():
        raise ConnectionError(
            f"cannot get {name} of {repository} ({reason}): on a connected machine run `hf download {repository} "
            f"--include '{name}/*' --local-dir FOLDER`, copy FOLDER here, and load it with "
            f"load_sdxl_unbox('FOLDER/{name}')"
        )
    return folder


def _build(folder: Path, d_model: int, n_f: int, k: int, tensors: Mapping[str, Tensor]) -> TopKSAE:
    sae = TopKSAE(d_model, n_f, k)
    state = sae.state_dict() | {
        name: tensor.to(sae.pre_bias.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    wanted = {name: list(tensor.shape) for name, tensor in sae.state_dict().items()}
    different = [
        f"{name} {shapes[name]} (wanted {wanted.get(name)})" for name in shapes if shapes[name] != wanted.get(name)
    ]
    if different:
        raise ValueError(f"the weights in {folder} do not fit its configuration: {', '.join(different)}")
    sae.load_state_dict(state)
    return sae.requires_grad_(False)


def _read_config(folder: Path, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not (folder / name).is_file():
        raise FileNotFoundError(f"no {name} in {folder}: give the folder that holds it")
    try:
        config = json.loads((folder / name).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / name} is no JSON ({error}): copy it again") from error
    if missing := [key for key in keys if key not in config]:
        raise ValueError(f"{folder / name} lacks {', '.join(missing)}: it belongs to another format")
    return config


def _refuse_other_settings(folder: Path, config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise ValueError(f"the SAE in {folder} has {name} {config[name]!r}; this library computes {value!r} only")


def _read_safetensors(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    tensors = _read(path, load_file, SafetensorError)
    if missing := [name for name in names if name not in tensors]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it belongs to another format")
    return {name: tensors[name] for name in names}


def _read_pickle(path: Path) -> Any:
    load = functools.partial(torch.load, map_location="cpu", weights_only=True)
    return _read(path, load, (pickle.UnpicklingError, RuntimeError, EOFError, ValueError))


def _read(path: Path, load: Callable[[Path], Any], errors: type[Exception] | tuple[type[Exception], ...]) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: not completely copied; copy it again")
    try:
        return load(path)
    except errors as error:
        raise ValueError(
            f"{path} is truncated, of another format, or holds code where tensors should be "
            f"({str(error).splitlines()[0]}); nothing of it was run: get it again from its source"
        ) from error


def _write(
    folder: str | Path, config_name: str, config: Mapping[str, Any], weights_name: str, weights: Mapping[str, Tensor]
) -> None:
    stored = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in weights.items()}
    write_sae(folder, config_name, config, weights_name, stored)
