"""What a pipeline is, read from the pipeline itself: the hashes of its weights, its scheduler, its dtype, its names."""

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn, uint8

from sae_lib.cache.complete import find_folder
from sae_lib.models.blocks import denoiser_of, is_flux, model_name

if TYPE_CHECKING:
    import diffusers

_SNAPSHOT = re.compile(r"snapshots/([0-9a-f]{40})")
"""The revision in a path of the Hub's cache."""

_NOT_COMPUTED_WITH = ("transformers_version", "architectures", "dtype")
"""Entries of a configuration that change no number; those that begin with an underscore do not either."""


def pipeline_identity(pipe: "diffusers.DiffusionPipeline") -> dict[str, Any]:
    """What the updates of a pipeline's calls depend on, apart from prompts and settings: equal numbers, equal identity.

    By part the sha256 of weights and configuration; the vocabulary, the scheduler, dtype and resolution. Names do not
    count (`pipeline_origin`), nor does the VAE, which only decodes. SDXL's weights take some seconds.

    Raises ValueError if the model has hooks or adapters, which change numbers and no weights.
    """
    model, part = denoiser_of(pipe), "transformer" if is_flux(pipe) else "unet"
    _refuse_nameless_changes(model, model_name(pipe))
    size = (pipe.default_sample_size if is_flux(pipe) else model.config.sample_size) * pipe.vae_scale_factor
    identity = {
        "weights": {part: weights_hash(getattr(pipe, part)) for part in (part, "text_encoder", "text_encoder_2")},
        "tokenizers": [_tokenizer_hash(tokenizer) for tokenizer in (pipe.tokenizer, pipe.tokenizer_2)],
        "scheduler": {"class": type(pipe.scheduler).__name__, **_settings(pipe.scheduler.config)},
        "dtype": str(model.dtype).removeprefix("torch."),
        "resolution": [size, size],
    }
    if is_flux(pipe):
        return identity
    freeu = [[getattr(block, name, None) for name in ("s1", "s2", "b1", "b2")] for block in model.up_blocks]
    return identity | {"force_zeros_for_empty_prompt": pipe.config.force_zeros_for_empty_prompt, "freeu": freeu}


def pipeline_origin(pipe: "diffusers.DiffusionPipeline") -> dict[str, Any]:
    """Where a pipeline comes from, for readers: its name or folder, the Hub's revision if it has one, its licence."""
    from sae_lib.models.pipelines import HUB_IDS, LICENCES, POCKET_NAMES

    name = pipe.name_or_path or "unnamed"
    licences = {HUB_IDS[model]: LICENCES[model] for model in HUB_IDS} | dict.fromkeys(POCKET_NAMES.values(), "MIT")
    licence = "MIT" if name.startswith("random") else licences.get(name, "that of the model")
    revision = _SNAPSHOT.search(Path(denoiser_of(pipe).config.get("_name_or_path") or "").as_posix())
    return {"model": str(name), "revision": revision and revision[1], "licence": licence}


def source_identity(source: str) -> str:
    """What is behind a path or a name on the Hub: the hash of its files, or the revision that is loaded.

    Hidden files and what a stopped program left half-written do not count, nor does what stands beside the parts of a
    pipeline. Without a connection the revision is that in the Hub's cache on this machine.

    Raises FileNotFoundError for a path where nothing is.
    """
    path = Path(source).expanduser()
    if not path.exists():
        find_folder(source)  # refuses what is no name on the Hub
        return _revision(source)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    names = {file: file.relative_to(path) for file in files}
    index = path / "model_index.json"
    parts = {index.name, *json.loads(index.read_text(encoding="utf-8"))} if index.is_file() else None
    kept = [
        (name.as_posix(), file.stat())
        for file, name in names.items()
        if not any(part.startswith(".") or ".partial-" in part for part in name.parts)
        and (parts is None or name.parts[0] in parts)
    ]
    return _content_hash(path.absolute(), tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in kept))


@functools.lru_cache(maxsize=64)
def _revision(name: str) -> str:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    try:
        return HfApi().model_info(name, timeout=10).sha
    except Exception:  # noqa: BLE001  the client raises its transport's errors, which have nothing in common
        known = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "refs", "main")
        return known.read_text().strip() if known.is_file() else "not on this machine"


@functools.lru_cache(maxsize=64)
def _content_hash(path: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """files: names below the path, sizes and times, of which a changed one is read again."""
    digest = hashlib.sha256()
    for name, size, _ in files:
        digest.update(f"{name} {size} ".encode())
        with (path / name if path.is_dir() else path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def weights_hash(module: nn.Module) -> str:
    """sha256 of a module's configuration and state, whatever its device, compiled or not."""
    module = getattr(module, "_orig_mod", module)
    digest = hashlib.sha256(json.dumps(_settings(module.config), sort_keys=True, default=str).encode())
    for name, tensor in _state(module).items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(uint8).numpy()))
    return digest.hexdigest()


def _refuse_nameless_changes(model: nn.Module, called: str) -> None:
    """Raises ValueError for what changes the model's numbers and stands in none of its weights."""
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(
                f"{called} has hooks ({name or 'on itself'}), whose changes no identity can hold: leave the context "
                "(intervene, inject_prompt, ...) or remove the hooks before vectors are harvested"
            )
        if hasattr(module, "lora_A"):
            raise ValueError(
                f"{called} has adapters that are not merged ({name}), whose scale no identity can hold: call "
                "pipe.fuse_lora() and pipe.unload_lora_weights() before vectors are harvested"
            )


def _state(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors; where accelerate has offloaded some, those that it keeps in their place."""
    state = module.state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        state = get_state_dict_offloaded_model(module)
    return state


def _settings(config: Any) -> dict[str, Any]:
    entries = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {name: value for name, value in entries.items() if not (name.startswith("_") or name in _NOT_COMPUTED_WITH)}


def _tokenizer_hash(tokenizer: Any) -> str:
    """Vocabulary and rules. Truncation and padding do not count: every call of the tokenizer sets them."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps([rules, tokenizer.model_max_length], sort_keys=True).encode()).hexdigest()
