"""SAEPaint without its widget: a painter draws edits, and writes the lines of code that draw the same pictures."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from threading import Condition
from typing import NamedTuple

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTokenizer

from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.recording import Recording, record, replay
from sae_lib.activations.steps import follow_steps
from sae_lib.activations.updates import capture_updates, to_maps, to_vectors
from sae_lib.assets import MODELS, Assets
from sae_lib.features.feature import FeatureId, strength_unit
from sae_lib.features.interventions import Intervention, add_features, during, intervene
from sae_lib.models.blocks import is_flux, select_blocks
from sae_lib.paint.edits import Edit, Layer
from sae_lib.pocket.captions import unlearnt_words

_KEPT_PICTURES = 32
OnStep = Callable[[int, int], None]
"""Called before each denoising step with the number of steps done and of all steps; an exception ends the drawing."""


class Drawn(NamedTuple):
    """An edit's pictures, values in [0, 1]."""

    before: Float[Tensor, "3 height width"]
    after: Float[Tensor, "3 height width"]
    notes: tuple[str, ...]
    """Sentences about what the model did not read: tokens that were cut, words that it never learnt."""


class Painter:
    """Draws edits with some assets, one at a time, however many threads ask for them.

    Models and SAEs are loaded when they are first needed, and the methods that need them raise what loading raises.
    """

    def __init__(self, assets: Assets):
        self.assets = assets
        self._pictures: OrderedDict[Edit, Tensor] = OrderedDict()
        self._recorded: dict[str, tuple[Edit, Recording]] = {}  # by model, the last picture without layers
        self._asked, self._changed = 0, Condition()

    def grids(self, model: str) -> dict[str, int]:
        """By block, the cells along each side of its grid in one of the models."""
        name, _ = self.assets.call(model)
        return {block: self.assets.grid(block, name) for block in self.assets.blocks}

    def fitted(self, edit: Edit) -> Edit:
        """The edit with each mask on the grid of its feature's block."""
        grids = self.grids(edit.model)
        layers = tuple(layer.on_grid(grids[self._known(layer.feature).block]) for layer in edit.layers)
        return replace(edit, layers=layers)

    def amount(self, feature: FeatureId, strength: float) -> float:
        """The strength in units of activation. Raises ValueError for a feature that is not there or never fired."""
        return strength * strength_unit(self.assets.statistics()[self._known(feature).block], feature.feature)

    def _known(self, feature: FeatureId) -> FeatureId:
        if feature.block not in self.assets.blocks:
            blocks = ", ".join(self.assets.blocks)
            raise ValueError(f"{feature}: no SAE of block {feature.block!r} is loaded; there are {blocks}")
        return feature

    def draw(self, edit: Edit, on_step: OnStep | None = None) -> Drawn:
        """The picture without the layers and with them. The last pictures are kept: undoing is exact and costs nothing.

        A drawing that an exception ends, such as one of `on_step`, leaves no trace.

        Raises ValueError for a feature that is not there, a mask of another grid, or steps that the model has not;
        MemoryError if the GPU's memory is too small.
        """
        wanted = [replace(edit, layers=()), edit]
        with self._ahead(), self.assets.lock, self._guarded():
            pictures = {one: self._pictures.get(one) for one in wanted}
            missing = [one for one, picture in pictures.items() if picture is None]
            for done, one in enumerate(missing):
                pictures[one] = self._draw(one, on_step, done, len(missing))
            self._keep(pictures)
            return Drawn(*(pictures[one] for one in wanted), self.notes(edit))

    def keeps(self, edit: Edit) -> bool:
        """Whether an edit's picture is one of the last ones, so that drawing it costs nothing."""
        return edit in self._pictures

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
        """Waits until no edit is being drawn or waits to be drawn; called before what is less
        urgent, such as a card."""
        with self._changed:
            self._changed.wait_for(lambda: not self._asked)

    def _draw(self, edit: Edit, on_step: OnStep | None, done: int, count: int) -> Float[Tensor, "3 height width"]:
        name, settings = self.assets.call(edit.model, edit.seed, 1)
        if edit.layers:
            self.assets.saes()  # before the pipeline: where one model is held at a time, they ask for its own
        pipe = self.assets.pipe(name)
        with ExitStack() as stack:
            if on_step:
                total = count * settings.steps
                tell = lambda step: on_step(done * settings.steps + step.index, total)
                stack.enter_context(follow_steps(pipe, tell))
            for layer in edit.layers:
                stack.enter_context(intervene(pipe, {layer.feature.block: self._intervention(layer, name)}))
            recording = stack.enter_context(self._replayed(edit, pipe))
            picture = draw_pictures(pipe, [edit.prompt], settings)[0]
        if recording:
            self._recorded[edit.model] = edit, recording
        return picture

    def _replayed(self, edit: Edit, pipe: DiffusionPipeline) -> AbstractContextManager[Recording | None]:
        """Records a picture without layers, and starts a stroke on a recorded picture where it changes something.

        Not in the base model, whose many guided steps would take gigabytes at sdxl scale.
        """
        plain = replace(edit, layers=())
        if edit.model == MODELS[2]:
            return nullcontext()
        if edit == plain:
            return record(pipe)
        recorded, recording = self._recorded.get(edit.model, (None, None))
        if recorded == plain:
            first = min(layer.steps[0] if layer.steps else 0 for layer in edit.layers)
            return replay(pipe, recording, [layer.feature.block for layer in edit.layers], first)
        return nullcontext()

    def _intervention(self, layer: Layer, name: str) -> Intervention:
        (block, number), amount = layer.feature, self.amount(layer.feature, layer.strength)
        side = self.assets.grid(block, name)
        if layer.mask is not None and (len(layer.mask), len(layer.mask[0])) != (side, side):
            raise ValueError(
                f"{layer.feature}: its mask has {len(layer.mask)} x {len(layer.mask[0])} cells and the grid of {block} "
                f"has {side} x {side}; `Layer.on_grid({side})` brings it there"
            )
        fn = add_features(self.assets.saes()[block], number, amount, layer.mask_tensor)
        return during(fn, *layer.steps) if layer.steps else fn

    def _keep(self, pictures: Mapping[Edit, Tensor]) -> None:
        """Keeps these pictures as the newest, and drops the oldest beyond _KEPT_PICTURES."""
        for edit, picture in pictures.items():
            self._pictures.pop(edit, None)
            self._pictures[edit] = picture
        while len(self._pictures) > _KEPT_PICTURES:
            self._pictures.popitem(last=False)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Says in one sentence that the GPU is out of memory; silences the libraries on long prompts (see `notes`)."""
        loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryError(
                "the GPU ran out of memory while drawing: close what else uses it, or draw in one step"
            ) from error
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

    def notes(self, edit: Edit) -> tuple[str, ...]:
        """Sentences about what the model will not read of the prompt."""
        pipe, sentences = self.assets.pipe(self.assets.call(edit.model)[0]), []
        if not is_flux(pipe):  # which refuses what is too long
            sentences += _cut(pipe.tokenizer, edit.prompt)
        if self.assets.known and (strange := unlearnt_words(edit.prompt)):
            shown = ", ".join(word[:20] for word in strange[:4])
            more = f" and {len(strange) - 4} more" if len(strange) > 4 else ""
            sentences.append(f"The pocket model never learnt these words: {shown}{more}.")
        return tuple(sentences)

    def read(self, edit: Edit) -> dict[str, Float[Tensor, "n_f height width"]]:
        """By block, the activation maps of all features in the edit's picture without its layers:
        means over the steps."""
        name, settings = self.assets.call(edit.model, edit.seed, 1)
        saes, maps = self.assets.saes(), {}
        pipe = self.assets.pipe(name)
        with self._ahead(), self.assets.lock, self._guarded(), capture_updates(pipe, saes) as updates:
            draw_pictures(pipe, [edit.prompt], settings)
            for block, sae in saes.items():
                update = updates[block][:, 0].to(sae.pre_bias)
                maps[block] = to_maps(sae.encode(to_vectors(update)), *update.shape[-2:]).mean(0).cpu()
        return maps

    def code(self, edit: Edit) -> str:
        """Lines of Python that draw the edit's picture bit for bit, on the same machine."""
        assets = self.assets
        name, settings = assets.call(edit.model, edit.seed, 1)
        source = f", {assets.sources[name]!r}" if assets.sources[name] else ""
        lines = [f"pipe = load_pipeline({name!r}, {assets.scale!r}{source})"]
        if edit.layers:
            lines += self._code_of_saes()
        for number, layer in enumerate(edit.layers):
            lines += _code_of(layer, number)
        indent = ""
        if edit.layers:
            entered = [
                f"intervene(pipe, {{{layer.feature.block!r}: layer_{i}}})" for i, layer in enumerate(edit.layers)
            ]
            lines.append(f"with {', '.join(entered)}:")
            indent = "    "
        call = f"CallSettings({settings.steps}, {settings.guidance_scale}, seed={settings.seed})"
        lines.append(f"{indent}drawn = draw_pictures(pipe, [{edit.prompt!r}], {call})")
        text = "\n".join([*lines, "picture = as_image(drawn[0])", ""])
        names = ", ".join(name for name in _NAMES if f"{name}(" in text)
        return ("import torch\n\n" if "torch." in text else "") + f"from sae_lib import {names}\n\n{text}"

    def _code_of_saes(self) -> list[str]:
        """The lines that load the SAEs; they name the blocks where these are not Turbo's at this scale."""
        assets, blocks = self.assets, ""
        if assets.untrained:
            if assets.blocks != select_blocks("paper", assets.scale):
                blocks = f", {','.join(assets.blocks)!r}"
            return [f"saes, statistics = rehearsal_saes(pipe{blocks})"]
        if assets.sae_folder or assets.blocks != select_blocks("", assets.scale):
            blocks = f", blocks={','.join(assets.blocks)!r}"
        asked = f"'panel', {assets.scale!r}" + (f", {assets.sae_folder!r}" if assets.sae_folder else "")
        return [
            f"saes = load_saes({asked}, device=pipe.device{blocks})",
            f"statistics = load_statistics({asked}{blocks})",
        ]


_NAMES = ("CallSettings", "add_features", "as_image", "draw_pictures", "during", "intervene", "load_pipeline")
_NAMES += ("load_saes", "load_statistics", "rehearsal_saes", "strength_unit")


def _cut(tokenizer: CLIPTokenizer, prompt: str) -> list[str]:
    room = tokenizer.model_max_length - 2  # without the two that begin and end every prompt
    tokens = len(tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids)
    if tokens <= room:
        return []
    return [f"The prompt has {tokens:,} tokens and the model reads {room}: the last {tokens - room:,} were cut."]


def _code_of(layer: Layer, number: int) -> list[str]:
    (block, feature), lines, mask = layer.feature, [], ""
    if layer.mask is not None:
        mask, cells = f", mask_{number}", layer.mask_tensor
        rows, columns = (places.tolist() for places in cells.nonzero().T)
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
