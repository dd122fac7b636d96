"""Where pictures change, by numbers worked out by hand."""

import pytest
import torch

from sae_lib.features.locality import inside_and_outside, most_active, quadrants


def test_a_change_inside_the_area_is_all_inside_and_none_in_the_next_picture_s():
    before, after = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    areas = torch.zeros(2, 2, 2)
    areas[0, 0, 0] = areas[1, 1, 1] = 1  # a quarter of 4 x 4 pixels each
    after[0, :, :2, :2], after[1, :, 2:, 2:] = 0.1, 0.1
    found = inside_and_outside(before, after, areas)
    assert found[0, 0].tolist() == pytest.approx([1 - 1 / 4, 0.3 * 255], rel=1e-5)
    outside = 4 * 0.3 * 255 / 12  # four of the twelve pixels outside the next picture's area
    assert found[0, 1].tolist() == pytest.approx([0 - 1 / 4, -outside], rel=1e-5)


def test_a_change_everywhere_favours_no_area_and_no_change_is_0():
    before = torch.zeros(2, 3, 4, 4)
    areas = torch.eye(2).bool()[:, None].repeat(1, 2, 1)
    assert inside_and_outside(before, before + 0.1, areas).abs().max() < 1e-4
    assert inside_and_outside(before, before, areas).tolist() == torch.zeros(2, 2, 2).tolist()


def test_the_most_active_feature_covers_at_most_half_of_the_grid():
    maps = torch.zeros(1, 4, 3)
    maps[0, :, 0] = 5.0  # everywhere
    maps[0, :2, 1] = torch.tensor([4.0, 3.0])
    maps[0, 3, 2] = 6.0
    features, areas = most_active(maps)
    assert features.tolist() == [1] and areas[0].tolist() == [[True, True], [False, False]]


def test_quadrants_follow_one_another_and_cover_the_grid():
    masks = quadrants(4, 6)
    assert masks[:4].sum(0).tolist() == torch.ones(4, 4).tolist() and torch.equal(masks[4], masks[0])
