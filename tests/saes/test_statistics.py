import pytest
import torch

from sae_lib.saes.statistics import FeatureStatistics, RunningStatistics
from sae_lib.saes.topk import TopKSAE


def test_statistics_are_those_of_the_non_zero_activations():
    running = RunningStatistics(4)
    running.add(torch.tensor([[2.0, 1.0], [4.0, -1.0]]), torch.tensor([[0, 1], [0, 1]]))
    running.add(torch.tensor([[6.0, 0.0]]), torch.tensor([[0, 2]]))
    statistics = running.result()
    assert statistics.mean.tolist() == [4.0, 1.0, 0.0, 0.0]
    torch.testing.assert_close(statistics.std, torch.tensor([(8 / 3) ** 0.5, 0.0, 0.0, 0.0]))
    assert statistics.max.tolist() == [6.0, 1.0, 0.0, 0.0]
    torch.testing.assert_close(statistics.firing_rate, torch.tensor([1.0, 1 / 3, 0.0, 0.0]))
    assert statistics.vectors == 3


def test_of_nothing_all_are_zero():
    assert all(not part.any() for part in RunningStatistics(3).result())


def test_saved_and_loaded_they_are_the_same(tmp_path):
    running = RunningStatistics(3)
    running.add(torch.rand(5, 2), torch.randint(3, (5, 2)))
    TopKSAE(2, 3, 2).save(tmp_path)
    running.result().save(tmp_path)
    for saved, loaded in zip(running.result(), FeatureStatistics.load(tmp_path), strict=True):
        assert torch.equal(saved, loaded)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no statistics.safetensors in .*train the SAE again"):
        FeatureStatistics.load(tmp_path)
