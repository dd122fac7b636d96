"""What is said to be true of cells, by hand; what the judge itself says is in tests/pocket/test_judge.py."""

import torch

from sae_lib.judges.attributes import Truth, attribute_values, exact_truth, mean_by_family
from sae_lib.pocket.world import sample_scenes


def test_truths_disagree_on_a_share_of_the_cells_that_show_a_value_by_either():
    one = Truth(torch.tensor([[[True], [True], [False], [True]]]), torch.tensor([[[True], [True], [True], [False]]]))
    other = Truth(torch.tensor([[[True], [False], [False], [False]]]), torch.ones(1, 4, 1, dtype=torch.bool))
    assert one.disagreement(other).tolist() == other.disagreement(one).tolist() == [0.5]  # the fourth cell is doubtful
    assert one.disagreement(one).tolist() == [0]


def test_means_by_family_are_over_its_values():
    values = attribute_values()
    families = list(dict.fromkeys(name for name, _ in values))
    numbers = torch.tensor([float(families.index(name)) for name, _ in values])
    assert mean_by_family(numbers).tolist() == list(range(len(families)))
    assert mean_by_family(numbers[:, None].expand(-1, 3)).shape == (len(families), 3)


def test_exact_truth_is_what_the_scene_says():
    scenes, values = sample_scenes(3, 0, "test"), attribute_values()
    truth = exact_truth(scenes, 8)
    style = values.index(("style", scenes[0].style))
    assert truth.present.shape == (3, 64, len(values)) and truth.present[0, :, style].all()
    shown = {values[i] for i in truth.present[0].any(0).nonzero().flatten().tolist()}
    things = [scenes[0], *scenes[0].objects]
    assert all(value in [getattr(thing, name, None) for thing in things] for name, value in shown)
