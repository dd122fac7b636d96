"""The full-width rehearsal on one GPU: `python tests/benchmarks/gpu.py` (75 seconds on an H100).

SDXL Turbo's configuration with random weights in bfloat16: real shapes, speed and memory, no science. Measured are
the harvest of the paper's four blocks at 512 px (pictures a second, share of the card's peak), the training of their
SAEs (vectors a second), and both in one stream; from these the hours for the paper's 1.5 million prompts. Writes
figures/results/gpu.json. With `--model flux` it is FLUX-schnell at 1,024 px and the SAE of its last double-stream
block, in gpu_flux.json. On a CPU `--source random/16 --small` shows that it runs.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from sae_lib.activations.denoising import CallSettings, run_updates
from sae_lib.activations.shards import DTYPES
from sae_lib.activations.stream import TrainingStream, positions_per_step
from sae_lib.cache.artefact import ROOT, cache_root
from sae_lib.cache.results import save_result
from sae_lib.models.blocks import PAPER_BLOCKS, denoiser_of, is_flux, select_blocks, width_of
from sae_lib.models.pipelines import load_pipeline
from sae_lib.models.prompts import load_prompts
from sae_lib.training.config import SAEConfig
from sae_lib.training.loop import train_saes
from sae_lib.training.trainer import SAETraining

PAPER_PROMPTS = {"turbo": 1_500_000, "flux": None}
"""How many the paper trained on; it does not say so of FLUX."""
BLOCKS = {"turbo": PAPER_BLOCKS, "flux": select_blocks("paper", "sdxl", "flux")}
TFLOP_A_PICTURE = {"turbo": 1.07, "flux": 21.8}
"""Of SDXL's U-Net at 512 px, up to `up.0.1`, and of FLUX's transformer at 1,024 px, up to `double.18`, with
the rehearsal's 40 text tokens (counted at their real shapes; with 512 of them it would be 24.8)."""
COMPILED = ("BasicTransformerBlock", "FluxAttention")
"""Layers that are compiled each for itself: hooks and the early stop stay as they are."""
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0}
"""Dense bfloat16, as the maker states it."""


def seconds_of(run: Callable[[], object], rounds: int) -> float:
    """Median of `rounds` after one to warm up; waits for the GPU."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def harvest_speed(pipe, batch: int, rounds: int) -> dict[str, float]:
    """Pictures a second, plain, with channels last, and with transformer layers compiled too."""
    prompts, denoiser = load_prompts("pocket", batch), denoiser_of(pipe)
    blocks = BLOCKS["flux" if is_flux(pipe) else "turbo"]
    settings = CallSettings(1, 0.0, batch_size=batch, noise="batch of 50")
    rates = {}

    def run():
        return run_updates(pipe, prompts, range(batch), blocks, settings)

    rates["plain"] = batch / seconds_of(run, rounds)
    if not is_flux(pipe):
        denoiser.to(memory_format=torch.channels_last)
        rates["channels last"] = batch / seconds_of(run, rounds)
    if pipe.device.type == "cuda":
        for module in denoiser.modules():
            if type(module).__name__ in COMPILED:
                module.compile()
        rates["channels last, " * (not is_flux(pipe)) + "transformer layers compiled"] = batch / seconds_of(run, rounds)
    return rates


def training_speed(configs: list[SAEConfig], device, rounds: int) -> dict[str, float]:
    """Vectors a second through all SAEs, by the precision of the one dense product, with the explained variance
    after."""
    config = configs[0]
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(256, config.d_model, generator=generator)
    rows = 16 * config.batch_size
    weights = torch.rand(rows, 256, generator=generator) * (torch.rand(rows, 256, generator=generator) < 0.05)
    batches = (weights @ directions + 0.1 * torch.randn(rows, config.d_model, generator=generator)).to(device)
    found = {}
    for precision in ("highest", "high"):  # float32, TF32
        torch.set_float32_matmul_precision(precision)
        trainings = [SAETraining(replace(config, init_batches=1, init_vectors=1024), 50) for config in configs]
        batches_of = batches.split(config.batch_size)

        def run(trainings=trainings, batches_of=batches_of):
            for training in trainings:
                training.take(batches_of)

        seconds = seconds_of(run, rounds)
        name = {"highest": "float32", "high": "TF32"}[precision]
        found[f"vectors a second, {name}"] = rows / seconds
        found[f"explained variance, {name}"] = trainings[0].log[-1]["explained_variance"]
    torch.set_float32_matmul_precision("highest")
    return found


def together(pipe, configs: list[SAEConfig], prompts: int, batch: int) -> dict[str, float]:
    """Harvest and training in one stream: pictures a second, memory."""
    settings = CallSettings(1, 0.0, batch_size=batch, noise="batch of 50")
    blocks = [config.block for config in configs]
    buffer = prompts * positions_per_step(pipe, blocks[0]) // 2
    stream = TrainingStream(pipe, load_prompts("pocket", prompts), blocks, settings, buffer=buffer)
    if pipe.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train_saes(stream, configs, folder, pipe.device)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 1e9 if pipe.device.type == "cuda" else None
    return {"pictures a second": prompts / seconds, "peak memory, GB": peak, "buffer, vectors a block": buffer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(BLOCKS), default="turbo")
    parser.add_argument("--source", default="random")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16")
    parser.add_argument("--batch", type=int, help="pictures a call; by default 50, of FLUX 8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, help="of the run with harvest and training; by default 5,000, FLUX 400")
    parser.add_argument("--small", action="store_true", help="few prompts and small batches: shows that it runs")
    parser.add_argument("--output", type=Path, help="by default in figures/results; with --small in the cache")
    options = parser.parse_args()
    flux = options.model == "flux"
    if options.output is None:  # what notebook 90 and the README show is never a small run
        folder = cache_root() if options.small else ROOT / "figures" / "results"
        options.output = folder / ("gpu_flux.json" if flux else "gpu.json")
    if options.small:
        options.batch, options.rounds, options.prompts, options.dtype = 2, 1, 24, "float32"
    options.batch, options.prompts = options.batch or (8 if flux else 50), options.prompts or (400 if flux else 5_000)
    pipe = load_pipeline(options.model, "sdxl", options.source, dtype=DTYPES[options.dtype])
    d_model = width_of(pipe, BLOCKS[options.model][0])
    sizes = {"d_model": d_model, "n_f": 4 * d_model, "auxk": min(256, 2 * d_model)}
    if options.small:
        sizes |= {"batch_size": 16, "init_batches": 2, "dead_vectors_threshold": 160}
    configs = [
        SAEConfig.paper(block, k=min(20 if flux else 10, d_model // 10), **sizes) for block in BLOCKS[options.model]
    ]
    device = torch.cuda.get_device_name() if pipe.device.type == "cuda" else platform.machine()
    settings = {name: getattr(options, name) for name in ("model", "source", "dtype", "batch", "rounds", "prompts")}
    result = {"settings": settings}

    def add(**parts) -> None:  # written part by part: the time on a GPU may end before the run does
        result.update(parts)
        command = "python tests/benchmarks/gpu.py" + " --model flux" * flux
        save_result(options.output, result, command, device=device, rehearsal="random weights, no science")

    add(training=training_speed(configs, pipe.device, options.rounds))
    add(together=together(pipe, configs, options.prompts, options.batch))
    add(harvest=harvest_speed(pipe, options.batch, options.rounds))
    fastest = max(result["harvest"].values())
    peak = next((value for name, value in PEAK_TFLOPS.items() if name in device), None)
    if peak and options.source == "random":
        add(**{"harvest's share of the card's peak": fastest * TFLOP_A_PICTURE[options.model] / peak})
    if prompts := PAPER_PROMPTS[options.model]:
        rates = {"harvest alone": fastest, "harvest and training": result["together"]["pictures a second"]}
        add(**{"hours for 1.5 million prompts": {name: prompts / rate / 3600 for name, rate in rates.items()}})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
