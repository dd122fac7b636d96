import pytest
import torch

from sae_lib.editing.cases import Case
from sae_lib.editing.masks import JudgeFinder, NothingFound, find_mask, find_masks, masks_of_cases, to_grid
from sae_lib.judges.attributes import load_judge
from sae_lib.pocket.world import Object, Scene, render

STAR = Object("star", "red", "plain", "large", "upright", "no eye", "left")
HEART = Object("heart", "blue", "plain", "large", "upright", "no eye", "right")


@pytest.fixture(scope="module")
def finder():
    return JudgeFinder(load_judge())


@pytest.fixture(scope="module")
def picture():
    return render([Scene((STAR, HEART), "sea", "cartoon")])[0]


def test_a_noun_is_found_where_it_is(finder, picture):
    star, heart = (find_mask(finder, picture, noun, 8).cells for noun in ("star", "heart"))
    assert star[:, :4].any() and not star[:, 6:].any() and heart[:, 4:].any() and not heart[:, :2].any()
    assert torch.equal(find_mask(finder, picture, "red star", 8).cells, star)


def test_everything_background_and_all_but(finder, picture):
    star, heart = (find_mask(finder, picture, noun, 8).cells for noun in ("star", "heart"))
    assert find_mask(finder, picture, "#everything", 8).cells.all()
    assert torch.equal(find_mask(finder, picture, "~star", 8).cells, ~star)
    assert torch.equal(find_mask(finder, picture, "background", 8).cells, ~(star | heart))


def test_grids_of_several_blocks_are_found_in_one_look(finder, picture):
    looks = []

    def counting(picture, noun):
        looks.append(noun)
        return finder(picture, noun)

    found = find_masks(counting, picture, "star", [8, 16])
    assert looks == ["star"] and torch.equal(found[8].cells, find_mask(finder, picture, "star", 8).cells)
    assert torch.equal(found[16].cells, find_mask(finder, picture, "star", 16).cells)


def test_what_is_not_there_is_said(finder, picture):
    with pytest.raises(NothingFound, match="nothing in the picture is 'circle'"):
        find_mask(finder, picture, "circle", 8)


def test_a_mask_on_the_grid_holds_the_cells_whose_centres_the_blur_reaches():
    mask = torch.zeros(512, 512, dtype=torch.bool)
    mask[60:132, 60:132] = True  # the centres of cells 2 and 3 of 16; 15 pixels more reach those of cells 1 and 4
    assert to_grid(mask, 16, dilate=False).cells.nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    found = to_grid(mask, 16)
    assert found.cells[1:5, 1:5].all() and found.cells.sum() == 16 and found.specks == 0


def test_a_speck_keeps_the_cell_that_it_covers_most_and_is_counted():
    mask = torch.zeros(512, 512, dtype=torch.bool)
    mask[0, 33] = True
    found = to_grid(mask, 16, dilate=False)
    assert found.cells.nonzero().tolist() == [[0, 1]] and found.specks == 1
    speck = find_mask(lambda picture, noun: mask[None], torch.zeros(3, 512, 512), "speck", 16, dilate=False)
    assert speck.specks == 1 and speck.cells.sum() == 1


def test_masks_follow_the_kind_of_edit_and_failures_say_why(finder, picture):
    other = render([Scene((HEART,), "sea", "cartoon")])[0]

    def case(category, original, editing):
        return Case(str(category), category, "a", "b", original, editing)

    cases = [case(1, "heart", "star"), case(2, "star", "star"), case(3, "heart", "circle"), case(6, "star", "star")]
    found = masks_of_cases(cases, finder, torch.stack([picture] * 4), torch.stack([other] * 4), [16, 8])
    star = find_mask(finder, picture, "star", 8).cells
    assert [list(each.cells) for each in found[:3]] == [[8, 16]] * 3
    (source, target), added, removed = (each.cells[8] for each in found[:3])
    assert torch.equal(source, star) and not torch.equal(source, target)
    assert torch.equal(added[0], star) and torch.equal(added[1], star)  # add: the edited picture's, for both
    assert torch.equal(*removed)  # delete: the original's, for both
    assert found[3] == "nothing in the picture is 'star'"
