"""Broken pictures: what is broken is labelled so, and nothing else."""

import itertools

import pytest
import torch

from notebooks.experiments.pocket.broken import FAR, KINDS, OFF_PALETTE, break_scenes, whole
from sae_lib.pocket import weights
from sae_lib.pocket.judge import JUDGED
from sae_lib.pocket.world import UNDEFINED, object_masks, palette, render, sample_scenes

SCENES = sample_scenes(12, 3)
NAMES = list(JUDGED)


@pytest.fixture(scope="module")
def vae():
    return weights.load("vae")


@pytest.fixture(scope="module")
def broken(vae):
    return {kind: break_scenes(SCENES, 0, vae, kind) for kind in KINDS}


def said(broken, row):
    """The attributes that are labelled as broken in one of the pictures."""
    return {name for name, label in zip(NAMES, broken.none[row], strict=True) if (label == 1).any()}


def test_the_same_seed_breaks_alike_and_another_otherwise(vae, broken):
    first, again, other = (break_scenes(SCENES, seed, vae) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first.pictures, other.pictures)
    assert all(map(torch.equal, broken["melted"], break_scenes(SCENES, 0, None, "melted")))


def test_a_whole_picture_is_the_render_and_nothing_of_it_is_none():
    pictures, none = whole(SCENES)
    assert torch.equal(pictures, render(SCENES))
    assert set(none.unique().tolist()) == {0, UNDEFINED}
    masks = object_masks(SCENES).any(1)
    assert (none[:, NAMES.index("colour")][masks] == 0).all()
    assert (none[:, NAMES.index("background")][masks] == UNDEFINED).all()
    assert (none[:, NAMES.index("style")] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_broken_looks_otherwise_and_stays_a_picture(broken, kind):
    pictures = broken[kind].pictures
    assert pictures.shape == (len(SCENES), 3, 64, 64) and pictures.min() >= 0 and pictures.max() <= 1
    assert ((pictures - render(SCENES)).abs().amax((1, 2, 3)) > 0.05).all()


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("morphed", {"shape"}),
        ("melted", {"shape"}),
        ("bitten", {"shape"}),
        ("recoloured", {"colour"}),
        ("blotched", {"colour"}),
        ("mottled", {"material"}),
        ("between", {"size", "pose"}),
        ("faded", set(JUDGED)),
        ("spliced", set(JUDGED)),
    ],
)
def test_each_kind_breaks_its_own_attributes(broken, kind, attributes):
    each = [said(broken[kind], row) for row in range(len(SCENES))]
    assert set.union(*each) <= attributes and sum(map(bool, each)) > len(SCENES) / 2
    assert max(map(len, each)) <= 2


def test_the_other_object_of_a_scene_stays_whole(broken):
    for row, scene in enumerate(SCENES):
        if len(scene.objects) == 2:
            shape = broken["melted"].none[row, NAMES.index("shape")]
            labels = [shape[mask].unique().tolist() for mask in object_masks([scene])[0]]
            assert [0] in labels, "one of the two is untouched"


def test_colours_off_the_palette_are_far_from_it_and_are_what_is_drawn(vae):
    for colour, mixed in itertools.product(palette().values(), OFF_PALETTE.values()):
        assert torch.dist(torch.tensor(colour), torch.tensor(mixed)) >= FAR
    plain = [scene for scene in sample_scenes(200, 0) if len(scene.objects) == 1 and scene.style == "cartoon"]
    plain = [scene for scene in plain if (scene.objects[0].material, scene.objects[0].content) == ("plain", "no eye")]
    pictures, none = break_scenes(plain, 0, vae, "recoloured")
    for picture, mask in zip(pictures, object_masks(plain)[:, 0], strict=True):
        drawn = picture[:, mask].median(1).values
        assert min((drawn - torch.tensor(colour)).abs().max() for colour in OFF_PALETTE.values()) < 0.05
    assert (none[:, NAMES.index("colour")] == 1).flatten(1).any(1).all()


def test_a_blotched_object_has_two_colours(vae):
    plain = [scene for scene in sample_scenes(200, 0) if len(scene.objects) == 1 and scene.style == "cartoon"]
    plain = [scene for scene in plain if (scene.objects[0].material, scene.objects[0].content) == ("plain", "no eye")]
    for picture, mask in zip(break_scenes(plain, 0, vae, "blotched").pictures, object_masks(plain)[:, 0], strict=True):
        drawn = picture[:, mask].T
        far = torch.cdist(drawn, torch.tensor(list(palette().values())))
        assert (torch.bincount(far.argmin(1), minlength=2) > 0.1 * len(drawn)).sum() >= 2


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind of break 'torn'; choose one of faded, spliced"):
        break_scenes(SCENES, 0, None, "torn")
