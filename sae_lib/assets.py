"""What a scale works with, in one object: models, blocks, SAEs, prompts and what looks at pictures.

Everything is loaded when it is first asked for.
"""

import functools
import hashlib
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from sae_lib.activations.denoising import CallSettings
from sae_lib.judges.attributes import load_judge
from sae_lib.judges.clip import RETRIEVAL, SCORES, Clip, load_clip
from sae_lib.judges.grounding import DINO, SAM
from sae_lib.judges.perceptual import LPIPS, EncoderDistance, load_perceptual
from sae_lib.models.blocks import grid_of, select_blocks
from sae_lib.models.identity import source_identity
from sae_lib.models.pipelines import HUB_IDS, default_dtype, load_pipeline, silence_progress_bars
from sae_lib.models.prompts import load_pocket_captions, load_prompts
from sae_lib.models.scales import get_scale
from sae_lib.pocket.captions import Caption
from sae_lib.saes.checkpoints import load_saes, load_statistics, rehearsal_saes
from sae_lib.saes.exchange import FLUX_HUB, HUB_FOLDERS
from sae_lib.saes.sizes import Kind
from sae_lib.saes.statistics import FeatureStatistics
from sae_lib.saes.topk import TopKSAE

MODELS = ("Turbo, 1 step", "Turbo, 4 steps", "base")
"""How a picture may be drawn (paper: Fig. 1); base takes the scale's steps and guidance."""

FLUX_MODELS = ("FLUX, 1 step", "FLUX, 4 steps")
"""How FLUX may draw it."""

ARGUMENTS = ("scale", "source", "base_source", "prompt_file", "sae_folder", "clip_source", "blocks", "architecture")
"""The arguments of `Assets`: a notebook's parameters of these names go into it (`Run.assets`)."""


class Assets:
    """What a scale works with. Nothing is loaded before it is asked for, and nothing twice.

    scale: "pocket", "smoke" or "sdxl". source, base_source: at sdxl scale the folder or Hub id of Turbo and of base;
    source "random" or "random/16" rehearses with random weights of both. architecture: "sdxl" for Turbo and base;
    "flux" for FLUX-schnell, whose folder or Hub id is then `source`. prompt_file, sae_folder, clip_source: see
    `load_prompts`, `load_saes` and `load_clip`. blocks: see `select_blocks`.

    At sdxl scale one model is held at a time, so that a small GPU is enough.

    Raises ValueError for an unknown scale or block; each part raises what its loader raises.
    """

    def __init__(
        self,
        scale: str = "pocket",
        source: str = "",
        base_source: str = "",
        prompt_file: str = "",
        sae_folder: str = "",
        clip_source: str = "",
        blocks: str | Iterable[str] = "",
        architecture: str = "sdxl",
    ):
        self.scale, self.source, self.sae_folder, self.architecture = scale, source, sae_folder, architecture
        self.rehearsal = source.startswith("random")
        """Whether the weights are random: true shapes, no science, and the pocket world's judges."""
        self.counts = get_scale(scale, self.rehearsal)
        self.blocks = select_blocks(blocks, scale, architecture)
        """The blocks that are worked with, the most important first."""
        self.prompt_source = "pocket" if self.rehearsal else prompt_file
        self.clip_source = "pocket" if self.rehearsal else clip_source
        self.main = "flux" if architecture == "flux" else "turbo"
        """The pipeline on whose updates the SAEs were trained."""
        self.sources = {self.main: source}
        if architecture == "sdxl":
            self.sources["base"] = source if self.rehearsal else base_source
        self.lock = threading.RLock()
        """Held while something is loaded or a model runs: hooks and the scheduler belong to one call at a time."""
        self._pipes: dict[str, DiffusionPipeline] = {}
        self._loaded: dict[str, tuple[dict[str, TopKSAE], dict[str, FeatureStatistics]]] = {}
        self._given = ""

    @property
    def known(self) -> bool:
        """Whether a judge knows what is true of a picture: in the pocket world."""
        return self.scale != "sdxl"

    @property
    def untrained(self) -> bool:
        """Whether the SAEs are a rehearsal's, which were never trained."""
        return self.rehearsal and not self.sae_folder

    @property
    def identity(self) -> dict[str, Any]:
        """What a result of these assets depends on besides code and shipped weights; for the inputs of `cached`."""
        names = ("scale", "sources", "prompt_source", "sae_folder", "clip_source")
        given = {name: getattr(self, name) for name in names}
        given |= {"blocks": list(self.blocks), "contents": {name: source_identity(name) for name in self._from}}
        dtype = default_dtype(self.scale, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        given |= {"saes": self._given} if self._given else {}
        return given | {"dtype": str(dtype).removeprefix("torch.")}

    @property
    def _from(self) -> list[str]:
        """The folders, files and names on the Hub that something is loaded from."""
        names = [self.sae_folder] if Path(self.sae_folder).expanduser().exists() else []
        if self.scale == "sdxl" and not self.rehearsal:
            names += [source or HUB_IDS[name] for name, source in self.sources.items()]
            names += [self.clip_source] if self.clip_source else [RETRIEVAL, SCORES]
            names += [] if self.sae_folder else HUB_FOLDERS if self.architecture == "sdxl" else [FLUX_HUB]
            names += [DINO, SAM]
            names += [self.prompt_source] if Path(self.prompt_source).expanduser().is_file() else []
        return [name for name in names if name]

    @property
    def models(self) -> tuple[str, ...]:
        """How these assets' models may draw a picture."""
        return FLUX_MODELS if self.architecture == "flux" else MODELS

    @property
    def one_step(self) -> str:
        """The first of `models`, whose updates the SAEs were trained on."""
        return self.models[0]

    def with_blocks(self, blocks: str | Iterable[str]) -> "Assets":
        """These assets with other blocks; models that are loaded are shared."""
        sources = (self.source, self.sources.get("base", ""), self.prompt_source, self.sae_folder, self.clip_source)
        other = Assets(self.scale, *sources, blocks, self.architecture)
        other._pipes, other.lock = self._pipes, self.lock
        return other

    def with_saes(self, saes: Mapping[str, TopKSAE], statistics: Mapping[str, FeatureStatistics]) -> "Assets":
        """These assets with other panel SAEs by block, such as a user's; `identity` holds a hash of their numbers."""
        other, digest = self.with_blocks(saes), hashlib.sha256()
        for block, sae in saes.items():
            tensors = {**sae.state_dict(), **statistics[block]._asdict()}
            for name, tensor in sorted(tensors.items()):
                digest.update(f"{block} {type(sae).__name__} {name} {list(tensor.shape)}".encode())
                digest.update(tensor.numpy(force=True).tobytes())
        other._loaded, other._given = {"panel": (dict(saes), dict(statistics))}, digest.hexdigest()
        return other

    def pipe(self, name: str = "") -> DiffusionPipeline:
        """The pipeline "turbo" or "base", or "flux"; by default `main`."""
        name = name or self.main
        with self.lock:
            if name not in self._pipes:
                if self.scale == "sdxl" and not self.rehearsal:
                    self._pipes.clear()
                silence_progress_bars()
                self._pipes[name] = load_pipeline(name, self.scale, self.sources.get(name) or None)
            return self._pipes[name]

    def grid(self, block: str, name: str = "") -> int:
        """Cells along each side of a block's maps."""
        return grid_of(self.pipe(name), block)

    def call(self, model: str, seed: int = 0, batch_size: int | None = None) -> tuple[str, CallSettings]:
        """The name of the pipeline that draws as one of `models` does, and how it is called.

        batch_size: prompts per call, by default the scale's number. Raises ValueError for another word.
        """
        if model not in self.models:
            raise ValueError(f"unknown model {model!r}; choose one of {', '.join(map(repr, self.models))}")
        base = (self.counts.base_steps, self.counts.base_guidance)
        steps, guidance = ((1, 0.0), (4, 0.0), base)[self.models.index(model)]
        batch = batch_size or (self.counts.harvest_batch if steps == 1 else self.counts.transfer_batch)
        return "base" if model == MODELS[2] else self.main, CallSettings(steps, guidance, seed, batch)

    def prompts(self, count: int, split: str = "held-out") -> list[str]:
        """Prompts for measuring ("held-out") or training ("train")."""
        return load_prompts(self.scale, count, split, self.prompt_source)

    def captions(self, count: int, split: str = "held-out") -> list[Caption]:
        """What the prompts of the pocket world state; none where no judge knows what is true."""
        return load_pocket_captions(count, split) if self.known else []

    def saes(self, kind: Kind = "panel") -> dict[str, TopKSAE]:
        """SAEs by block, on the device of Turbo or FLUX; a rehearsal's are untrained unless it has a folder of SAEs."""
        return self._checkpoints(kind)[0]

    def statistics(self, kind: Kind = "panel") -> dict[str, FeatureStatistics]:
        """The statistics of the SAEs' features, by block."""
        return self._checkpoints(kind)[1]

    def _checkpoints(self, kind: Kind) -> tuple[dict[str, TopKSAE], dict[str, FeatureStatistics]]:
        with self.lock:
            if kind not in self._loaded:
                asked = (kind, self.scale, self.sae_folder)
                if self.untrained:
                    self._loaded[kind] = rehearsal_saes(self.pipe(), self.blocks, kind)
                else:
                    saes = load_saes(*asked, device=self.pipe()._execution_device, blocks=self.blocks)
                    self._loaded[kind] = saes, load_statistics(*asked, blocks=self.blocks)
            return self._loaded[kind]

    @functools.cached_property
    def judge(self) -> nn.Module:
        """The judge of what is true of a picture. Raises ValueError at sdxl scale, where no judge knows."""
        return load_judge(self.scale, self.pipe()._execution_device)

    @functools.cached_property
    def clip(self) -> Clip:
        """The CLIP that compares pictures with words."""
        return load_clip(self.scale, self.clip_source, self.pipe()._execution_device)

    @functools.cached_property
    def distance(self) -> LPIPS | EncoderDistance:
        """The perceptual distance of the scale."""
        return load_perceptual(self.scale, self.pipe(), self.rehearsal)
