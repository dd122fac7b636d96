"""The pictures that were labelled by eye, and the comparison of a judge with what was seen."""

import torch

from sae_lib.pocket.by_eye import NAMED, SEEN, UNNAMED, Labelled, compare_with_eye, count_answers, load_by_eye
from sae_lib.pocket.judge import NONE, Judgement, SeenObject
from sae_lib.pocket.world import ANCHORS, ATTRIBUTES

STAR = {"position": "left", "shape": "star", "colour": NONE, "material": "plain", "content": "no eye"}
SEA = {"background": "sea", "style": "cartoon"}


def found(position, **attributes):
    look = {"shape": "star", "colour": "red", "material": "plain", "content": "no eye"} | attributes
    return SeenObject(look, ANCHORS[position], torch.ones(64, 64, dtype=torch.bool))


def compared(objects, *judged, scene=SEA):
    (answers,) = compare_with_eye([Labelled(torch.zeros(3, 64, 64), False, objects, SEA)], [Judgement(judged, scene)])
    return answers


def test_a_hundred_pictures_are_labelled_with_words_of_the_world_half_of_them_edited():
    labelled = load_by_eye()
    assert len(labelled) == 100 and sum(each.edited for each in labelled) == 50
    assert all(
        each.picture.shape == (3, 64, 64) and 0 <= each.picture.min() <= each.picture.max() <= 1 for each in labelled
    )
    for each in labelled:
        assert each.objects and {thing["position"] for thing in each.objects} <= set(ATTRIBUTES["position"])
        for values in (*each.objects, each.scene):
            assert all(value in (*ATTRIBUTES[name], NONE) for name, value in values.items())
        assert set(each.scene) | set(each.objects[0]) - {"position"} == set(SEEN)


def test_an_answer_is_the_same_another_or_an_abstention_and_where_the_eye_names_none_one_of_two():
    answers = compared([STAR], found("left", material="striped", content=NONE))
    assert answers[:5] == [
        ("number", "same"),
        ("shape", "same"),
        ("colour", "answers"),
        ("material", "other"),
        ("content", "abstains"),
    ]
    assert compared([STAR], found("left", colour=NONE))[2] == ("colour", "abstains too")
    assert compared([STAR], found("left"), scene=SEA | {"style": "pastel"})[-1] == ("style", "other")


def test_an_object_is_looked_for_where_the_eye_saw_it_but_a_single_one_anywhere():
    other = STAR | {"position": "right", "shape": "heart"}
    assert compared([STAR, other], found("right", shape="heart"), found("left"))[1::4][:2] == [
        ("shape", "same"),
        ("shape", "same"),
    ]
    assert ("shape", "same") in compared([STAR], found("bottom"))
    missed = compared([STAR, other], found("left"))
    assert missed[0] == ("number", "other")
    assert missed[5:8] == [(name, "abstains") for name in SEEN[:4] if name != "colour"]  # its colour had no name


def test_answers_are_counted_by_picture():
    answers = [[("shape", "same"), ("colour", "other")], [("shape", "answers"), ("colour", "abstains")]]
    assert count_answers(answers, NAMED[:1], NAMED).tolist() == [[1, 2], [0, 1]]
    assert count_answers(answers, UNNAMED[:1], UNNAMED, "shape").tolist() == [[0, 0], [0, 1]]
