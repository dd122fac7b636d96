"""SAE checkpoints of other libraries: the authors' (sdxl-unbox), SAELens, sparsify; and the SAE that some of them hold.

What is loaded is complete: every tensor of the file is used and none is left as an untrained SAE has it (`assemble`
says what is refused, and what cannot be seen).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
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


class JumpReLUSAE(TopKSAE):
    """An SAE that keeps each pre-activation above its feature's threshold, as SAELens computes it.

        z  = W_enc (x - b_pre) + b_act
        s  = ENC(x) = ReLU(z) where z > threshold, else 0
        x' = DEC(s) = W_dec s + b_pre

    With thresholds of 0 it is the plain ReLU SAE (SAELens: standard). A BatchTopK or Matryoshka SAE is one after its
    training. How many features fire differs from vector to vector: k is n_f, the most there can be. `export_saelens`
    writes it.
    """

    threshold: Float[Tensor, " n_f"]

    def __init__(self, d_model: int, n_f: int):
        super().__init__(d_model, n_f, n_f)
        self.register_buffer("threshold", torch.zeros(n_f))

    def encode(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows n_f"]:
        """The activations, dense and >= 0."""
        z = self.pre_activations(x)
        return z.relu() * (z > self.threshold)

    def encode_sparse(
        self, x: Float[Tensor, "*rows d_model"]
    ) -> tuple[Float[Tensor, "*rows n_f"], Int[Tensor, "*rows n_f"]]:
        """All activations of each vector, largest first, and their features; most are 0."""
        values, indices = self.encode(x).sort(dim=-1, descending=True)
        return values, indices


_THRESHOLDS = {
    "standard": {},
    "jumprelu": {"threshold": ("d_sae",)},
    "batchtopk": {"topk_threshold": ()},
    "matryoshka_batchtopk": {"topk_threshold": ()},
}
"""SAELens' architectures beside topk -> the shapes of what the file has beside weights and biases. The last two stand
in checkpoints of a training that goes on; what a training leaves at its end is a jumprelu."""


def load_saelens(folder: str | Path) -> tuple[TopKSAE, dict[str, Any]]:
    """An SAE in SAELens' format (cfg.json, sae_weights.safetensors) and its metadata.

    A topk gives a TopKSAE; a standard, a jumprelu, and a checkpoint of batchtopk or matryoshka_batchtopk a JumpReLUSAE.
    Numbers are float32 whatever the file's dtype. Settings that change the mathematics are worked into the weights:

    - `rescale_acts_by_decoder_norm`, which SAELens sets by default where it keeps the k largest, multiplies the
      pre-activations by the lengths of the decoder's rows and divides the activations by them before decoding. The same
      numbers come from rows of unit length and an encoder and `latent_bias` times their lengths.
    - Without `apply_b_dec_to_input` the encoder sees x and not x - b_pre: W_enc b_pre is added to `latent_bias`.

    Raises FileNotFoundError for a missing file; ValueError for another architecture, for settings that this SAE does
    not have (reshaped activations; normalised ones, which want the vector itself for decoding, or a scale that the file
    does not hold), a damaged file, tensors that are not those that cfg.json says, and decoder rows of length 0 that
    SAELens would divide by.
    """
    file, config = _read_config(folder, "cfg.json", ("architecture", "d_in", "d_sae"))
    architecture = config["architecture"]
    if architecture != "topk" and architecture not in _THRESHOLDS:
        known = ", ".join(map(repr, ("topk", *_THRESHOLDS)))
        raise ValueError(f"the SAE of {file} has architecture {architecture!r:.80}; this library computes {known}")
    _refuse_other_settings(file, config, {"normalize_activations": "none", "reshape_activations": "none"})
    flags = {"rescale_acts_by_decoder_norm": False, "apply_b_dec_to_input": True}  # what SAELens takes for missing ones
    flags |= {name: config[name] for name in flags if name in config}
    for name, value in flags.items():
        refuse_other_type(value, bool, f"{name} in {file}")
    metadata = config.get("metadata") or {}
    refuse_other_type(metadata, dict, f"metadata in {file}")
    path = file.with_name("sae_weights.safetensors")
    stored = read_safetensors(path)
    names = {"encoder.weight": "W_enc.T", "decoder.weight": "W_dec.T", "pre_bias": "b_dec", "latent_bias": "b_enc"}
    if architecture == "topk":
        sae = assemble(path, read_sizes(file, config, ("d_in", "d_sae", "k")), stored, names)
    else:
        d_model, n_f, _ = sizes = read_sizes(file, config, ("d_in", "d_sae", "d_sae"))
        shapes = {name: tuple(config[size] for size in shape) for name, shape in _THRESHOLDS[architecture].items()}
        thresholds = check_tensors(path, {name: stored.pop(name) for name in shapes if name in stored}, shapes)
        state = assemble(path, sizes, stored, names).state_dict()
        sae = JumpReLUSAE(d_model, n_f).requires_grad_(False)
        sae.load_state_dict(state | {"threshold": next(iter(thresholds.values()), torch.zeros(())).expand(n_f)})
    if flags["rescale_acts_by_decoder_norm"] and architecture not in ("standard", "jumprelu"):  # these do not have it
        lengths = column_lengths(path, sae)
        sae.decoder.weight /= lengths
        sae.encoder.weight *= lengths[:, None]
        sae.latent_bias *= lengths
    if not flags["apply_b_dec_to_input"]:
        sae.latent_bias += sae.encoder.weight @ sae.pre_bias
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
    jumps = isinstance(sae, JumpReLUSAE)
    config = {
        "architecture": "jumprelu" if jumps else "topk",
        "d_in": sae.d_model,
        "d_sae": sae.n_f,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": _SAELENS, **(metadata or {})},
    }
    weights |= {"b_enc": sae.latent_bias, "b_dec": sae.pre_bias}
    if jumps:
        weights["threshold"] = sae.threshold
    else:
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    _write(folder, "cfg.json", config, "sae_weights.safetensors", weights)


def export_sparsify(sae: TopKSAE, folder: str | Path) -> None:
    """Writes the SAE for sparsify, as the folder of one hookpoint.

    Raises ValueError for a JumpReLUSAE, and FileExistsError if another SAE is in the folder.
    """
    if isinstance(sae, JumpReLUSAE):
        raise ValueError("sparsify keeps the k largest activations and has no thresholds: use export_saelens")  # noqa: TRY004
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
