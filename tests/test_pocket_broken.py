"""Broken pictures: made the same for a seed, and labelled where something is broken and nowhere else."""

import pytest
import torch

from sae_lib.pocket.broken import KINDS, broken_pictures, fine_doubts
from sae_lib.pocket.judge import JUDGED, doubt_loss
from sae_lib.pocket.world import UNDEFINED, Object, Scene, object_masks, render, sample_scenes

STAR = Scene((Object("star", "red", "plain", "large", "upright", "no eye", "middle"),), "sea", "cartoon")


def lost(doubts):
    """The attributes that some pixel lacks."""
    return {name for name, doubt in zip(JUDGED, doubts, strict=True) if (doubt == 1).any()}


def test_the_same_seed_breaks_the_same_way():
    scenes = sample_scenes(12, 0)
    first, again, other = (broken_pictures(scenes, seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, again)) and not torch.equal(first[0], other[0])
    assert 0 <= first[0].min() and first[0].max() <= 1


@pytest.mark.parametrize(("kind", "name"), [("melted", "shape"), ("off palette", "colour"), ("vanishing", "colour")])
def test_an_object_that_is_broken_in_one_way_lacks_what_that_takes_away_on_its_own_pixels(kind, name):
    (picture,), (doubts,) = broken_pictures([STAR], 0, (kind,))
    (mask,) = object_masks([STAR])[:, 0]
    assert lost(doubts) == {name} and torch.equal(doubts[list(JUDGED).index(name)] == 1, mask)
    changed = (picture - render([STAR])[0]).abs().amax(0) > 0.02
    assert (changed & mask).any() and not changed[:10].any()


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_mixed_picture_lacks_the_attributes_in_which_its_two_scenes_differ(kind):
    scenes = sample_scenes(60, 1)
    pictures, doubts = broken_pictures(scenes, 0, (kind,))
    wholes = render(scenes)
    assert all(lost(each) for each in doubts)
    assert {name for each in doubts for name in lost(each)} == set(JUDGED)
    differs = [(picture - whole).abs().amax(0) > 0.02 for picture, whole in zip(pictures, wholes, strict=True)]
    assert sum(each.any().item() for each in differs) >= 57  # an eye may be cut where nothing is drawn


def test_whole_pictures_have_doubts_of_0_where_an_attribute_has_a_value():
    doubts = fine_doubts([STAR])[0]
    mask = object_masks([STAR])[0, 0]
    assert not lost(doubts)
    assert torch.equal(doubts[list(JUDGED).index("shape")] == 0, mask)
    assert torch.equal(doubts[list(JUDGED).index("background")] == UNDEFINED, mask)


def test_the_loss_asks_only_where_a_doubt_is_defined():
    broken = torch.full((1, len(JUDGED), 2, 2), float(UNDEFINED))
    broken[0, 0, 0, 0], broken[0, 0, 0, 1] = 1.0, 0.0
    doubt = torch.zeros(1, len(JUDGED), 2, 2)
    assert doubt_loss(doubt, broken).item() == pytest.approx(0.6931, abs=1e-4)
    doubt[:, 1:] = 50.0
    doubt[0, 0, 0] = torch.tensor([50.0, -50.0])
    assert doubt_loss(doubt, broken).item() == pytest.approx(0.0, abs=1e-4)
