"""What features write: which are tried and where, by numbers worked out by hand; and drawn by the shipped models,
exactly what was asked."""

from types import SimpleNamespace

import pytest
import torch

from sae_lib.activations.drawing import draw_pictures
from sae_lib.assets import MODELS, Assets
from sae_lib.features import writing
from sae_lib.features.feature import FeatureId
from sae_lib.features.interventions import add_features, intervene
from sae_lib.features.reading import NOISE_SEED, Reading
from sae_lib.features.writing import (
    Strengths,
    Target,
    Trials,
    Written,
    amount_of,
    captions_for,
    choose_strengths,
    draw_lines,
    draw_written,
    ease_of_captions,
    effects_in_one_step,
    find_trials,
    first_of_blocks,
    measure_erasing,
    measure_writing,
    named_features,
    one_per_value,
    places_to_write,
    random_features,
    samples_by_block,
    samples_by_family,
    tried_again,
    well_read,
    well_written,
    write,
)
from sae_lib.judges.attributes import attribute_values, see_values
from sae_lib.models.prompts import load_pocket_captions

VALUES = [value for _, value in attribute_values()]
RED, NIGHT, PASTEL = (VALUES.index(value) for value in ("red", "night", "pastel"))


class Stub(Reading):
    """A reading of which only what the judge sees is known, and the features of two blocks: all active,
    all live but number 3."""

    def __init__(self, shows, means=None):
        self._given, self._means = torch.tensor(shows).float(), means
        mean = torch.tensor([2.0, 4.0, 1.0, 0.0])
        statistics = {block: SimpleNamespace(mean=mean) for block in ("up.1.2", "mid.0")}
        self.assets = SimpleNamespace(statistics=lambda: statistics, known=True)

    def __len__(self):
        return len(self._given)

    @property
    def shows(self):
        return self._given

    def means(self, block):
        return torch.ones(len(self), 4) if self._means is None else self._means

    def make(self, on_picture=None):
        return SimpleNamespace(name="stub")


def target(block, feature, value, score=0.5):
    return Target(FeatureId(block, feature), value, score)


TARGETS = [target("up.1.2", 0, 0), target("up.1.2", 1, 1), target("mid.0", 0, 0)]
TRIALS = Trials(TARGETS, torch.tensor([0, 0, 1, 2]), torch.tensor([5, 6, 5, 6]))


def pairs(trials):
    return list(zip(trials.which.tolist(), trials.rows.tolist(), strict=True))


def test_each_target_is_tried_in_pictures_of_its_own_that_do_not_show_its_value():
    reading = Stub([[0, 1], [0, 1], [1, 0], [0, 0]])
    assert pairs(find_trials(TARGETS, reading, 1)) == [(0, 0), (1, 3), (2, 3)]  # fitting: 0 1 3, then 2 3, then 0 1 3
    assert pairs(find_trials(TARGETS[:1], reading, 9)) == [(0, 0), (0, 1), (0, 3)]
    assert pairs(find_trials(TARGETS[:1], reading, 9, among=[1, 2])) == [(0, 1)]


def test_what_is_turned_off_is_tried_where_the_value_shows_and_the_feature_is_active():
    means = torch.zeros(4, 4)
    means[2, 0] = 1.0
    reading = Stub([[1, 1]] * 4, means)
    assert pairs(find_trials(TARGETS, reading, 2, showing=True)) == [(0, 2), (2, 2)]


def test_a_value_that_all_pictures_show_leaves_no_trial():
    trials = find_trials(TARGETS[:1], Stub([[1, 0]] * 3), 2)
    assert pairs(trials) == [] and trials.chosen == [] and trials.rows.dtype == torch.long


def test_trials_know_their_blocks():
    assert TRIALS.blocks == ["up.1.2", "mid.0"] and TRIALS.of_block("mid.0").tolist() == [3]
    assert pairs(TRIALS.take(torch.tensor([1, 3]))) == [(0, 6), (2, 6)]


def test_where_nothing_knows_the_truth_each_target_takes_the_next_rows():
    reading = Stub([[0, 0]] * 3)
    reading.assets.known = False
    assert pairs(find_trials(TARGETS[:2], reading, 2)) == [(0, 0), (0, 1), (1, 2), (1, 0)]
    assert pairs(find_trials(TARGETS[:2], reading, 2, among=range(1))) == [(0, 0), (0, 0), (1, 0), (1, 0)]
    assert captions_for([*TARGETS, TARGETS[0]], reading, ()).tolist() == [0, 1, 2, 0]


def test_trials_of_features_number_each_feature_once():
    ids = [FeatureId("mid.0", 3), FeatureId("up.1.2", 3), FeatureId("mid.0", 3)]
    trials = Trials.of_features(ids, torch.tensor([4, 4, 5]))
    assert pairs(trials) == [(0, 4), (1, 4), (0, 5)]
    assert trials.asked == [["mid.0/3", 4], ["up.1.2/3", 4], ["mid.0/3", 5]]


def test_each_target_gets_the_easiest_caption_that_is_left_and_does_not_show_its_value():
    reading = Stub([[0, 0], [0, 1], [1, 0], [0, 0]])
    assert captions_for(TARGETS, reading, [0, 2, 2, 1]).tolist() == [1, 2, 3]
    assert captions_for([TARGETS[0]] * 4, reading, [0, 0, 0, 0]).tolist() == [0, 1, 3, 0]  # none is left for the last


def test_features_with_a_name_come_before_those_that_vary_most():
    means = torch.tensor([[0.0, 1, 5, 0], [0.0, 3, 5, 9]])
    reading = Stub([[0]] * 2, means)
    reading.assets.saes = lambda: {"up.0.1": SimpleNamespace(n_f=91), "mid.0": SimpleNamespace(n_f=4)}
    found = [(str(each.id), each.label, each.value) for each in named_features(reading)]
    assert found == [
        ("up.0.1/90", "fur", -1),
        ("up.0.1/3", "varies most", -1),
        ("mid.0/3", "varies most", -1),
        ("mid.0/1", "varies most", -1),
    ]


def test_the_first_of_each_block_keep_their_order():
    assert first_of_blocks([TARGETS[2], *TARGETS], 1) == [TARGETS[2], TARGETS[0]]


def test_one_target_per_value_is_the_first_of_each_block():
    targets = [target("up.1.2", i, value) for i, value in enumerate((4, 4, 2, 3))] + [target("mid.0", 0, 4)]
    assert [each.id.feature for each in one_per_value(targets, 2)] == [0, 2, 0]


def test_a_random_feature_is_another_live_one_of_the_same_block():
    drawn = random_features(Stub([[0]]), [FeatureId("up.1.2", 0)] * 40)
    assert {each.feature for each in drawn} == {1, 2} and {each.block for each in drawn} == {"up.1.2"}
    lonely = Stub([[0]])
    lonely.assets.statistics()["mid.0"].mean = torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match="mid.0/1 is the only live feature of mid.0"):
        random_features(lonely, [FeatureId("mid.0", 1)])


def test_blocks_are_averaged_over_their_own_trials():
    samples = samples_by_block(TRIALS, torch.tensor([[1.0, 0], [2, 0], [6, 0], [5, 1]]), 50)
    assert samples["up.1.2"][0].tolist() == [3, 0] and samples["mid.0"][0].tolist() == [5, 1]
    assert samples["up.1.2"].shape == (51, 2)
    assert samples["mid.0"][:, 0].tolist() == pytest.approx([5.0] * 51)  # one feature in one caption


def test_a_caption_weighs_the_same_in_all_blocks():
    targets = [target(block, feature, 0) for block in ("up.1.2", "mid.0") for feature in (0, 0)]
    one_feature = Trials(targets, torch.tensor([0, 0, 2, 2]), torch.tensor([5, 6, 5, 6]))
    samples = samples_by_block(one_feature, torch.tensor([1.0, 3, 1, 3]), 50)
    torch.testing.assert_close(samples["up.1.2"], samples["mid.0"])
    assert samples["up.1.2"].std() > 0.1


def test_families_are_averaged_over_the_trials_of_their_values_and_are_gaps_where_too_little_was_tried():
    red, night = [target("up.1.2", feature, RED) for feature in (0, 1)], target("up.1.2", 2, NIGHT)
    trials = Trials([*red, night, target("mid.0", 0, RED)], torch.tensor([0, 1, 2, 2]), torch.tensor([5, 6, 5, 6]))
    samples = samples_by_family(trials, torch.tensor([1.0, 3, 1, 1]), 50)
    families = list(dict.fromkeys(family for family, _ in attribute_values()))
    assert samples["up.1.2"].shape == (len(families), 51) and samples["mid.0"].isnan().all()
    assert samples["up.1.2"][families.index("colour"), 0] == 2
    others = [row for row, family in enumerate(families) if family != "colour"]
    assert samples["up.1.2"][others].isnan().all()  # NIGHT: of one feature


def test_each_block_gets_the_strength_whose_rise_is_most_above_random_features(monkeypatch, tmp_path):
    rises = {
        5.0: [1, 0, 0, 0],
        10.0: [1, 1, 0, 1],
        20.0: [1, 1, 0, 1],
    }  # of TRIALS; random features rise in trial 3 at 20

    def measured(reading, trials, strength, seed=0):
        feature = torch.tensor(rises[strength]).float()
        random = torch.tensor([0.0, 0, 0, strength == 20.0])
        return torch.stack([torch.stack([0 * each, each, 0 * each + 3], 1) for each in (feature, random)], 1)

    monkeypatch.setattr(writing, "measure_writing", measured)
    monkeypatch.setattr(writing, "well_read", lambda reading, count: TARGETS)
    monkeypatch.setattr(writing, "find_trials", lambda targets, reading, captions: TRIALS)
    monkeypatch.setattr(writing, "cached", lambda name, inputs, make: (make(tmp_path), tmp_path)[1])
    found = choose_strengths(
        Stub([[1, 1, 1, 1]] * 6 + [[0, 0, 0, 0]]), 20, 2
    )  # captions 5 and 6: four values show, and none
    assert found.chosen == {"up.1.2": 10.0, "mid.0": 10.0}  # of equal rises the smaller strength
    assert found.rises["up.1.2"] == pytest.approx([1 / 3, 2 / 3, 2 / 3]) and found.rises["mid.0"] == [0, 1, 0]
    gains = 1.0 - (3 / 4 + 3) / 2, -3 / 4, 1.0 - 3
    rises = 1.0, 0.0, 1.0
    assert found.by_feature == {
        each.id: Written(rise, 3.0, gain, 10.0) for each, rise, gain in zip(TARGETS, rises, gains, strict=True)
    }


def test_of_each_block_what_rose_most_comes_first_then_what_changed_least_then_what_is_read_best():
    scores = (0.9, 0.8, 0.7, 0.6)
    targets = [target("up.1.2", feature, 0, score) for feature, score in enumerate(scores)] + [target("mid.0", 0, 0)]
    measured = [(0.0, 1.0), (0.5, 2.0), (0.5, 1.0), (0.5, 2.0)]
    by_feature = {each.id: Written(*pair, 0.0, 5.0) for each, pair in zip(targets, measured, strict=False)}
    assert [each.id.feature for each in well_written(targets, Strengths({}, {}, by_feature))] == [2, 1, 3, 0]


def test_the_first_of_a_first_try_are_tried_again_and_ordered_by_what_they_gain_less_what_else_changes(
    monkeypatch, tmp_path
):
    asked = []

    def measured(reading, trials, strength, seed):
        asked.append(pairs(trials))
        rises = {
            0: (1.0, 2.0),
            1: (float(strength > 5), 0.0),
            2: (1.0, 0.0),
        }  # target 0 changes two others of the two that show
        after, others = torch.tensor([rises[which] for which in trials.which.tolist()]).T
        random = torch.tensor(
            [float(which == 2) for which in trials.which.tolist()]
        )  # writes target 2's value by itself
        parts = (0 * after, after, others), (0 * after, random, others)
        return torch.stack([torch.stack(part, 1) for part in parts], 1)

    monkeypatch.setattr(writing, "measure_writing", measured)
    monkeypatch.setattr(writing, "cached", lambda name, inputs, make: (make(tmp_path), tmp_path)[1])
    reading = Stub([[0, 0, 1, 1]] * 4)
    ranked = [TARGETS[0], TARGETS[1], target("up.1.2", 2, 1), TARGETS[2]]
    found = tried_again(reading, ranked, per_block=2, captions=2)
    written = [Written(1.0, 0.0, 1.0, 10.0), Written(1.0, 2.0, 0.0, 5.0), Written(0.0, 0.0, 0.0, 5.0)]
    assert list(found.items()) == list(zip([TARGETS[1], TARGETS[0], TARGETS[2]], written, strict=True))
    assert asked == 3 * [[(0, 0), (0, 1), (1, 2), (1, 3), (2, 0), (2, 1)]]  # not the third of up.1.2


# --- drawn by the shipped models --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        reading = Reading(Assets("smoke", blocks="up.1.2,down.1.0,down.2.0"), later=True)
        reading.make()
        yield reading


def live(later, block, count=2):
    return [
        FeatureId(block, i) for i in (later.assets.statistics()[block].mean > 0).nonzero().flatten().tolist()[:count]
    ]


def test_an_amount_is_a_strength_times_the_feature_s_mean(later):
    (feature,) = live(later, "up.1.2", 1)
    mean = later.assets.statistics()["up.1.2"].mean[feature.feature].item()
    assert amount_of(later.assets, feature, 3.0) == amount_of(later.assets, feature, {"up.1.2": 3.0}) == 3 * mean


def test_strength_0_draws_the_unedited_pictures_bit_for_bit(later):
    features = [*live(later, "up.1.2", 1), *live(later, "down.2.0", 1)]
    drawn = write(later.assets, MODELS[0], later.prompts[:2], later.noise([0, 1]), features, [0.0, 0.0])
    assert torch.equal(drawn, later.unedited(MODELS[0], [0, 1]))


def test_pictures_of_several_blocks_in_one_call_are_those_of_each_block_alone(later):
    (a,), (b,) = live(later, "up.1.2", 1), live(later, "down.2.0", 1)
    masks = [torch.zeros(16, 16), None]
    masks[0][:8] = 1
    together = write(later.assets, MODELS[0], later.prompts[:2], later.noise([0, 1]), [a, b], [6.0, 8.0], masks)
    _, call = later.assets.call(MODELS[0], NOISE_SEED)
    for i, (each, amount) in enumerate(((a, 6.0), (b, 8.0))):
        change = add_features(later.assets.saes()[each.block], each.feature, amount, masks[i])
        with intervene(later.assets.pipe(), {each.block: change}):
            alone = draw_pictures(later.assets.pipe(), later.prompts[i : i + 1], call, later.noise([i]))
        torch.testing.assert_close(together[i], alone[0], atol=1e-4, rtol=0)
        assert (together[i] - later.unedited(MODELS[0], [i])[0]).abs().max() > 0.01


def test_a_span_of_all_steps_is_no_span_and_an_edit_of_the_last_step_is_less(later):
    features, asked = live(later, "up.1.2", 1), (later.prompts[:1], later.noise([0]))
    whole, spanned, last = (
        write(later.assets, MODELS[1], *asked, features, [5.0], span=span) for span in (None, (0, 4), (3, 4))
    )
    assert torch.equal(whole, spanned) and not torch.equal(whole, last)


def test_a_mask_of_another_block_s_grid_is_refused(later):
    (feature,) = live(later, "up.1.2", 1)
    with pytest.raises((ValueError, RuntimeError), match="8, 8|expects each tensor|wanted this block's grid"):
        write(later.assets, MODELS[0], later.prompts[:1], later.noise([0]), [feature], [1.0], [torch.ones(8, 8)])


def test_a_colour_is_written_on_the_objects_a_background_around_them_and_a_style_everywhere(later):
    targets = [
        target("up.1.2", 0, RED),
        target("down.2.0", 0, RED),
        target("down.1.0", 0, NIGHT),
        target("down.1.0", 0, PASTEL),
    ]
    trials = Trials(targets, torch.arange(4), torch.arange(4))
    places = places_to_write(later, trials)
    assert torch.equal(places[0], later.objects("up.1.2")[0].float())
    assert torch.equal(places[1], later.objects("down.2.0")[1].float()) and places[1].shape == (8, 8)
    assert torch.equal(places[2], (~later.objects("down.1.0")[2]).float()) and places[3] is None
    others = places_to_write(later, trials, MODELS[1])
    assert others[0].shape == (16, 16) and others[1].shape == (8, 8) and others[3] is None


def test_a_caption_of_several_objects_is_not_easy_and_a_sure_one_need_not_be(later):
    ease = ease_of_captions(later, sure=0.0)
    captions = load_pocket_captions(later.first + len(later), "held-out")[later.first :]
    assert [bool(each) for each in ease] == [len(caption.objects) == 1 for caption in captions]
    assert {1, 2} <= set(ease) and set(ease_of_captions(later, sure=1.1)) == {0}


def test_a_line_holds_the_unedited_picture_and_both_kinds_by_every_model(later):
    targets = [Target(live(later, "down.2.0", 1)[0], PASTEL, 0.0)]
    trials, lines = draw_lines(later, targets, torch.tensor([3]), 5.0)
    assert pairs(trials) == [(0, 3)] and lines.shape[:4] == (1, 3, 3, 3)
    drawn = draw_written(later, trials, 5.0, MODELS[1])
    assert torch.equal(lines[0, 1, 0], later.unedited(MODELS[1], [3])[0])
    assert torch.equal(lines[0, 1, 1:], torch.cat([drawn[kind] for kind in ("feature", "random feature")]))


def test_pictures_are_drawn_in_the_same_batches_whether_the_cache_has_what_came_before_or_not(later, monkeypatch):
    def draw(pipe, prompts, call, noise):
        batches.append([number - later.first for number in noise])
        return draw_pictures(pipe, prompts, call, noise)

    monkeypatch.setattr("sae_lib.features.reading.draw_pictures", draw)
    targets = [Target(live(later, "down.2.0", 1)[0], PASTEL, 0.0)]
    made, found = later.anew(), later.anew()
    pictures, all_batches = [], []
    for reading in (made, found):
        batches = []
        draw_lines(reading, targets, torch.tensor([3]), 7.0)
        all_batches.append(list(batches))
        pictures.append(reading.unedited(MODELS[0], [2, 3, 4]))
        all_batches.append(batches[len(all_batches[-1]) :])
    assert all_batches == [[[3], [3], [3]], [[2, 4]], [], [[2, 4], [3]]] and torch.equal(*pictures)


def test_writing_counts_what_the_judge_sees_before_and_after(later):
    features = live(later, "down.1.0")
    trials = Trials([Target(each, NIGHT, 0.0) for each in features], torch.tensor([0, 1]), torch.tensor([3, 4]))
    found = measure_writing(later, trials, {"down.1.0": 5.0}, distance=True)
    drawn = draw_written(later, trials, 5.0)
    seen = see_values(later.assets.judge, drawn["feature"])
    before = later.shows[trials.rows]
    assert found.shape == (2, 2, 4)
    assert torch.equal(found[:, 0, 0], before[:, NIGHT]) and torch.equal(found[:, 0, 1], seen[:, NIGHT])
    changed = before != seen
    changed[:, NIGHT] = False
    assert torch.equal(found[:, 0, 2], changed.sum(1).float())
    far = later.assets.distance(later.unedited(MODELS[0], [3, 4]), drawn["feature"])
    torch.testing.assert_close(found[:, 0, 3], far)
    assert torch.equal(measure_writing(later, trials, 5.0, kinds=("random feature",))[:, 0], found[:, 1, :3])


def test_a_feature_that_is_not_active_erases_nothing_and_the_block_s_ablation_is_beside_it(later):
    silent = next(f for f in range(32) if later.means("down.1.0")[2, f] == 0)
    trials = Trials([Target(FeatureId("down.1.0", silent), NIGHT, 0.0)], torch.tensor([0]), torch.tensor([2]))
    found = measure_erasing(later, trials)
    assert found.shape == (1, 3, 3)
    assert torch.equal(found[0, 0], found[0, 1]) and found[0, 0, 0] == found[0, 0, 1] and found[0, 0, 2] == 0


def test_effects_in_one_step_are_what_the_measures_find_and_are_drawn_once(later, monkeypatch):
    asked = {"features": 1, "captions": 2}
    effects = effects_in_one_step(later, later, **asked)
    assert len(effects.trials["on"].rows) > len(effects.trials["off"].rows) > 0
    on, strength = effects.trials["on"], effects.strengths.chosen
    assert torch.equal(effects.measured["on"], measure_writing(later.anew(), on, strength, distance=True))
    assert torch.equal(effects.measured["off"], measure_erasing(later, effects.trials["off"]))
    monkeypatch.setattr(writing, "draw_pictures", None)
    assert effects_in_one_step(later, later, **asked).folder == effects.folder


def test_the_best_read_features_are_live_and_ordered_by_score(later):
    targets = well_read(later, 3)
    for block in later.assets.blocks:
        mine = [each for each in targets if each.id.block == block]
        scores = [each.score for each in mine]
        assert scores == sorted(scores, reverse=True) and {each.id.feature for each in mine} <= set(
            later.live(block).tolist()
        )
