"""Random models: the filled U-Net, and SDXL's U-Net at full width on a CPU, once."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

import psutil
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from notebooks.machine import free_gb
from sae_lib.activations.recording import record, replay
from sae_lib.activations.updates import capture_updates
from sae_lib.features.interventions import add_features, intervene
from sae_lib.models.blocks import PAPER_BLOCKS
from sae_lib.models.rehearsal import PARAMETERS, random_unet, random_vae, repeated_unet
from sae_lib.models.scales import set_up_torch
from sae_lib.pocket.models import build_scheduler
from sae_lib.saes.topk import TopKSAE

WANTED_GB = 12.5
"""Free memory: the weights take 10.3 GB, and a pass at 512 px with its recording less than 1 GB."""


def pipeline_of(unet):
    """Turbo's pipeline without text encoders; the autoencoder is a narrow one that only says how large latents are."""
    parts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    pipe = StableDiffusionXLPipeline(
        unet=unet, vae=random_vae(64, 16), scheduler=build_scheduler("turbo"), add_watermarker=False, **parts
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_filled_u_net_is_of_the_random_one_s_shapes_and_seeded():
    filled, random = repeated_unet(16, 16), random_unet(16, 16)
    shapes = {name: tensor.shape for name, tensor in random.state_dict().items()}
    assert {name: tensor.shape for name, tensor in filled.state_dict().items()} == shapes
    again, other = repeated_unet(16, 16), repeated_unet(16, 16, seed=1)
    weight = filled.mid_block.attentions[0].proj_in.weight
    assert torch.equal(weight, again.mid_block.attentions[0].proj_in.weight)
    assert not torch.equal(weight, other.mid_block.attentions[0].proj_in.weight)
    assert len(weight.unique(dim=0)) == len(weight)


def test_the_u_net_of_full_width_has_the_real_shapes_hooks_masks_and_memory():
    if free_gb() < WANTED_GB:
        pytest.skip(f"SDXL's U-Net at full width wants {WANTED_GB} GB of free memory; this machine has {free_gb():.1f}")
    # A process of its own: the memory that this one frees it keeps for its next tensor (`set_up_torch`).
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        alone.submit(run_at_full_width).result()


def run_at_full_width():
    """Builds the U-Net, runs it once, and once more from a block on with a feature added there."""
    set_up_torch("pocket")
    process, start = psutil.Process(), time.perf_counter()
    before = process.memory_info().rss
    pipe = pipeline_of(repeated_unet(64, 1))
    weights = sum(tensor.nbytes for tensor in pipe.unet.parameters())
    assert weights == pytest.approx(4 * PARAMETERS["unet"], rel=0.002)
    print(f"built in {time.perf_counter() - start:.0f} s")

    generator = torch.Generator().manual_seed(0)
    tokens, pooled = (torch.randn(shape, generator=generator) for shape in ((1, 77, 2048), (1, 1280)))

    def draw():
        call = {"num_inference_steps": 1, "guidance_scale": 0.0, "output_type": "latent"}
        generator = torch.Generator().manual_seed(0)
        return pipe(prompt_embeds=tokens, pooled_prompt_embeds=pooled, generator=generator, **call).images

    start = time.perf_counter()
    with record(pipe) as recording, capture_updates(pipe, PAPER_BLOCKS) as updates:
        latents = draw()
    print(f"a pass in {time.perf_counter() - start:.0f} s, {(process.memory_info().rss - before) / 1e9:.1f} GB")
    assert latents.shape == (1, 4, 64, 64) and latents.isfinite().all()
    for block in PAPER_BLOCKS:
        assert updates[block].shape == (1, 1, 1280, 16, 16) and updates[block].std() > 0
        assert updates[block].nbytes == 4 * 1280 * 16 * 16

    block, seen = "up.0.1", {}

    def look(name):
        def fn(block_input, block_output, at):
            seen[name] = block_output.clone()
            return block_output

        return fn

    mask = torch.zeros(16, 16)
    mask[4:8, 2:9] = 1
    sae = TopKSAE(1280, 5120, 10, torch.Generator().manual_seed(0)).requires_grad_(False)
    start = time.perf_counter()
    functions = look("before"), add_features(sae, 7, 100.0, mask), look("after")
    with ExitStack() as hooks:
        hooks.enter_context(replay(pipe, recording, block))
        for function in functions:
            hooks.enter_context(intervene(pipe, {block: function}))
        changed = draw()
    print(f"again from {block} on in {time.perf_counter() - start:.0f} s")
    added = (seen["after"] - seen["before"])[0]
    inside = mask.bool()
    assert torch.equal(seen["after"][0][:, ~inside], seen["before"][0][:, ~inside])
    torch.testing.assert_close(
        added[:, inside], 100 * sae.decoder.weight[:, 7, None].expand(-1, int(mask.sum())), atol=1e-3, rtol=1e-3
    )
    assert not torch.equal(changed, latents)
    predicted = weights + (sae.encoder.weight.nbytes + sae.decoder.weight.nbytes) + 1e9
    assert process.memory_info().rss - before < predicted, "the weights, the SAE and 1 GB for everything else"
    assert not any(module._forward_hooks for module in pipe.unet.modules())
