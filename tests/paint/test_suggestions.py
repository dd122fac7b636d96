import json

import pytest
import torch

from sae_lib.assets import Assets
from sae_lib.cache.results import result_path
from sae_lib.features.feature import FeatureId
from sae_lib.paint.edits import Edit, Layer, half_painted, whole_picture
from sae_lib.paint.painter import Painter
from sae_lib.paint.suggestions import GONE, NEW, RESULT, change_between, changes_seen, in_words, load_suggestions
from sae_lib.pocket.judge import NONE, Judgement, SeenObject

OFFERED = load_suggestions(Assets("smoke"))
MASK = torch.zeros(64, 64, dtype=torch.bool)
SQUARE = {"shape": "square", "colour": "blue", "material": "plain", "content": "no eye", "size": "large"}


def seen(*objects, background="sea"):
    things = [SeenObject(SQUARE | fields, (16.0 + 30 * place, 32.0), MASK) for place, fields in enumerate(objects)]
    return Judgement(tuple(things), {"background": background, "style": "cartoon"})


@pytest.mark.parametrize(
    "after, change",
    [
        (seen({"colour": "red"}), ("colour", "red", 0)),
        (seen({"colour": "red", "material": "striped"}), ("colour", "red", 1)),
        (seen({"shape": "star"}), ("shape", "star", 0)),
        (seen({}, background="night"), ("background", "night", 0)),
        (seen(), (GONE, "", 0)),
        (seen({}, {"colour": "red", "shape": "heart"}), (NEW, "heart", 0)),
        (seen({"content": "open eye"}), ("content", "open eye", 0)),
        (seen({}), None),
        (seen({"colour": "red", "shape": "star"}), None),
        (seen({"colour": "red"}, background="night"), None),
        (seen(background="night"), None),
        (seen({"colour": NONE}), None),
        (seen({"shape": "star"}, {}), None),
        (seen({}, {}, {}), None),
    ],
)
def test_a_change_is_of_one_thing_while_shape_colour_and_background_stay(after, change):
    assert change_between(seen({}), after) == change


def test_nothing_is_said_of_pictures_without_one_sure_object():
    for before in (seen(), seen({}, {}), seen({"shape": NONE}), seen({}, background=NONE)):
        assert change_between(before, seen({"colour": "red"})) is None


def test_three_edits_that_change_different_things_are_offered_and_each_says_what_it_does():
    assert len({(one.kind, one.value) for one in OFFERED}) == len(OFFERED) == 3
    for one in OFFERED:
        assert one.words == in_words(one.kind, one.value, one.words.split()[2] if one.kind != "background" else "")
        assert one.count == f"{one.worked} of {len(one.seeds)} seeds"


@pytest.mark.parametrize("one", OFFERED, ids=lambda one: f"{one.kind} {one.value}")
def test_an_offered_edit_works_in_nine_of_ten_seeds_and_in_the_one_that_it_shows(one):
    assert len(one.seeds) >= 10 and one.worked >= 0.9 * len(one.seeds) and one.edit.seed in one.seeds
    drawn = Painter(Assets("smoke")).draw(one.edit)
    (change,) = changes_seen(Assets("smoke"), drawn.before[None], drawn.after[None])
    assert (change.kind, change.value) == (one.kind, one.value)


def test_the_seeds_of_the_test_are_none_of_those_that_an_edit_was_chosen_in():
    from notebooks.experiments.suggestions import CHOSEN_IN, SWEPT_IN, TESTED, TESTED_FROM, TRIED_IN

    assert max(*SWEPT_IN, *TRIED_IN, *CHOSEN_IN) < TESTED_FROM
    for one in json.loads(result_path(RESULT).read_text())["result"]["tested"]:
        assert len({*one["seeds"]}) == TESTED and min(one["seeds"]) >= TESTED_FROM


def test_suggestions_belong_to_the_shipped_models_and_saes():
    assert not load_suggestions(Assets("sdxl", "random/16")) and not load_suggestions(
        Assets("smoke", sae_folder="saes")
    )
    assert not load_suggestions(Assets("smoke", blocks="mid.0"))


def test_a_half_painted_edit_has_the_left_half_of_the_painted_columns():
    mask = ((0.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.5))
    layers = (Layer(FeatureId("mid.0", 1), mask=mask), Layer(FeatureId("mid.0", 2)))
    half = half_painted(Edit("a heart", layers=layers))
    assert half.layers[0].mask == ((0.0, 1.0, 1.0, 0.0), (0.0,) * 4) and half.layers[1].mask == ((1.0, 0.0),) * 2
    assert all(layer.mask is None for layer in whole_picture(half).layers)
