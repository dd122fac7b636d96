"""What is computed beside a model works on devices without float64 (Apple's MPS), whose part is played here.

The part is played by torch's "meta" device, whose tensors have no numbers: `Stand` refuses every float64 tensor on it
in MPS's words, and gives ones for what is copied from it to the CPU.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sae_lib.judges import intervals
from sae_lib.judges.intervals import bootstrap, bootstrap_trials, exact, exact_device
from sae_lib.saes.controls import PCA, RawUpdates
from sae_lib.saes.statistics import RunningStatistics
from sae_lib.saes.topk import TopKSAE
from sae_lib.saes.transfer import _statistics
from sae_lib.training.config import SAEConfig
from sae_lib.training.trainer import SAETraining

aten = torch.ops.aten


class Stand(TorchDispatchMode):
    """Refuses float64 on the device, as MPS does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is aten._local_scalar_dense.default and args[0].is_meta:
            return torch.ones((), dtype=args[0].dtype).item()
        if function is aten._to_copy.default and args[0].is_meta and str(kwargs.get("device")) == "cpu":
            assert kwargs.get("dtype") in (None, args[0].dtype), "MPS would convert before it copies"
            return torch.ones(args[0].shape, dtype=args[0].dtype)
        if function is aten.nonzero.default and args[0].is_meta:
            return torch.empty(args[0].numel(), args[0].ndim, dtype=torch.int64, device="meta")
        made = function(*args, **kwargs)
        if any(x.is_meta and x.dtype == torch.float64 for x in tree_leaves(made) if isinstance(x, torch.Tensor)):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return made


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(intervals, "WITHOUT_FLOAT64", {"meta"})
    with Stand():
        yield torch.device("meta")


def test_the_stand_refuses_what_mps_refuses(device):
    x = torch.ones(3, device=device)
    for wrong in (lambda: x.double(), lambda: x.to(torch.float64), lambda: torch.zeros(2, dtype=float, device=device)):
        with pytest.raises(TypeError, match="doesn't support float64"):
            wrong()
    with pytest.raises(TypeError, match="doesn't support float64"):
        torch.zeros(3, dtype=torch.float64).to(device)
    with pytest.raises(AssertionError, match="would convert before it copies"):
        x.to("cpu", torch.float64)


def test_exact_numbers_are_on_the_cpu_only_where_the_device_has_none(device):
    assert exact(torch.ones(3, device=device)).equal(torch.ones(3, dtype=torch.float64))
    assert exact_device("cuda:1") == torch.device("cuda:1") and exact_device(device) == torch.device("cpu")
    assert intervals.WITHOUT_FLOAT64 == {"meta"}


def test_mps_is_the_device_without_float64():
    assert exact_device("mps") == exact_device("cpu") == torch.device("cpu")


def test_statistics_are_summed(device):
    running = RunningStatistics(8, device)
    running.add(torch.ones(5, 2, device=device), torch.ones(5, 2, dtype=torch.int64, device=device))
    result = running.result()
    assert result.mean[1] == 1 and result.vectors == 5 and result.mean.dtype == torch.float32


def test_principal_components_are_fitted_and_lie_where_the_vectors_do(device):
    fit = PCA.fit([torch.ones(6, 4, device=device)], 2)
    assert fit.mean.device == fit.components.device == device
    assert fit.decode(fit.encode(torch.ones(6, 4, device=device))).device == device


def test_transfer_is_measured(device):
    steps = [torch.ones(6, 4, device=device) for _ in range(2)]
    measured = _statistics(RawUpdates(), steps, torch.ones(2, 3, 2, 4))
    assert measured.error.dtype == torch.float64 and measured.error.device.type == "cpu"


def test_intervals_are_drawn(device):
    assert bootstrap(torch.ones(4, device=device), resamples=5).dtype == torch.float64
    numbers = torch.arange(4)
    assert bootstrap_trials(torch.ones(4, device=device), numbers, numbers, resamples=5).dtype == torch.float64


def test_an_sae_is_trained_and_goes_on_from_its_state(device, monkeypatch):
    fused = torch.optim.Adam  # which MPS has, and the stand has not
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, **given: fused(parameters, **given | {"fused": False}))
    config = SAEConfig.pocket("mid.0", 2, n_f=8, d_model=4, batch_size=6, init_batches=1, auxk=2)
    trainer = SAETraining(config, log_interval=1)
    for _ in range(3):
        trainer.step(torch.ones(6, 4, device=device))
    assert trainer.log[-1]["dead_share"] == 1 and trainer.statistics.sums.device.type == "cpu"
    other = SAETraining(config, log_interval=1)
    other.restore(*trainer.state(), device)
    other.step(torch.ones(6, 4, device=device))
    assert other.steps == trainer.steps + 1 and other.statistics.vectors == 18
    assert isinstance(other.sae, TopKSAE)
