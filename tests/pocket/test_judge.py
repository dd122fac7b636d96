"""The dense judge reads pictures; what it says of held-out renders is nearly always true."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from notebooks.experiments.pocket.broken import break_scenes, whole
from notebooks.experiments.pocket.quality import judge_abstentions, judge_accuracy, see_through
from sae_lib.cache.artefact import ROOT
from sae_lib.judges.attributes import (
    attribute_values,
    judge_and_truth,
    judge_edit,
    judge_truth,
    load_judge,
    see_values,
    values_in,
)
from sae_lib.pocket import weights
from sae_lib.pocket.captions import Caption
from sae_lib.pocket.judge import JUDGED, NONE, WRONGLY, Judge, Judgement, SeenObject, calibrate, judge_images
from sae_lib.pocket.statements import caption_agreement, check_statements, least_sure, nearest_position
from sae_lib.pocket.world import OBJECT_ATTRIBUTES, Object, Scene, render, sample_scenes

STAR = {"shape": "star", "colour": "red", "material": "plain", "size": "large", "pose": "upright", "content": "no eye"}
HEART = STAR | {"shape": "heart", "colour": "blue"}
NOWHERE = torch.zeros(64, 64, dtype=torch.bool)
SEA = {"background": "sea", "style": "cartoon"}


def found(attributes, centre):
    return SeenObject(attributes, centre, NOWHERE)


def score(caption, *objects):
    return list(check_statements(caption, Judgement(objects, SEA)))


def test_a_statement_counts_where_the_judge_sees_it():
    caption = Caption("a blue star at sea", ({"shape": "star", "colour": "blue"},), {"background": "sea"}, None)
    assert score(caption, found(STAR, (32.0, 32.0))) == [
        ("number", True),
        ("shape", True),
        ("colour", False),
        ("background", True),
    ]


def test_a_caption_is_as_sure_as_its_least_sure_value_and_0_if_one_is_missing():
    star = SeenObject(STAR, (32.0, 32.0), NOWHERE, {"shape": 0.95, "colour": 0.9, "size": 0.1})
    judgement = Judgement((star,), SEA, {"background": 0.97, "style": 0.2})
    words = {"shape": "star", "colour": "red", "position": "middle"}
    assert least_sure(Caption("", (words,), {"background": "sea"}, None), judgement) == 0.9
    assert least_sure(Caption("", (words | {"size": "large"},), {}, None), judgement) == 0.1
    assert least_sure(Caption("", (words | {"colour": "blue"},), {}, None), judgement) == 0


def test_a_colour_counts_only_on_the_object_it_was_stated_of():
    caption = Caption("", ({"shape": "star", "colour": "blue"}, {"shape": "heart", "colour": "red"}), {}, None)
    statements = score(caption, found(STAR, (16.0, 32.0)), found(HEART, (48.0, 32.0)))
    assert [right for name, right in statements if name == "colour"] in ([False, False], [True, True])
    assert sum(right for _, right in statements) == 3, "number, and either both shapes or both colours"


def test_objects_are_matched_whatever_the_order_in_which_the_judge_names_them():
    caption = Caption("", ({"shape": "star"}, {"shape": "heart"}), {}, "horizontal")
    left, right = found(STAR, (16.0, 32.0)), found(HEART, (48.0, 32.0))
    assert all(hit for _, hit in score(caption, right, left))
    swapped = score(caption, found(STAR, (48.0, 32.0)), found(HEART, (16.0, 32.0)))
    assert dict(swapped)["position"] is False


def test_what_is_missing_is_not_found():
    caption = Caption("", ({"shape": "star", "position": "left"}, {"shape": "heart"}), {}, "vertical")
    assert [hit for _, hit in score(caption)] == [False] * 5
    assert sum(hit for _, hit in score(caption, found(STAR, (16.0, 32.0)))) == 2, "the star and its place"


def test_the_nearest_anchor_names_the_position():
    assert nearest_position((15.0, 30.0)) == "left"
    assert nearest_position((33.0, 50.0)) == "bottom"


def test_the_judge_reads_a_render():
    thing = Object("heart", "red", "striped", "large", "upright", "open eye", "top")
    (judgement,) = judge_images(load_judge(), render([Scene((thing,), "meadow", "cartoon")]))
    assert judgement.scene == {"background": "meadow", "style": "cartoon"}
    (seen,) = judgement.objects
    assert seen.attributes == {name: getattr(thing, name) for name in OBJECT_ATTRIBUTES if name != "position"}
    assert nearest_position(seen.centre) == "top"


@pytest.mark.parametrize("title", ["judge on renders", "judge on renders through the autoencoder"])
def test_the_model_card_says_of_the_judge_what_one_measures(title):
    stored = json.loads((ROOT / "figures" / "results" / "pocket_quality.json").read_text())["tables"][title]
    vae = weights.load("vae") if "autoencoder" in title else None
    for name, (right, asked) in judge_accuracy(load_judge(), count=200, seed=5, vae=vae).items():
        expected = stored[name][0] / stored[name][1]
        spread = (max(expected * (1 - expected), 0.01) * (1 / asked + 1 / stored[name][1])) ** 0.5
        assert abs(right / asked - expected) < 4 * spread, name


def test_agreement_counts_every_statement_once():
    things = (Object("star", "red", "plain", "large", "upright", "no eye", "middle"),)
    caption = Caption("a star", ({"shape": "star"},), {}, None)
    table = caption_agreement(load_judge(), render([Scene(things, "sea", "cartoon")] * 3), [caption] * 3)
    assert table["all"] == (6, 6) and table["shape"] == (3, 3)


def test_pictures_of_another_size_and_scales_without_truth_are_refused():
    with pytest.raises(ValueError, match=r"wants pictures \[batch, 3, 64, 64\], got \[1, 3, 32, 32\]"):
        judge_images(Judge(), torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="no judge at scale 'sdxl'"):
        load_judge("sdxl")


def test_the_values_seen_are_those_of_any_object_and_of_the_scene():
    things = (
        Object("star", "red", "plain", "large", "upright", "no eye", "left"),
        Object("heart", "blue", "dotted", "large", "tilted", "open eye", "right"),
    )
    seen = see_values(load_judge(), render([Scene(things, "sea", "cartoon")]))[0]
    named = {value for value, there in zip(attribute_values(), seen.tolist(), strict=True) if there}
    wanted = {(name, getattr(thing, name)) for thing in things for name in OBJECT_ATTRIBUTES}
    assert named == wanted | {("background", "sea"), ("style", "cartoon")}


def test_one_look_gives_the_judgements_and_the_truth():
    judge, pictures = load_judge(), render(sample_scenes(20, 0))
    judgements, truths = judge_and_truth(judge, pictures, [8, 16])
    assert torch.equal(values_in(judgements), see_values(judge, pictures))
    assert all(torch.equal(a, b) for a, b in zip(truths[8], judge_truth(judge, pictures, 8), strict=True))
    assert truths[16].present.shape == (20, 256, len(attribute_values()))


def test_each_picture_is_looked_at_once():
    judge, looked = load_judge(), []
    handle = judge.register_forward_hook(lambda _module, args, _output: looked.append(len(args[0])))
    judge_and_truth(judge, render(sample_scenes(20, 0)), [8])
    handle.remove()
    assert sum(looked) == 20


def test_what_the_judge_abstains_from_is_not_found():
    unsure = found(STAR | {"colour": NONE}, (32.0, 32.0))
    caption = Caption("a red star", ({"shape": "star", "colour": "red"},), {}, None)
    assert score(caption, unsure) == [("number", True), ("shape", True), ("colour", False)]
    seen = values_in([Judgement((unsure,), SEA | {"style": NONE})])[0]
    names = [name for (name, _), there in zip(attribute_values(), seen.tolist(), strict=True) if there]
    assert "colour" not in names and "style" not in names and "shape" in names


def test_what_the_judge_reads_does_not_depend_on_what_it_doubts():
    judge, pictures = load_judge(), render(sample_scenes(4, 0))
    logits = judge(pictures)
    assert torch.equal(torch.cat([logits[name] for name in ("object", *JUDGED)], 1), judge.reads(pictures))
    judge.doubts.head.bias.data += 100.0
    (judgement,) = judge_images(judge, pictures[:1])
    assert {*judgement.scene.values(), *judgement.objects[0].attributes.values()} == {NONE}
    assert torch.equal(judge(pictures)["shape"], logits["shape"])


def test_the_bound_lets_it_abstain_from_one_percent_of_what_is_whole():
    judge, pictures = load_judge(), whole(sample_scenes(60, 4)).pictures
    calibrate(judge, pictures)
    abstained, asked = judge_abstentions(judge, pictures)["all"]
    assert 0 < abstained <= (WRONGLY + 0.01) * asked


@pytest.mark.parametrize("through", [False, True])
def test_the_judge_names_whole_renders_and_abstains_from_broken_ones_as_often_as_the_model_card_says(through):
    judge, vae, scenes = load_judge(), weights.load("vae"), sample_scenes(150, 3, "test")
    title = "judge abstains, broken renders" + " through the autoencoder" * through
    stored = json.loads((ROOT / "figures" / "results" / "pocket_quality.json").read_text())["tables"][title]["all"]
    (fine, sure), (broken, none) = whole(scenes), break_scenes(scenes, 3, vae)
    if through:
        fine, broken = see_through(vae, fine), see_through(vae, broken)
    missed, asked = judge_abstentions(judge, fine, sure)["all"]
    assert asked > 1_200 and missed < 0.02 * asked
    abstained, asked = judge_abstentions(judge, broken, none, broken=True)["all"]
    expected = stored[0] / stored[1]
    spread = (expected * (1 - expected) * (1 / asked + 1 / stored[1])) ** 0.5
    assert asked > 120 and abs(abstained / asked - expected) < 4 * spread


def test_a_shape_is_deleted_where_nothing_is_left_of_it_and_not_where_the_judge_abstains():
    case = SimpleNamespace(category=3, truth=SimpleNamespace(attribute="object", value="star"))
    left = torch.zeros(64, 64, dtype=torch.bool)
    left[:, :32] = True
    star, heart, broken = (
        SeenObject(STAR | {"shape": shape}, centre, mask)
        for shape, centre, mask in (
            ("star", (16.0, 32.0), left),
            ("heart", (48.0, 32.0), ~left),
            (NONE, (16.0, 32.0), left),
        )
    )

    def done(*after):
        return judge_edit(case, Judgement((star, heart), SEA), Judgement(after, SEA), left)[0]

    assert done(heart) and not done(star, heart) and not done(broken, heart)
    assert done(replace(heart, attributes=heart.attributes | {"shape": NONE}))  # elsewhere: not the one that was to go


def test_an_edit_to_a_value_that_the_judge_abstains_from_is_not_done_and_what_stays_in_doubt_is_no_change():
    case = SimpleNamespace(category=6, truth=SimpleNamespace(attribute="colour", value="blue"))
    here = torch.ones(64, 64, dtype=torch.bool)
    star, blue, doubtful = (SeenObject(STAR | {"colour": c}, (32.0, 32.0), here) for c in ("red", "blue", NONE))
    before = Judgement((star,), SEA | {"background": NONE})
    assert judge_edit(case, before, Judgement((blue,), before.scene), here) == (True, 0.0)
    assert judge_edit(case, before, Judgement((doubtful,), before.scene), here) == (False, 0.0)
