import numpy as np
import pytest
import torch

from sae_lib.editing.frontiers import (
    Columns,
    allowed_cost,
    best_of_other_half,
    best_strengths,
    choose_settings,
    compare_frontiers,
    cross_fitted,
    envelope,
    similarity_at,
    units_needed,
)
from sae_lib.editing.settings import EDIT_PROMPT, ORIGINAL, SIDE_EFFECTS, Setting
from sae_lib.editing.sweep import Sweep

WEAK, STRONG, ALL = Setting("SAE", 8, 1.0), Setting("SAE", 8, 2.0), Setting("SAE", 0, 1.0)


@pytest.fixture
def sweep():
    """Two cases: the first is edited by strength 1 alone, the second by strength 2 alone; all
    units spoil everything."""
    success = {ORIGINAL: [0.0, 0.0], EDIT_PROMPT: [1.0, 1.0], WEAK: [1.0, 0.0], STRONG: [0.5, 1.0], ALL: [1.0, 1.0]}
    rest = {ORIGINAL: [0.0, 0.0], EDIT_PROMPT: [0.5, 0.7], WEAK: [0.0, 0.0], STRONG: [0.1, 0.2], ALL: [1.0, 1.0]}
    scores = {
        each: {"success": torch.tensor(success[each]), "rest": torch.tensor(rest[each])}
        | {name: torch.tensor(rest[each]) for name in ("distance", "text edited", "image edited")}
        for each in success
    }
    return Sweep(["a", "b"], torch.tensor([1.0, 2.0]), {}, 0, scores, {})


def test_the_envelope_is_the_upper_concave_hull():
    x, y = envelope(torch.tensor([3.0, 0.0, 1.0, 2.0, 1.0]), torch.tensor([2.5, 0.0, 2.0, 1.0, 1.5]))
    assert x.tolist() == [0.0, 1.0, 3.0] and y.tolist() == [0.0, 2.0, 2.5]


def test_a_method_starts_at_the_untouched_picture_and_goes_on_level_behind_its_highest_point():
    found = similarity_at(np.array([0.25, 0.5, 2.0]), torch.tensor([0.5, 1.0]), torch.tensor([1.0, 0.2]))
    assert found.tolist() == [0.5, 1.0, 1.0]
    assert similarity_at(np.array([0.0, 1.0]), torch.tensor([0.5]), torch.tensor([-1.0])).tolist() == [0, 0]


def test_a_method_that_is_better_everywhere_is_better_by_as_much_and_the_same_method_by_nothing():
    first = torch.tensor([[[0.0, 0.5], [1.0, 0.5]]] * 20)  # half of the edits are free
    second = torch.tensor([[[0.0, 0.2], [1.0, 0.2]]] * 20)
    assert compare_frontiers(first, second, 1.0) == pytest.approx((0.3,) * 3)
    assert compare_frontiers(first, first, 1.0) == (0, 0, 0)


def test_a_method_that_changes_little_is_compared_with_one_that_changes_much():
    little, much = torch.tensor([[[0.0, 0.4]]] * 9), torch.tensor([[[1.0, 0.8]]] * 9)
    assert compare_frontiers(little, much, 1.0).value == pytest.approx(0)  # level at .4 against a ramp up to .8
    assert compare_frontiers(little, much, 0.5).value == pytest.approx(0.2)


def test_a_method_that_does_nothing_is_not_better_than_another_that_does_nothing():
    nothing = torch.zeros(9, 2, 2)
    assert compare_frontiers(nothing, nothing, 0.1) == (0, 0, 0)


def test_other_cases_and_no_allowance_are_refused():
    with pytest.raises(ValueError, match="both methods must edit the same ones"):
        compare_frontiers(torch.zeros(4, 2, 2), torch.zeros(3, 2, 2), 1.0)
    with pytest.raises(ValueError, match="distances up to 0 are compared: wanted a limit above 0"):
        compare_frontiers(torch.zeros(4, 2, 2), torch.zeros(4, 2, 2), 0.0)


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


def test_settings_are_chosen_whose_envelope_covers_most():
    points = torch.tensor([[0.5, 0.1], [0.1, 0.4], [0.9, 0.45], [0.4, 0.9]])
    assert choose_settings(points, 1, 1.0) == (3,) and choose_settings(points, 2, 1.0) == (1, 3)
    assert choose_settings(points, 3, 1.0) == (1, 2, 3)  # a third one adds nothing: rather that which does more alone
    with pytest.raises(ValueError, match="5 settings were asked for and there are 4"):
        choose_settings(points, 5, 1.0)


def test_a_case_gets_the_setting_that_is_best_on_the_other_half():
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert best_of_other_half(values).tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="1 cases cannot be split into halves"):
        best_of_other_half(values[:1])


def test_a_case_is_scored_where_the_other_half_is_best(sweep):
    assert cross_fitted(sweep, "SAE").tolist() == [0.5, 0.0]  # the second case chose 2 for the first, and the other way
    assert cross_fitted(sweep, "SAE", "rest").tolist() == pytest.approx([0.1, 0.0])


def test_of_each_number_of_units_the_best_strength_is_taken_and_all_units_are_none(sweep):
    assert best_strengths(sweep, "SAE", "judge") == [STRONG]
    assert Columns.of(sweep, "SAE", "judge").units == [8, 8]


def test_the_cost_allowed_is_the_rules_by_the_judge_and_the_edit_prompts_own_by_clip(sweep):
    assert allowed_cost(sweep, "judge") == SIDE_EFFECTS
    assert allowed_cost(sweep, "text") == pytest.approx(0.6)
