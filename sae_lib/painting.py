"""SAEPaint without its widget: an edit is data, a painter draws it and writes the lines of code that draw the same."""

import logging
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae_lib.checkpoints import load_saes, load_statistics
from sae_lib.denoising import CallSettings
from sae_lib.features import FeatureId, strength_unit
from sae_lib.interventions import Intervention, add_features, during, intervene
from sae_lib.pictures import draw_pictures
from sae_lib.pipelines import load_pipeline
from sae_lib.recipes import rehearsal_saes
from sae_lib.runs import silence_progress_bars
from sae_lib.sae import TopKSAE
from sae_lib.scales import get_scale
from sae_lib.statistics import FeatureStatistics
from sae_lib.steps import follow_steps
from sae_lib.updates import capture_updates, to_maps, to_vectors

MODELS = ("Turbo, 1 step", "Turbo, 4 steps", "base")
"""What an edit may be drawn with (paper: Fig. 1); base takes the scale's steps and guidance."""

K = 10
"""Of the SAEs that are painted with, the paper's for looking at features."""

_KEPT_PICTURES = 32
OnStep = Callable[[int, int], None]
"""Told before each denoising step how many are done, and of how many. What it raises ends the drawing."""


@dataclass(frozen=True)
class Layer:
    """One feature, turned on."""

    feature: FeatureId
    strength: float = 10.0
    """In multiples of the feature's mean non-zero activation (authors' default for painting)."""
    mask: tuple[tuple[float, ...], ...] | None = None
    """Rows of the block's grid, each cell 0 to 1; None for everywhere."""
    steps: tuple[int, int] | None = None
    """The first step at which it is on and the first at which it no longer is; None for all. Step 0 is the noisiest."""

    def __post_init__(self):
        if not math.isfinite(self.strength):
            raise ValueError(f"{self.feature}: strength {self.strength}; wanted a finite number")
        if self.mask is None:
            return
        if not self.mask or {len(row) for row in self.mask} != {len(self.mask[0])} or not self.mask[0]:
            raise ValueError(f"{self.feature}: the mask's rows are of different lengths; wanted the block's grid")
        if not all(0 <= value <= 1 for row in self.mask for value in row):
            raise ValueError(f"{self.feature}: the mask holds a value that is not between 0 and 1")

    @property
    def mask_tensor(self) -> Float[Tensor, "height width"] | None:
        return None if self.mask is None else torch.tensor(self.mask)

    def on_grid(self, side: int) -> "Layer":
        """With the mask of another grid's nearest cells: base's grid is finer than Turbo's at sdxl scale."""
        if self.mask is None or (len(self.mask), len(self.mask[0])) == (side, side):
            return self
        fitted = F.interpolate(self.mask_tensor[None, None], (side, side))[0, 0]
        return replace(self, mask=tuple(map(tuple, fitted.tolist())))


@dataclass(frozen=True)
class Edit:
    """Everything that a painted picture depends on, besides the models."""

    prompt: str
    seed: int = 0
    model: str = MODELS[0]
    layers: tuple[Layer, ...] = ()
    """Added one after the other; none leaves the picture as it is."""

    def __post_init__(self):
        if self.model not in MODELS:
            raise ValueError(f"unknown model {self.model!r}; choose one of {', '.join(map(repr, MODELS))}")

    def to_json(self) -> dict[str, Any]:
        """As plain lists and dictionaries; `from_json` reads it."""
        layers = [
            {"feature": str(each.feature), "strength": each.strength, "mask": each.mask, "steps": each.steps}
            for each in self.layers
        ]
        return {"prompt": self.prompt, "seed": self.seed, "model": self.model, "layers": layers}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Edit":
        """Reads `to_json`'s. Raises ValueError for a field that is missing or of another kind, or a value that is refused."""
        try:
            layers = tuple(
                Layer(
                    FeatureId.parse(each["feature"]),
                    float(each["strength"]),
                    None if each["mask"] is None else tuple(tuple(map(float, row)) for row in each["mask"]),
                    None if each["steps"] is None else tuple(map(int, each["steps"])),
                )
                for each in told["layers"]
            )
            return cls(str(told["prompt"]), int(told["seed"]), str(told["model"]), layers)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no edit can be read from this: {error!r}") from error


class Drawn(NamedTuple):
    """An edit's pictures, values in [0, 1]."""

    before: Float[Tensor, "3 height width"]
    after: Float[Tensor, "3 height width"]
    notes: tuple[str, ...]
    """Sentences about what was not as asked: tokens that were cut, words that the model never learnt."""


class Painter:
    """Draws edits with the models and SAEs of a scale, one at a time however many threads ask.

    Nothing is loaded before it is needed; at sdxl scale one model is held at a time. `source`, `base_source` and
    `sae_folder` are those of the notebooks; source "random" or "random/16" rehearses with untrained SAEs.

    Raises ValueError for an unknown scale; later, from what needs it, whatever loading a model or SAE raises.
    """

    def __init__(self, scale: str = "pocket", source: str = "", base_source: str = "", sae_folder: str = ""):
        self.scale, self.sae_folder = scale, sae_folder
        self.rehearsal = source.startswith("random")
        self.counts = get_scale(scale, self.rehearsal)
        self.lock = threading.RLock()
        """Held while a model runs: hooks and the scheduler belong to one call at a time."""
        self.sources = {"turbo": source, "base": source if self.rehearsal else base_source}
        self._pipes: dict[str, Any] = {}
        self._pictures: OrderedDict[Edit, Tensor] = OrderedDict()
        self._asked, self._changed = 0, threading.Condition()

    def call(self, model: str, seed: int = 0, batch_size: int = 1) -> tuple[str, CallSettings]:
        """Which pipeline a model setting is, and how it is called."""
        base = (self.counts.base_steps, self.counts.base_guidance)
        steps, guidance = {MODELS[0]: (1, 0.0), MODELS[1]: (4, 0.0), MODELS[2]: base}[model]
        return "base" if model == MODELS[2] else "turbo", CallSettings(steps, guidance, seed, batch_size)

    def pipe(self, name: str):
        """The pipeline "turbo" or "base"."""
        with self.lock:
            if name not in self._pipes:
                if self.scale == "sdxl" and not self.rehearsal:
                    self._pipes.clear()
                silence_progress_bars()
                self._pipes[name] = load_pipeline(name, self.scale, self.sources[name] or None)
            return self._pipes[name]

    def grid(self, model: str) -> int:
        """Cells along each side of the four blocks' grid."""
        return self.pipe(self.call(model)[0]).unet.config.sample_size // 4

    @cached_property
    def _checkpoints(self) -> tuple[dict[str, TopKSAE], dict[str, FeatureStatistics]]:
        with self.lock:
            pipe = self.pipe("turbo")
            if self.rehearsal and not self.sae_folder:
                return rehearsal_saes(pipe)
            told = (K, self.scale, self.sae_folder)
            return load_saes(*told, device=pipe.device), load_statistics(*told)

    @property
    def saes(self) -> dict[str, TopKSAE]:
        """By block."""
        return self._checkpoints[0]

    @property
    def statistics(self) -> dict[str, FeatureStatistics]:
        """By block."""
        return self._checkpoints[1]

    def amount(self, feature: FeatureId, strength: float) -> float:
        """A strength in units of activation. Raises ValueError for a feature that is not there, or never fired."""
        if feature.block not in self.saes:
            raise ValueError(f"{feature}: no SAE of block {feature.block!r}; there are {', '.join(self.saes)}")
        return strength * strength_unit(self.statistics[feature.block], feature.feature)

    def draw(self, edit: Edit, on_step: OnStep | None = None) -> Drawn:
        """The picture without the layers and with them. The last pictures are kept: undoing is exact and costs nothing.

        A drawing that ends early, by an exception of `on_step` or another, leaves no trace.

        Raises ValueError for a feature that is not there, a mask of another grid, or steps that the model has not;
        MemoryError if the GPU's is too small.
        """
        wanted = [replace(edit, layers=()), edit]
        with self._ahead(), self.lock, self._guarded():
            pictures = {each: self._pictures.get(each) for each in wanted}
            missing = [each for each, picture in pictures.items() if picture is None]
            for done, each in enumerate(missing):
                pictures[each] = self._draw(each, on_step, done, len(missing))
            self._keep(pictures)
            return Drawn(*(pictures[each] for each in wanted), self.notes(edit))

    @contextmanager
    def _ahead(self) -> Iterator[None]:
        with self._changed:
            self._asked += 1
        try:
            yield
        finally:
            with self._changed:
                self._asked -= 1
                self._changed.notify_all()

    def give_way(self) -> None:
        """Waits until no edit is being drawn or wants to be: what nobody's stroke waits for, a card say, asks this first."""
        with self._changed:
            self._changed.wait_for(lambda: not self._asked)

    def _draw(self, edit: Edit, on_step: OnStep | None, done: int, count: int) -> Float[Tensor, "3 height width"]:
        name, settings = self.call(edit.model, edit.seed)
        pipe = self.pipe(name)
        with ExitStack() as stack:
            if on_step:
                total = count * settings.steps
                tell = lambda step: on_step(done * settings.steps + step.index, total)
                stack.enter_context(follow_steps(pipe, tell))
            for layer in edit.layers:
                stack.enter_context(intervene(pipe, {layer.feature.block: self._intervention(layer)}))
            return draw_pictures(pipe, [edit.prompt], settings)[0]

    def _intervention(self, layer: Layer) -> Intervention:
        amount = self.amount(layer.feature, layer.strength)
        fn = add_features(self.saes[layer.feature.block], layer.feature.feature, amount, layer.mask_tensor)
        return during(fn, *layer.steps) if layer.steps else fn

    def _keep(self, pictures: Mapping[Edit, Tensor]) -> None:
        """As the newest; the oldest go."""
        for edit, picture in pictures.items():
            self._pictures.pop(edit, None)
            self._pictures[edit] = picture
        while len(self._pictures) > _KEPT_PICTURES:
            self._pictures.popitem(last=False)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """A GPU out of memory as one sentence; the libraries' own words on long prompts unsaid, `notes` has them."""
        loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryError(
                "the GPU ran out of memory while drawing: close what else uses it, or choose Turbo in place of base"
            ) from error
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

    def notes(self, edit: Edit) -> tuple[str, ...]:
        """What the model will not read of the prompt."""
        tokenizer, found = self.pipe(self.call(edit.model)[0]).tokenizer, []
        room = tokenizer.model_max_length - 2  # less the two that begin and end every prompt
        tokens = len(tokenizer(edit.prompt, add_special_tokens=False, verbose=False).input_ids)
        if tokens > room:
            found.append(
                f"The prompt has {tokens:,} tokens and the model reads {room}: the last {tokens - room:,} were cut."
            )
        if self.scale != "sdxl":
            words = dict.fromkeys(re.findall(r"\w+|[^\w\s]", edit.prompt.lower()))
            strange = [word for word in words if len(tokenizer.tokenize(word)) != 1 or not word.isascii()]
            if strange:
                shown = ", ".join(word[:20] for word in strange[:4])
                more = f" and {len(strange) - 4} more" if len(strange) > 4 else ""
                found.append(f"The pocket model never learnt these words: {shown}{more}.")
        return tuple(found)

    def read(self, edit: Edit) -> dict[str, Float[Tensor, "n_f height width"]]:
        """The features' activations in the edit's picture without its layers, by block; the mean over the steps."""
        name, settings = self.call(edit.model, edit.seed)
        with self.lock, self._guarded(), capture_updates(self.pipe(name), self.saes) as updates:
            draw_pictures(self.pipe(name), [edit.prompt], settings)
            found = {}
            for block, sae in self.saes.items():
                update = updates[block][:, 0].to(sae.pre_bias)
                found[block] = to_maps(sae.encode(to_vectors(update)), *update.shape[-2:]).mean(0).cpu()
            return found

    def code(self, edit: Edit) -> str:
        """Lines of Python that draw the edit's picture bit for bit, on the same machine."""
        name, settings = self.call(edit.model, edit.seed)
        source = f", {self.sources[name]!r}" if self.sources[name] else ""
        lines = [f"pipe = load_pipeline({name!r}, {self.scale!r}{source})"]
        if edit.layers and self.rehearsal and not self.sae_folder:
            lines.append("saes, statistics = rehearsal_saes(pipe)")
        elif edit.layers:
            told = f"{K}, {self.scale!r}" + (f", {self.sae_folder!r}" if self.sae_folder else "")
            lines += [f"saes = load_saes({told}, device=pipe.device)", f"statistics = load_statistics({told})"]
        for number, layer in enumerate(edit.layers):
            lines += _code_of(layer, number)
        indent = ""
        if edit.layers:
            entered = [f"intervene(pipe, {{{each.feature.block!r}: layer_{i}}})" for i, each in enumerate(edit.layers)]
            lines.append(f"with {', '.join(entered)}:")
            indent = "    "
        call = f"CallSettings({settings.steps}, {settings.guidance_scale}, seed={settings.seed})"
        lines.append(f"{indent}drawn = draw_pictures(pipe, [{edit.prompt!r}], {call})")
        text = "\n".join([*lines, "picture = as_image(drawn[0])", ""])
        names = ", ".join(name for name in _NAMES if f"{name}(" in text)
        return ("import torch\n\n" if "torch." in text else "") + f"from sae_lib import {names}\n\n{text}"


_NAMES = ("CallSettings", "add_features", "as_image", "draw_pictures", "during", "intervene", "load_pipeline")
_NAMES += ("load_saes", "load_statistics", "rehearsal_saes", "strength_unit")


def _code_of(layer: Layer, number: int) -> list[str]:
    (block, feature), lines, mask = layer.feature, [], ""
    if layer.mask is not None:
        mask, cells = f", mask_{number}", layer.mask_tensor
        rows, columns = (each.tolist() for each in cells.nonzero().T)
        lines.append(f"mask_{number} = torch.zeros({cells.shape[0]}, {cells.shape[1]})")
        values = [layer.mask[row][column] for row, column in zip(rows, columns, strict=True)]
        if values:
            value = "1" if set(values) == {1.0} else f"torch.tensor({values})"
            lines.append(f"mask_{number}[{rows}, {columns}] = {value}")
    amount = f"{layer.strength!r} * strength_unit(statistics[{block!r}], {feature})"
    lines.append(f"layer_{number} = add_features(saes[{block!r}], {feature}, {amount}{mask})")
    if layer.steps:
        lines.append(f"layer_{number} = during(layer_{number}, {layer.steps[0]}, {layer.steps[1]})")
    return lines
