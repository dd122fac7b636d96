import numpy as np
import pytest
import torch

from sae_lib.frontiers import compare_frontiers, envelope, similarity_at, units_for_effect


def test_the_envelope_is_the_upper_concave_hull():
    x, y = envelope(torch.tensor([3.0, 0.0, 1.0, 2.0, 1.0]), torch.tensor([2.5, 0.0, 2.0, 1.0, 1.5]))
    assert x.tolist() == [0.0, 1.0, 3.0] and y.tolist() == [0.0, 2.0, 2.5]


def test_nothing_is_extrapolated():
    found = similarity_at(np.array([0.5, 1.5, 3.5]), torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0]))
    assert np.isnan(found[[0, 2]]).all() and found[1] == 0.25


def test_a_method_that_is_better_everywhere_is_better_by_as_much_and_the_same_method_by_nothing():
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(60, 5, 2, generator=generator)
    first[..., 0] = torch.linspace(0, 1, 5) + 0.05 * first[..., 0]
    second = first.clone()
    second[..., 1] -= 0.3
    better, same = compare_frontiers(first, second), compare_frontiers(first, first)
    assert better.gap.low == pytest.approx(0.3, abs=1e-6) and same.gap == pytest.approx((0, 0, 0), abs=1e-9)
    assert min(better.grid) == pytest.approx(first[..., 0].mean(0).min().item())


def test_methods_without_a_common_distance_are_not_compared():
    first, second = torch.zeros(4, 2, 2), torch.zeros(4, 2, 2)
    first[:, 1, 0], second[..., 0] = 1.0, 2.0
    with pytest.raises(ValueError, match="the methods' distances have nothing in common"):
        compare_frontiers(first, second)
    with pytest.raises(ValueError, match="both methods must edit the same ones"):
        compare_frontiers(first, second[:3])


def test_units_for_an_effect_are_read_between_the_counts_on_a_logarithmic_scale():
    effect = torch.tensor([[0.0, 0.4, 0.8]] * 10)
    assert units_for_effect([10, 100, 1000], effect, 0.6).value == pytest.approx(10**2.5)
    assert units_for_effect([10, 100, 1000], effect, 0.9) == (np.inf,) * 3
    assert units_for_effect([10, 100, 1000], effect + 1, 0.9).value == 10
    with pytest.raises(ValueError, match="wanted one a column, rising"):
        units_for_effect([10, 5, 1], effect, 0.5)
