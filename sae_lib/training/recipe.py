"""Which SAEs are trained, and on what: shared by the notebooks, the shell and the SAEs that are shipped."""

import functools
import itertools
import json
import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.processes import alone
from sae_lib.activations.shards import DTYPES, ShardStream, write_shards
from sae_lib.activations.stream import BUFFER, TrainingStream, positions_per_step
from sae_lib.cache.identity import differences
from sae_lib.models.blocks import select_blocks, width_of
from sae_lib.models.noise import NOISE_RULES
from sae_lib.models.pipelines import HUB_IDS, load_pipeline
from sae_lib.models.prompts import LAION, load_prompts
from sae_lib.models.rehearsal import width_divisor
from sae_lib.models.scales import get_scale
from sae_lib.saes.sizes import KINDS, sae_size
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.config import SAEConfig, refuse_wrong_types
from sae_lib.training.loop import train_saes


@dataclass(frozen=True)
class TrainingRun:
    """Which SAEs are trained, and on which vectors of which model.

    Raises ValueError for values of another type, for values that no run can have, and for a value that this run would
    not use; `read` also for unknown or repeated fields and damaged files.
    """

    scale: str = "pocket"
    """"smoke", "pocket" or "sdxl": it sets the models, the SAEs' values, and the counts left open below."""
    model: str = "turbo"
    """"turbo", "base" or "flux"."""
    source: str = ""
    """sdxl: folder or Hub id of the model; "random" or "random/16" rehearses with random weights."""
    dtype: str = ""
    """The model's dtype: "float32", "float16" or "bfloat16"; by default float16 for sdxl on a GPU, else float32."""
    prompts: int | None = None
    """Number of training prompts; by default the scale's."""
    prompt_source: str = ""
    """sdxl: a file of prompts; by default the authors' data set."""
    steps: int = 1
    """Denoising steps per prompt."""
    guidance_scale: float = 0.0
    """Guidance scale; above 1 the conditional half is used, 0 and 1 are without guidance."""
    noise: str = "prompt"
    """Which generator a prompt's noise comes from: "prompt" or "batch of 50"."""
    seed: int = 0
    """Seed of the noise, of the vectors' order and, where `sae_seeds` is empty, of the SAEs' first weights."""
    batch_size: int | None = None
    """Prompts per pipeline call; by default the scale's number."""
    blocks: str | tuple[str, ...] = ""
    """Blocks whose updates are harvested: "chosen", "paper" or codes (`select_blocks`), of any grid and width."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of SAE per block; `sae_size` fits them to the block's width. Refused beside `ks`."""
    ks: tuple[int, ...] = ()
    """Activations kept per vector, in place of `kinds`."""
    expansion_factors: tuple[int | float, ...] = (4,)
    """n_f / d_model; refused without `ks`."""
    sae_seeds: tuple[int, ...] = ()
    """Seeds of the SAEs' first weights; by default `seed`."""
    vectors: int | None = None
    """At most this many vectors of each block; sets the number of prompts where it is smaller."""
    passes: int | None = None
    """How often each vector is seen; by default as often as the scale says."""
    buffer: int = BUFFER
    """Vectors of a block that are mixed at a time."""

    def __post_init__(self):
        get_scale(self.scale)
        object.__setattr__(self, "blocks", select_blocks(self.blocks, self.scale, self.architecture))
        refuse_wrong_types(TrainingRun, vars(self))
        for name, valid in (("model", tuple(HUB_IDS)), ("noise", NOISE_RULES), ("dtype", ("", *DTYPES))):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(map(repr, valid))}")
        for name in ("prompts", "steps", "batch_size", "vectors", "passes", "buffer"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted at least 1")
        for name, wrong, wanted in (
            ("guidance_scale", self.guidance_scale < 1 and self.guidance_scale != 0, "0 for no guidance, or 1 or more"),
            ("seed", self.seed < 0, "at least 0"),
            ("sae_seeds", min(self.sae_seeds, default=0) < 0, "each at least 0"),
            ("ks", min(self.ks, default=1) < 1, "each at least 1"),
            ("expansion_factors", min(self.expansion_factors, default=0) <= 0, "one or more, each above 0"),
            ("kinds", not set(self.kinds) <= set(KINDS) or not self.kinds, f"one or more of {', '.join(KINDS)}"),
        ):
            if wrong:
                raise ValueError(f"{name} is {getattr(self, name)!r}; wanted {wanted}")
        if self.rehearsal:
            width_divisor(self.source)
        self._refuse_unused()

    def _refuse_unused(self) -> None:
        """A value that changes nothing would stand in the SAEs' records as if it had."""
        shipped = f"the {self.scale} scale has its own" if self.scale != "sdxl" else ""
        unused = {"source": shipped, "prompt_source": shipped}
        unused |= {"kinds": "ks are given"} if self.ks else {"expansion_factors": "no ks are given"}
        for field in fields(self):
            value = getattr(self, field.name)
            if unused.get(field.name) and value != field.default:
                raise ValueError(f"{field.name} is {value!r} and is not used, since {unused[field.name]}: leave it out")

    @classmethod
    def read(cls, path: Path) -> "TrainingRun":
        """Reads a run from a JSON file with any of the fields."""
        if not path.is_file():
            raise FileNotFoundError(f"no configuration {path}: write a JSON file, {{}} for the pocket scale's run")
        try:
            given = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_refuse_repeated)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no JSON ({error})") from error
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)) if isinstance(given, dict) else [reprlib.repr(given)]:
            names = ", ".join(name if name.isidentifier() else reprlib.repr(name) for name in unknown)
            raise ValueError(f"{path}: unknown field {names}; valid: {', '.join(known)}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        refuse_wrong_types(cls, values)
        return cls(**{name: float(value) if name == "guidance_scale" else value for name, value in values.items()})

    @property
    def architecture(self) -> str:
        """ "flux" or "sdxl"."""
        return "flux" if self.model == "flux" else "sdxl"

    @property
    def rehearsal(self) -> bool:
        """Whether the model's weights are random."""
        return self.source.startswith("random")

    @property
    def settings(self) -> CallSettings:
        """How the pipeline is called."""
        batch = self.batch_size or get_scale(self.scale, self.rehearsal).harvest_batch
        return CallSettings(self.steps, self.guidance_scale, self.seed, batch, self.noise)

    @property
    def all_passes(self) -> int:
        """How often each vector is seen, by `passes` or by the scale."""
        return self.passes or get_scale(self.scale, self.rehearsal).passes

    def load_pipeline(self, device: str | torch.device | None = None) -> DiffusionPipeline:
        """The pipeline that `model` and `source` name, in `dtype`."""
        return load_pipeline(self.model, self.scale, self.source or None, device, DTYPES.get(self.dtype))

    def load_prompts(self, pipe: DiffusionPipeline) -> list[str]:
        """As many training prompts as the run needs."""
        counts = get_scale(self.scale, self.rehearsal)
        per_prompt = self.steps * min(positions_per_step(pipe, block) for block in self.blocks)
        enough = math.inf if self.vectors is None else math.ceil(self.vectors / per_prompt)
        wanted = self.prompts or (counts.train_prompts if self.vectors is None else enough)
        source = self.prompt_source or ("pocket" if self.rehearsal else "")
        return load_prompts_once(self.scale, min(wanted, enough), "train", source)

    def stream(self, pipe: DiffusionPipeline) -> TrainingStream:
        """The update vectors that the SAEs are trained on."""
        source = self.prompt_source or ("the pocket world" if self.scale != "sdxl" or self.rehearsal else LAION)
        mixing = {name: getattr(self, name) for name in ("vectors", "seed", "buffer")} | {"prompt_source": source}
        return TrainingStream(
            pipe, self.load_prompts(pipe), self.blocks, self.settings, passes=self.all_passes, **mixing
        )

    def configs(self, pipe: DiffusionPipeline) -> list[SAEConfig]:
        """The SAEs: `SAEConfig.paper` at sdxl scale, `SAEConfig.pocket` otherwise.

        A rehearsal has the paper's values, with the batch so small that its few vectors make some steps.
        """
        prompts, configs = len(self.load_prompts(pipe)), []
        for number in range(len(self._sizes(0)) if self.ks else len(self.kinds)):
            for seed, block in itertools.product(self.sae_seeds or (self.seed,), self.blocks):
                d_model = width_of(pipe, block)
                vectors = prompts * self.steps * positions_per_step(pipe, block)
                vectors = min(vectors, self.vectors or math.inf) * self.all_passes
                k, n_f = self._sizes(d_model)[number]
                make, changes = self._recipe(block, vectors)
                configs.append(make(block, k, n_f=n_f, seed=seed, d_model=d_model, auxk=min(256, n_f // 2), **changes))
        return list(dict.fromkeys(configs))

    def _sizes(self, d_model: int) -> list[tuple[int, int]]:
        """k and n_f of each SAE of a block of that width."""
        if self.ks:
            return [(k, round(factor * d_model)) for k, factor in itertools.product(self.ks, self.expansion_factors)]
        return [sae_size(kind, d_model, self.scale, self.architecture) for kind in self.kinds]

    def _recipe(self, block: str, vectors: int) -> tuple[Callable[..., SAEConfig], dict[str, Any]]:
        """The constructor whose values an SAE gets, and the values that depend on the number of vectors."""
        if self.scale != "sdxl":
            return SAEConfig.pocket, {"steps": vectors // SAEConfig.pocket(block).batch_size}
        if self.rehearsal and vectors < 100 * SAEConfig.paper(block).batch_size:
            batch = max(1, vectors // 16)
            return SAEConfig.paper, {"batch_size": batch, "dead_vectors_threshold": 2 * batch}
        return SAEConfig.paper, {}

    def harvest(self, folder: Path, dtype: str = "float16") -> str:
        """Writes the vectors into a store; gives one line for the user. Raises what `configs` and `write_shards` do."""
        with alone(folder):
            pipe = self.load_pipeline()
            self.configs(pipe)  # what no SAE can be trained on is not stored
            stream = self.stream(pipe)
            write_shards(stream, folder, dtype)
        what = f"{stream.portions} shards of {len(self.blocks)} blocks, {len(stream.prompts):,} prompts"
        return f"{what}, {dtype}, in {folder}"

    def train(
        self,
        folder: Path,
        pipe: DiffusionPipeline | None = None,
        stream: TrainingStream | ShardStream | None = None,
    ) -> dict[SAEConfig, TopKSAE]:
        """Trains the SAEs into `folder`, on the model's own vectors or on a stream that holds them, such as a store's.

        Raises ValueError for a stream of other vectors than this run's, and what `train_saes` raises.
        """
        with alone(folder):
            pipe = pipe or self.load_pipeline()
            own = self.stream(pipe)
            if stream is not None:
                there, asked = stream.description, own.description
                blocks = {block: there["blocks"].get(block) for block in self.blocks}  # of those that a store holds
                if different := differences({name: ({**there, "blocks": blocks})[name] for name in asked}, asked):
                    raise ValueError(
                        f"the stream or store holds other vectors than this run asks for: {different}; "
                        "change the configuration, or harvest again"
                    )
            return train_saes(own if stream is None else stream, self.configs(pipe), folder, pipe._execution_device)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of whose repeated fields Python would silently take the last."""
    names = [name for name, _ in pairs]
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"{reprlib.repr(repeated[0])} stands in it twice")
    return dict(pairs)


load_prompts_once = functools.cache(load_prompts)  # 1.5 million of them are streamed once
