import numpy as np
import pytest
import torch

from sae_lib.frontiers import (
    Columns,
    area_under,
    best_of_other_half,
    choose_settings,
    compare_frontiers,
    envelope,
    similarity_at,
    units_needed,
)


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


def test_units_are_read_where_both_first_reach_the_smaller_of_the_two_largest_gains():
    first = Columns([10, 100, 10, 1000], torch.tensor([[0.1, 0.4, 0.0, 0.8]] * 10))  # of two strengths the better one
    second = Columns([5, 5_000], torch.tensor([[0.0, 0.6]] * 10))
    found = units_needed(first, second)
    assert found.effect == pytest.approx(0.6) and found.first.value == pytest.approx(10**2.5)
    assert found.second == pytest.approx((5_000,) * 3) and found.times.value == pytest.approx(5_000 / 10**2.5)
    assert units_needed(second, first).times.value == pytest.approx(10**2.5 / 5_000)


def test_a_method_that_does_it_with_its_fewest_units_needs_these():
    found = units_needed(Columns([3, 9], torch.tensor([[0.5, 0.4]] * 4)), Columns([8], torch.tensor([[0.5]] * 4)))
    assert found.first.value == 3 and found.times.value == pytest.approx(8 / 3)


def test_units_for_no_gain_or_of_other_cases_are_refused():
    with pytest.raises(ValueError, match="the largest gain that both methods reach is -0.5: wanted one above 0"):
        units_needed(Columns([1], -0.5 * torch.ones(3, 1)), Columns([1], torch.ones(3, 1)))
    with pytest.raises(ValueError, match="2 units for 1 columns"):
        units_needed(Columns([1, 2], torch.ones(3, 1)), Columns([1], torch.ones(3, 1)))
    with pytest.raises(ValueError, match="3 and 4 cases: both methods must edit the same ones"):
        units_needed(Columns([1], torch.ones(3, 1)), Columns([1], torch.ones(4, 1)))


def test_the_area_is_that_of_the_envelope_from_the_untouched_picture_on_and_level_behind_the_top():
    one = torch.tensor([[0.5, 1.0], [1.0, 0.2]])  # a ramp up to 1 at half of the way, level then
    assert area_under(one, 1.0) == pytest.approx(0.75, abs=2e-3)
    assert area_under(torch.tensor([[0.5, -1.0]]), 1.0) == 0


def test_settings_are_chosen_whose_envelope_covers_most():
    points = torch.tensor([[0.5, 0.1], [0.1, 0.4], [0.9, 0.45], [0.4, 0.9]])
    assert choose_settings(points, 1, 1.0) == (3,) and choose_settings(points, 2, 1.0) == (1, 3)
    with pytest.raises(ValueError, match="5 settings were asked for and there are 4"):
        choose_settings(points, 5, 1.0)


def test_a_case_gets_the_setting_that_is_best_on_the_other_half():
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert best_of_other_half(values).tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="1 cases cannot be split into halves"):
        best_of_other_half(values[:1])
