"""The pocket world: seeded, exact, and the same in any batch."""

import random
import re

import pytest
import torch

from sae_lib.pocket.captions import sample_captions, vocabulary, write_caption
from sae_lib.pocket.world import (
    ATTRIBUTES,
    IMAGE_SIZE,
    OBJECT_ATTRIBUTES,
    UNDEFINED,
    UNSEEN_PAIRS,
    Object,
    Scene,
    attribute_maps,
    object_masks,
    render,
    sample_scenes,
)

RED_HEART = Object("heart", "red", "plain", "large", "upright", "no eye", "middle")
BLUE_CIRCLE = Object("circle", "blue", "plain", "small", "upright", "no eye", "left")


def test_the_same_seed_draws_the_same_scenes_and_captions():
    assert sample_scenes(20, seed=3) == sample_scenes(20, seed=3)
    assert sample_captions(20, seed=3) == sample_captions(20, seed=3)
    assert sample_scenes(20, seed=3) != sample_scenes(20, seed=4)


def test_a_scene_looks_the_same_in_any_batch():
    scenes = sample_scenes(70, seed=0)
    assert torch.equal(render(scenes)[65:66], render(scenes[65:66]))


def test_pictures_lie_between_0_and_1():
    images = render(sample_scenes(64, seed=0))
    assert images.shape == (64, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert 0 <= images.min() and images.max() <= 1


def test_the_middle_of_a_red_heart_is_red_and_its_corner_is_ground():
    image = render([Scene((RED_HEART,), "desert", "cartoon")])[0]
    assert image[:, 32, 32].tolist() == pytest.approx([0.88, 0.20, 0.16])
    assert image[:, 0, 0].tolist() == pytest.approx([0.87, 0.77, 0.58])


def test_a_small_circle_covers_the_area_of_its_radius():
    mask = object_masks([Scene((BLUE_CIRCLE,), "sea", "cartoon")])[0, 0]
    assert mask.sum().item() == pytest.approx(torch.pi * (0.92 * 9.5) ** 2, rel=0.03)
    y, x = mask.nonzero().float().mean(0) + 0.5
    assert (x.item(), y.item()) == pytest.approx((16.0, 32.0))


def test_objects_never_overlap_and_never_leave_the_picture():
    masks = object_masks(sample_scenes(1000, seed=1))
    assert not (masks[:, 0] & masks[:, 1]).any()
    border = torch.ones(IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert not (masks.any(1) & border).any()


def test_maps_name_each_attribute_where_it_is_and_nowhere_else():
    scene = Scene(
        (BLUE_CIRCLE, Object("star", "red", "dotted", "large", "tilted", "open eye", "right")), "night", "pastel"
    )
    masks, maps = object_masks([scene])[0], {name: field[0] for name, field in attribute_maps([scene]).items()}
    assert set(maps) == set(ATTRIBUTES)
    assert (maps["colour"][masks[1]] == OBJECT_ATTRIBUTES["colour"].index("red")).all()
    assert (maps["colour"][~masks.any(0)] == UNDEFINED).all()
    assert (maps["pose"][masks[0]] == UNDEFINED).all(), "a circle shows no pose"
    assert (maps["background"][masks.any(0)] == UNDEFINED).all() and (maps["style"] == 1).all()


def test_splits_do_not_share_combinations_and_training_never_shows_an_unseen_pair():
    pairs = {(thing.shape, thing.colour) for scene in sample_scenes(2000, seed=0) for thing in scene.objects}
    assert len(pairs) == 25 - len(UNSEEN_PAIRS) and not pairs & set(UNSEEN_PAIRS)
    assert all(
        any((thing.shape, thing.colour) in UNSEEN_PAIRS for thing in scene.objects)
        for scene in sample_scenes(50, 0, "unseen")
    )
    assert {scene.split() for scene in sample_scenes(50, 0, "test")} == {"test"}


def test_a_caption_states_only_what_is_true_and_says_every_word_it_states():
    rng = random.Random(0)
    for scene in sample_scenes(300, seed=5):
        caption = write_caption(scene, rng)
        for words, thing in zip(caption.objects, scene.objects, strict=True) if caption.relation else ():
            assert all(getattr(thing, name) == value for name, value in words.items())
        for words in caption.objects:
            said = [value for name, value in words.items() if name not in ("content", "position")]
            assert all(re.search(rf"\b{value}\b", caption.text) for value in said)
        assert all(getattr(scene, name) == value for name, value in caption.scene.items())
        assert set(caption.text.split()) <= set(vocabulary())


def test_captions_leave_attributes_open():
    captions = sample_captions(500, seed=0)
    stated = sum("colour" in words for caption in captions for words in caption.objects)
    objects = sum(len(caption.objects) for caption in captions)
    assert 0.75 < stated / objects < 0.85


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scene((), "sea", "pastel"), "one or two objects, got 0"),
        (lambda: Scene((RED_HEART,), "moon", "pastel"), "unknown background 'moon'; choose one of desert, sea"),
        (
            lambda: Scene((Object("cube", "red", "plain", "large", "upright", "no eye", "left"),), "sea", "pastel"),
            "unknown shape 'cube'",
        ),
        (lambda: sample_scenes(1, 0, "validation"), "unknown split 'validation'; choose one of train, test, unseen"),
    ],
)
def test_what_is_not_of_this_world_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
