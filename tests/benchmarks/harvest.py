"""Harvesting updates against the whole pipeline call: `python tests/benchmarks/harvest.py` (some 3 minutes on two
cores).

SDXL's configuration with random weights, every part reduced by one factor, one step of Turbo, same weights, dtype and
batch, in one process and in rotating order: the pipeline call with pictures (as the authors collect), the call
without decoding them, and our `run_updates`, which also stops the U-Net behind the last block. Writes
figures/results/harvest.json. On a GPU: `--source random --dtype bfloat16 --batch 50 --rounds 3`.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch

from sae_lib.activations.denoising import CallSettings, run_updates
from sae_lib.activations.shards import DTYPES
from sae_lib.activations.updates import capture_updates
from sae_lib.cache.results import result_path, save_result
from sae_lib.models.blocks import PAPER_BLOCKS
from sae_lib.models.noise import prompt_generator
from sae_lib.models.pipelines import load_pipeline
from sae_lib.models.prompts import load_prompts


def ways(pipe, prompts: list[str]):
    """Each way to get the updates of the paper's four blocks, as a function without arguments."""
    indices, settings = range(len(prompts)), CallSettings(1, 0.0, batch_size=len(prompts))

    def call(output_type):
        with capture_updates(pipe, PAPER_BLOCKS) as updates:
            generator = [prompt_generator(0, i) for i in indices]
            size = {"height": 512, "width": 512}
            pipe(
                prompts, num_inference_steps=1, guidance_scale=0.0, generator=generator, output_type=output_type, **size
            )
        return {block: updates[block] for block in PAPER_BLOCKS}

    return {
        "pipeline call with pictures": lambda: call("pt"),
        "without the VAE": lambda: call("latent"),
        "ours: the U-Net cut too": lambda: run_updates(pipe, prompts, indices, PAPER_BLOCKS, settings),
    }


def measure(pipe, batch: int, rounds: int) -> dict[str, list[float]]:
    """Pictures a second of each way, in rotating order, after one call to warm up."""
    each = ways(pipe, load_prompts("pocket", batch))
    cuda = pipe.device.type == "cuda"
    for run in each.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in each}
    names = list(each)
    for number in range(rounds):
        for name in names[number % 3 :] + names[: number % 3]:
            start = time.perf_counter()
            each[name]()
            if cuda:
                torch.cuda.synchronize()
            rates[name].append(batch / (time.perf_counter() - start))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="random/8")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=result_path("harvest"))
    options = parser.parse_args()
    pipe = load_pipeline("turbo", "sdxl", options.source, dtype=DTYPES[options.dtype])
    pipe.unet.register_to_config(sample_size=64)  # 512 px, also where a narrow rehearsal draws smaller pictures
    rates = measure(pipe, options.batch, options.rounds)
    whole = rates["pipeline call with pictures"]
    gains = {name: statistics.median(a / b for a, b in zip(own, whole, strict=True)) for name, own in rates.items()}
    result = {
        "pictures_per_second": {name: [round(rate, 3) for rate in own] for name, own in rates.items()},
        "times_the_pipeline_call": {name: round(gain, 3) for name, gain in gains.items()},
        "settings": {name: getattr(options, name) for name in ("source", "dtype", "batch", "rounds")},
        "latents": pipe.unet.config.sample_size,
    }
    device = torch.cuda.get_device_name() if pipe.device.type == "cuda" else platform.machine()
    save_result(options.output, result, "python tests/benchmarks/harvest.py", device=device)
    for name, gain in gains.items():
        print(f"{name:28} {statistics.median(rates[name]):8.2f} pictures/s  {gain:5.2f} times the pipeline call")


if __name__ == "__main__":
    main()
