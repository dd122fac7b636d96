"""The loop that trains every pocket model: Muon and AdamW, warm-up and decay, a moving average of the weights.

On a GPU a step's forward and backward pass is one CUDA graph: the pocket models are so small that starting their
thousands of kernels one by one would take longer than computing them.
"""

import copy
import itertools
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from notebooks.machine import cores
from sae_lib.pocket.world import Scene, sample_scenes

_WEIGHT_DECAY = 0.01
_LOOK = 100
"""Number of steps between two looks at the loss, each of which makes a GPU wait."""


def fit(
    modules: dict[str, nn.Module],
    loss_of: Callable[..., Tensor],
    steps: int,
    *,
    lr: float,
    save: Callable[[dict[str, nn.Module]], None],
    batches: Iterable[tuple[Tensor, ...]] | None = None,
    extra: Iterable[nn.Parameter] = (),
    ema: float = 0.999,
    decay: float = 0.35,
    save_every: float = 240.0,
) -> None:
    """Minimise a loss over the modules' parameters (and `extra` ones, which are thrown away), with warm-up and decay.

    `loss_of` gets the tensors of one of `batches` and must depend on nothing else (on a GPU it is captured as a
    graph); without `batches` it gets the step's number. Matrices and kernels are trained by Muon, everything else
    by AdamW; the learning rate falls in the last `decay` of the steps. `save` gets the averaged modules every
    `save_every` seconds and at the end. Raises RuntimeError if the loss is not finite.
    """
    box = nn.ModuleDict(modules).train()
    average = copy.deepcopy(box)
    kernels = [module.weight for module in box.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    known = {id(kernel) for kernel in kernels}
    others = [*(parameter for parameter in box.parameters() if id(parameter) not in known), *extra]
    optimisers = [
        Muon([kernel for kernel in kernels if kernel.requires_grad], lr),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=_WEIGHT_DECAY),
    ]
    warm = min(200, steps // 10 + 1)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda at: min(1.0, (at + 1) / warm, max(0.02, (steps - at) / (decay * steps)))
        )
        for optimiser in optimisers
    ]

    def backward(*inputs) -> Tensor:
        loss = loss_of(*inputs)
        loss.backward()
        nn.utils.clip_grad_norm_(box.parameters(), 1.0)
        return loss.detach()

    batches = iter(batches) if batches is not None else ((step,) for step in itertools.count())
    first = next(batches)
    on_gpu = isinstance(first[0], Tensor) and first[0].is_cuda
    gradients = _graph(backward, box, first) if on_gpu else backward
    smooth, start, saved = None, time.monotonic(), time.monotonic()
    for step in range(steps):
        if not on_gpu:  # a graph's gradients stay where they are and are overwritten
            box.zero_grad()
            optimisers[1].zero_grad()
        loss = gradients(*(first if step == 0 else next(batches)))
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        _follow(average, box, 1 - min(ema, (1 + step) / (10 + step)))
        smooth = loss.clone() if smooth is None else 0.98 * smooth + 0.02 * loss
        if step % _LOOK == _LOOK - 1 or step == steps - 1:
            if not math.isfinite(smooth.item()):
                raise RuntimeError(
                    f"the loss became {loss.item()} by step {step}: nothing was saved after the last good state; "
                    "lower the learning rate"
                )
            print(f"step {step + 1}/{steps} loss {smooth.item():.4f} {time.monotonic() - start:.0f} s", flush=True)
            if time.monotonic() - saved > save_every:
                save(dict(average.items()))
                saved = time.monotonic()
    save(dict(average.items()))


def _graph(backward: Callable[..., Tensor], box: nn.Module, example: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """`backward` as a CUDA graph over copies of the example's tensors, which is replayed for each batch; the gradients
    stay in the same place."""
    inputs = [tensor.clone() for tensor in example]
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            box.zero_grad()
            backward(*inputs)
    torch.cuda.current_stream().wait_stream(aside)
    box.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = backward(*inputs)

    def replay(*batch: Tensor) -> Tensor:
        for held, tensor in zip(inputs, batch, strict=True):
            held.copy_(tensor, non_blocking=True)
        graph.replay()
        return loss

    return replay


@torch.no_grad()
def _follow(average: nn.Module, box: nn.Module, share: float) -> None:
    """One step of an exponential moving average; its memory grows with the run, so that early weights are forgotten."""
    torch._foreach_lerp_(list(average.parameters()), list(box.parameters()), share)


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolution kernels (as matrices of their outputs), all of one shape together.

    Its steps are those of `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`. That optimiser takes no
    convolution kernels and goes matrix by matrix: on a GPU, ten thousand small CUDA kernels per step, many times
    what the model needs.
    """

    def __init__(self, kernels: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(kernels, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike = defaultdict(list)
            for kernel in group["params"]:
                if kernel.grad is not None:
                    alike[kernel.shape].append(kernel)
            for shape, kernels in alike.items():
                gradient = torch.stack([kernel.grad.flatten(1) for kernel in kernels])
                state = self.state[kernels[0]]
                momentum = state.setdefault("momentum", torch.zeros_like(gradient))
                momentum.lerp_(gradient, 1 - group["momentum"])
                change = orthogonalise(gradient.lerp(momentum, group["momentum"])).to(gradient.dtype)
                rate = 0.2 * math.sqrt(max(change.shape[1:])) * group["lr"]
                torch._foreach_mul_(kernels, 1 - group["lr"] * _WEIGHT_DECAY)
                torch._foreach_add_(kernels, [one.view(shape) for one in change], alpha=-rate)


def orthogonalise(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Brings all singular values of matrices `[n, rows, columns]` near 1 (Newton-Schulz, as in
    Muon, Jordan et al. 2024)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16() if matrices.is_cuda else matrices  # a CPU has no fast product of many small ones in 16 bit
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x


def mixed_precision(device: str) -> torch.autocast:
    """Autocast to bfloat16 where the device computes in it; does nothing elsewhere."""
    fast = device.startswith("cuda") or any(
        torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16")
    )
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=fast)


def scene_batches(batch: int, seed: int) -> Iterator[list[Scene]]:
    """Endless batches of training scenes."""
    return (sample_scenes(batch, seed=1_000_003 * seed + at) for at in itertools.count())


class _Made(IterableDataset):
    """Endless batches of scenes made into tensors; the same in the same order for any number of workers."""

    def __init__(self, make: Callable[[list[Scene], random.Random], object], batch: int, seed: int) -> None:
        self.make, self.batch, self.seed = make, batch, seed

    def __iter__(self) -> Iterator:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for at in itertools.count(first, stride):
            number = 1_000_003 * self.seed + at
            yield self.make(sample_scenes(self.batch, seed=number), random.Random(number))


def made_batches(make: Callable[[list[Scene], random.Random], object], batch: int, seed: int, device: str) -> Iterator:
    """What `make(scenes, rng)` makes of endless, seeded batches of training scenes.

    Beside a GPU it runs in one process per other core.
    """
    on_gpu = device.startswith("cuda")
    workers = max(0, cores() - 2) if on_gpu else 0
    made = _Made(make, batch, seed)
    return iter(DataLoader(made, batch_size=None, num_workers=workers, pin_memory=on_gpu))
