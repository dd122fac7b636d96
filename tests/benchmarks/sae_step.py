"""One SAE training step, ours and others': `.venv/interop/bin/python tests/benchmarks/sae_step.py` (some 4 minutes on
two cores).

In one process and in rotating order: our step; the authors' method (sparse products by COO `torch.sparse.mm`); dense
autograd of the same loss; SAELens' and sparsify's training steps as their trainers take them; and the one dense
product of the encoder alone, which is the floor. Memory is measured in a process for each. Then twelve SAEs at once
against one. `make test-interop` makes the environment. Writes figures/results/sae_step.json.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from sae_lib.cache.results import result_path, save_result
from sae_lib.training.config import SAEConfig
from sae_lib.training.losses import normalized_mse, training_loss
from sae_lib.training.trainer import SAETraining, count_silent_steps_, remove_parallel_gradient_

ROOT = Path(__file__).parents[2]
COMMAND = ".venv/interop/bin/python tests/benchmarks/sae_step.py"


def vectors(config: SAEConfig, batches: int = 1) -> torch.Tensor:
    """Updates as they may be: sparse sums of directions around a mean, and noise."""
    generator = torch.Generator().manual_seed(0)
    count = config.batch_size * batches
    directions = torch.randn(256, config.d_model, generator=generator)
    weights = torch.rand(count, 256, generator=generator) * (torch.rand(count, 256, generator=generator) < 0.05)
    return weights @ directions + 0.1 * torch.randn(count, config.d_model, generator=generator) + 1


def begin(config: SAEConfig) -> SAETraining:
    """Our training, ready for its first step. Its beginning is shortened: it is not what is measured."""
    training = SAETraining(replace(config, init_batches=1, init_vectors=1024), log_interval=10**9)
    training.step(vectors(config))
    return training


def ours(config):
    training = begin(config)
    return training.step


def _full_step(training: SAETraining, loss_of):
    """The authors' order around any loss."""
    sae = training.sae

    def step(x):
        loss_of(x).backward()
        sae.normalize_decoder_()
        remove_parallel_gradient_(sae)
        training.optimizer.step()
        training.optimizer.zero_grad()

    return step


def dense_autograd(config):
    training = begin(config)

    def loss_of(x):
        with torch.no_grad():
            values, indices = training.sae.encode_sparse(x)
        count_silent_steps_(training.sae, values, indices)
        dead = training.sae.stats_last_nonzero > config.dead_steps_threshold
        return training_loss(training.sae, x, dead, training.weights)

    return _full_step(training, loss_of)


def authors_method(config):
    """Written anew from its description: one encoder pass, COO products for both terms, the dead mask always
    decoded."""
    training = begin(config)
    sae = training.sae

    def decode(values, indices):
        rows = torch.arange(len(values)).repeat_interleave(values.shape[1])
        sparse = torch.sparse_coo_tensor(
            torch.stack([rows, indices.flatten()]), values.flatten(), (len(values), sae.n_f)
        )
        return torch.sparse.mm(sparse, sae.decoder.weight.T) + sae.pre_bias

    def loss_of(x):
        pre_activations = sae.pre_activations(x)
        values, indices = pre_activations.topk(sae.k, dim=-1)
        count_silent_steps_(sae, values.detach(), indices)
        dead = sae.stats_last_nonzero > config.dead_steps_threshold
        x_hat = decode(values.relu(), indices)
        auxiliary_values, auxiliary_indices = (pre_activations * dead).topk(config.auxk, dim=-1)
        error = x - x_hat.detach() + sae.pre_bias.detach()
        auxiliary = normalized_mse(decode(auxiliary_values.relu(), auxiliary_indices), error).nan_to_num(0)
        return training.weights.mse_scale * (x_hat - x).square().mean() + config.auxk_coef * auxiliary

    return _full_step(training, loss_of)


def sae_lens(config):
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=config.d_model, d_sae=config.n_f, k=config.k))
    optimizer = torch.optim.Adam(sae.parameters(), lr=config.lr)
    dead = torch.zeros(config.n_f, dtype=torch.bool)

    def step(x):
        output = sae.training_forward_pass(TrainStepInput(x, {}, dead, 0, False))
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()

    return step


def eai_sparsify(config):
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(config.d_model, SparseCoderConfig(expansion_factor=4, k=config.k))
    optimizer = torch.optim.Adam(sae.parameters(), lr=config.lr)
    dead = torch.zeros(config.n_f, dtype=torch.bool)

    def step(x):
        sae.set_decoder_norm_to_unit_norm()
        output = sae(x, dead_mask=dead)
        (output.fvu + config.auxk_coef * output.auxk_loss).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()

    return step


def encoder_product(config):
    weight, bias = torch.randn(config.n_f, config.d_model), torch.randn(config.n_f)
    return lambda x: F.linear(x, weight, bias)


METHODS = {
    "ours": ours,
    "authors' method (COO)": authors_method,
    "dense autograd": dense_autograd,
    "sae-lens": sae_lens,
    "eai-sparsify": eai_sparsify,
    "encoder product alone": encoder_product,
}


def compare(config: SAEConfig, rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each method, in rotating order, after one step to warm up."""
    steps, x = {name: make(config) for name, make in METHODS.items()}, vectors(config)
    for step in steps.values():
        step(x)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            steps[name](x)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(name: str) -> float:
    """GB that a process holds at most when it takes two steps by this method."""
    command = [sys.executable, __file__, "--memory", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def many_at_once(config: SAEConfig, count: int = 12, rounds: int = 5) -> dict[str, list[float]]:
    """Seconds a step of one SAE alone, on all cores, and of `count` SAEs on the same vectors, a core each, in turns."""
    x, threads = vectors(config), torch.get_num_threads()
    one, trainings = ours(config), [begin(replace(config, seed=seed)) for seed in range(count)]
    seconds: dict[str, list[float]] = {"one alone": [], f"{count} together": []}
    for _ in range(rounds + 1):  # the first warms up
        start = time.perf_counter()
        for _ in range(3):
            one(x)
        seconds["one alone"].append((time.perf_counter() - start) / 3)
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                start = time.perf_counter()
                list(pool.map(lambda training: training.step(x), trainings))
                seconds[f"{count} together"].append(time.perf_counter() - start)
        finally:
            torch.set_num_threads(threads)
    return {name: [round(value, 4) for value in times[1:]] for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="a tenth of the size: shows that it runs")
    parser.add_argument("--memory", choices=list(METHODS), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=result_path("sae_step"))
    options = parser.parse_args()
    config = SAEConfig.paper("mid.0")
    if options.small:
        config = replace(config, d_model=128, n_f=512, batch_size=400, dead_vectors_threshold=40_000)
    if options.memory:
        step, x = METHODS[options.memory](config), vectors(config)
        step(x), step(x)
        held = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())  # getrusage counts the parent's
        print(int(held[1]) * 1024 / 1e9)
        return
    seconds = compare(config, options.rounds)
    ratios = {
        name: statistics.median(other / own for other, own in zip(times, seconds["ours"], strict=True))
        for name, times in seconds.items()
    }
    result = {
        "config": {name: getattr(config, name) for name in ("d_model", "n_f", "k", "auxk", "batch_size")},
        "seconds": {name: [round(value, 4) for value in times] for name, times in seconds.items()},
        "times_ours": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "ours_over_floor": round(1 / ratios["encoder product alone"], 3),
        "peak_memory_gb": {} if options.small else {name: round(peak_memory(name), 3) for name in METHODS},
        "many": many_at_once(config),
    }
    save_result(options.output, result, COMMAND)
    for name, ratio in ratios.items():
        median, memory = statistics.median(seconds[name]) * 1e3, result["peak_memory_gb"].get(name, float("nan"))
        print(f"{name:24} {median:8.1f} ms  {ratio:5.2f} times ours  {memory:6.2f} GB")
    print({name: statistics.median(times) for name, times in result["many"].items()})


if __name__ == "__main__":
    main()
