"""Where the caption enters the model: single blocks read another caption's tokens (LocoGen, arXiv:2405.01008).

The paper chose its blocks by ablation. What an ablation breaks need not be what a block writes. A block that reads
another caption's tokens shows directly what it writes, and its update stays of a kind that later layers know.

In SDXL all blocks read the same tokens. In FLUX the tokens are a stream of their own that every block changes; there a
block's image stream reads the text stream that the other caption has at this block, on the same latents.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager

import torch
from diffusers import DiffusionPipeline, FluxPipeline, StableDiffusionXLPipeline
from jaxtyping import Float
from torch import Tensor, nn

from sae_lib.activations.denoising import CallSettings, call_arguments, flux_prompts
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.recording import record, replaced_forward, replay
from sae_lib.activations.steps import follow_steps
from sae_lib.models.blocks import ATTENTION_BLOCKS, as_list, blocks_of, find_block, is_flux, tokens_to_maps
from sae_lib.models.noise import prompt_generator

Tokens = Float[Tensor, "_ tokens d_text"]


def readers_of(pipe: DiffusionPipeline) -> tuple[str, ...]:
    """The blocks that read the prompt: SDXL's with cross-attention, all of FLUX."""
    return tuple(blocks_of(pipe)) if is_flux(pipe) else ATTENTION_BLOCKS


@contextmanager
def inject_prompt(pipe: DiffusionPipeline, prompts: Mapping[str, str | Sequence[str]]) -> Iterator[None]:
    """Inside the context, the attention of each named block reads the tokens of another prompt.

    prompts: by block, one prompt for all pictures of a call, or one per picture. All else stays as it was: the other
    blocks' tokens and the pooled embedding, which reaches SDXL's ResNets and FLUX's norms; of FLUX also the text stream
    behind the block. In a guided call only the conditional half reads the other prompt. The hooks are gone on exit,
    also after an exception.

    Raises ValueError for a block without cross-attention, and from the pipeline call for another number of pictures,
    and what `follow_steps` raises.
    """
    by_block = {block: as_list(texts) for block, texts in prompts.items()}
    encoded = {tuple(texts): encode_tokens(pipe, texts) for texts in by_block.values()}
    with inject_tokens(pipe, {block: encoded[tuple(texts)] for block, texts in by_block.items()}):
        yield


@torch.no_grad()
def encode_tokens(pipe: DiffusionPipeline, prompts: str | Sequence[str]) -> Tokens:
    """The prompts' token embeddings, which the blocks' cross-attention reads."""
    if is_flux(pipe):
        return pipe.encode_prompt(**flux_prompts(pipe, as_list(prompts)))[0]
    return pipe.encode_prompt(as_list(prompts), do_classifier_free_guidance=False)[0]


@contextmanager
def inject_tokens(pipe: DiffusionPipeline, tokens: Mapping[str, Tokens]) -> Iterator[None]:
    """`inject_prompt` for prompts that are already encoded (`encode_tokens`)."""
    with (_inject_into_flux if is_flux(pipe) else _inject_into_sdxl)(pipe, tokens):
        yield


@contextmanager
def _inject_into_sdxl(pipe: StableDiffusionXLPipeline, tokens: Mapping[str, Tokens]) -> Iterator[None]:
    wrong = [block for block in tokens if block not in ATTENTION_BLOCKS]
    if wrong:
        raise ValueError(
            f"block {wrong[0]!r} reads no prompt; blocks with cross-attention: {', '.join(ATTENTION_BLOCKS)}"
        )

    def hook(block: str):
        def exchange(_module, args, kwargs):
            calls.ran(block)
            own = kwargs["encoder_hidden_states"]
            free = own[: len(own) // 2] if calls.step.guided else own[:0]
            conditional = _one_each(block, tokens[block], len(own) - len(free)).to(own)
            return args, kwargs | {"encoder_hidden_states": torch.cat([free, conditional])}

        return exchange

    with ExitStack() as hooks:
        calls = hooks.enter_context(follow_steps(pipe, hooks=tokens))
        for block in tokens:
            handle = find_block(pipe, block).register_forward_pre_hook(hook(block), with_kwargs=True)
            hooks.callback(handle.remove)
        yield


@contextmanager
def _inject_into_flux(pipe: FluxPipeline, tokens: Mapping[str, Tokens]) -> Iterator[None]:
    modules = {block: find_block(pipe, block) for block in (*blocks_of(pipe), *tokens)}
    texts: dict[str, Tensor] = {}

    def follow_others(_first, _args, kwargs):
        """The other prompts' text streams at the named blocks, from a pass without hooks on the call's own latents."""
        texts.clear()
        for given in {id(given): given for given in tokens.values()}.values():
            readers = [block for block in tokens if tokens[block] is given]
            own = kwargs["encoder_hidden_states"]
            text = pipe.transformer.context_embedder(_one_each(readers[0], given, len(own)).to(own))
            image = kwargs["hidden_states"]
            for block, module in modules.items():
                if block in readers:
                    texts[block] = text
                if block == readers[-1]:
                    break
                text, image = _compute(module, kwargs, text, image)

    def reading_both(block: str, compute: Callable) -> Callable:
        def forward(**kwargs):
            calls.ran(block)
            text, _ = compute(**kwargs)
            return text, _compute(modules[block], kwargs, texts[block], kwargs["hidden_states"])[1]

        return forward

    with ExitStack() as hooks:
        calls = hooks.enter_context(follow_steps(pipe, hooks=tokens))
        tokens = {block: tokens[block] for block in modules if block in tokens}
        if tokens:
            first = next(iter(modules.values()))
            hooks.callback(first.register_forward_pre_hook(follow_others, with_kwargs=True).remove)
        for block in tokens:
            module = modules[block]
            hooks.enter_context(replaced_forward(module, reading_both(block, module.forward)))
        yield


def _compute(module: nn.Module, kwargs: Mapping, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """What a block of FLUX makes of two streams, past its hooks and past `replay`."""
    return type(module).forward(module, **{**kwargs, "encoder_hidden_states": text, "hidden_states": image})


def _one_each(block: str, given: Tokens, pictures: int) -> Tokens:
    if len(given) not in (1, pictures):
        raise ValueError(
            f"block {block!r} was given {len(given)} prompts and the call draws {pictures} pictures: "
            "wanted one prompt for all, or one each"
        )
    return given.expand(pictures, -1, -1)


def draw_injected(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    blocks: str | Iterable[str],
    others: Tokens,
    settings: CallSettings,
) -> Float[Tensor, "prompts 3 height width"]:
    """`draw_pictures` of the prompts, while some blocks read for each prompt the other tokens in its place."""
    prompts = as_list(prompts)
    with closing(_injected(pipe, prompts, blocks, others, settings)) as batches:
        return torch.cat([draw_pictures(pipe, [prompts[i] for i in rows], settings, rows) for rows in batches])


def by_reader(
    draw: Callable[..., Tensor],
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    others: str | Sequence[str],
    readers: Mapping[str, str | Iterable[str]],
    settings: CallSettings,
) -> Iterator[tuple[str, Float[Tensor, "prompts channels height width"]]]:
    """What `draw` gives while each group of blocks reads the other prompts, by the group's name.

    The first is "nothing", where no block does. draw: `draw_injected` or `estimate_injected`. What the model computes
    before the first block of a group is computed once and given out again (`replay`).
    """
    tokens = encode_tokens(pipe, others)
    with record(pipe) as recording:
        nothing = draw(pipe, prompts, (), tokens, settings)
    yield "nothing", nothing
    for name, blocks in readers.items():
        with replay(pipe, recording, blocks):
            drawn = draw(pipe, prompts, blocks, tokens, settings)
        yield name, drawn


@torch.no_grad()
def estimate_injected(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    blocks: str | Iterable[str],
    others: Tokens,
    settings: CallSettings,
) -> Float[Tensor, "prompts channels height width"]:
    """The latents of what `draw_injected` draws: in one step, the model's estimate of the picture's latents.

    FLUX's are packed, a column per token.
    """
    prompts, parts = as_list(prompts), []
    with closing(_injected(pipe, prompts, blocks, others, settings)) as batches:
        for rows in batches:
            generator = [prompt_generator(settings.seed, i) for i in rows]
            call = call_arguments(pipe, [prompts[i] for i in rows], settings)
            latents = pipe(**call, generator=generator, output_type="latent").images
            parts.append((tokens_to_maps(latents) if is_flux(pipe) else latents).float().cpu())
    return torch.cat(parts)


def _injected(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    blocks: str | Iterable[str],
    others: Tokens,
    settings: CallSettings,
) -> Iterator[range]:
    """The prompts' numbers, batch by batch; while a batch is out, the blocks read the other tokens of its prompts."""
    blocks = as_list(blocks)
    for start in range(0, len(prompts), settings.batch_size):
        rows = range(start, min(start + settings.batch_size, len(prompts)))
        with inject_tokens(pipe, dict.fromkeys(blocks, others[rows.start : rows.stop])):
            yield rows


def share_carried(
    measured: Float[Tensor, "*shape"], floor: Float[Tensor, "*shape"], ceiling: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The share of a caption's effect that some blocks carry.

    0 at `floor`, where no block reads the caption (what chance gives); 1 at `ceiling`, where all blocks read it. 0 too
    where the whole caption makes no difference.
    """
    whole = ceiling - floor
    return torch.where(whole > 1e-3, (measured - floor) / whole.clamp(min=1e-3), 0.0)


def share_of_way(
    start: Float[Tensor, "pairs ..."], moved: Float[Tensor, "pairs ..."], end: Float[Tensor, "pairs ..."]
) -> Float[Tensor, " pairs"]:
    """How far `moved` went from `start` towards `end`: 0 is not at all (or no way to go), 1 is all the way.

    <moved - start, end - start> / |end - start|^2
    """
    way, whole = (moved - start).flatten(1), (end - start).flatten(1)
    return (way * whole).sum(1) / whole.square().sum(1).clamp(min=1e-12)


PROMPT_PAIRS = {
    "object": (
        ("a photo of a cat on a sofa", "a photo of a dog on a sofa"),
        ("an apple on a wooden table", "a teapot on a wooden table"),
        ("a portrait of an old sailor", "a portrait of a young nurse"),
    ),
    "colour": (
        ("a red car in a street", "a blue car in a street"),
        ("a woman in a yellow dress", "a woman in a green dress"),
        ("a white horse on a beach", "a black horse on a beach"),
    ),
    "material": (
        ("a wooden chair in a room", "a metal chair in a room"),
        ("a striped shirt on a hanger", "a dotted shirt on a hanger"),
        ("a glass vase on a shelf", "a clay vase on a shelf"),
    ),
    "number": (
        ("one balloon in the sky", "three balloons in the sky"),
        ("a bird on a branch", "two birds on a branch"),
        ("a candle on a table", "five candles on a table"),
    ),
    "position": (
        ("a lamp to the left of a bed", "a lamp to the right of a bed"),
        ("a ball above a box", "a ball below a box"),
        ("a tree on the left of the picture", "a tree on the right of the picture"),
    ),
    "background": (
        ("a dog in a forest", "a dog in a city"),
        ("a castle by the sea", "a castle in a desert"),
        ("a bicycle in the snow", "a bicycle in a meadow"),
    ),
    "style": (
        ("a photo of a village", "a watercolour of a village"),
        ("a photo of a lion", "a pencil drawing of a lion"),
        ("an oil painting of a ship", "a cartoon of a ship"),
    ),
}
"""Pairs of prompts that differ in one thing, written by us, for models whose pictures no judge can read."""
