"""Numbers worked out by hand, and known features planted in a block: the measures must find what was put there."""

from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import nn

from sae_lib.activations.updates import capture_updates, to_vectors
from sae_lib.companion.run import Run
from sae_lib.companion.verdicts import Claim
from sae_lib.features.interventions import add_features, intervene
from sae_lib.features.meaning import (
    above_chance,
    average_precision,
    best_of,
    beyond_chance,
    both_signs,
    chance_scores,
    compare_reading,
    expected_scores,
    find_meaning,
    keep_top,
    leave_out,
    linear_probe,
    match_dictionaries,
    other_scenes,
    p_values,
    reading_scores,
    resample_precision,
    scene_samples,
    sparse_probes,
    spearman,
    spearman_samples,
)
from sae_lib.judges.attributes import Truth
from sae_lib.judges.intervals import bootstrap, interval_of
from sae_lib.models.blocks import BLOCKS
from sae_lib.pocket.world import ATTRIBUTES, attribute_maps, sample_scenes
from sae_lib.saes.controls import untrained
from sae_lib.saes.topk import TopKSAE

FAMILIES = ("colour", "shape", "background")
GRID, D_MODEL, SCENES = 8, 64, 80
SIZES = [len(ATTRIBUTES[name]) for name in FAMILIES]
VALUES = sum(SIZES)


def truth_of(*rows):
    """A truth of one scene, all of whose cells are valid."""
    present = torch.tensor(rows, dtype=torch.bool).T[None]
    return Truth(present, torch.ones_like(present))


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([0.9, 0.8, 0.7, 0.6], (1 + 2 / 3) / 2),  # hits at places 1 and 3
        ([0.6, 0.7, 0.8, 0.9], (1 / 2 + 2 / 4) / 2),  # at places 2 and 4
        ([0.5, 0.5, 0.5, 0.5], 2 / 4),  # one threshold: the base rate
        ([1.0, 0.0, 0.0, 0.0], 1 / 2 * 1 + 1 / 2 * 2 / 4),  # the zeros pass together
        ([1.0, 1.0, 1.0, 0.0], 2 / 3),
    ],
)
def test_average_precision_by_hand(scores, wanted):
    found = average_precision(torch.tensor(scores)[None, :, None], truth_of([1, 0, 1, 0]))
    torch.testing.assert_close(found, torch.tensor([[wanted]]))


def by_definition(scores, hits):
    """Recall gained at each distinct threshold times the precision there, one threshold after the other."""
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        passed = scores >= threshold
        now = (hits & passed).sum().item() / hits.sum().item()
        area += (now - recall) * (hits & passed).sum().item() / passed.sum().item()
        recall = now
    return area


def random_case(seed=0, scenes=6, cells=9, units=5, values=4):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-1, 4, (scenes, cells, units), generator=generator).clamp(min=0).float()  # many ties
    present, valid = (torch.rand(2, scenes, cells, values, generator=generator) < 0.5).unbind(0)
    return scores, Truth(present, valid | present)


def test_average_precision_is_its_definition_with_ties_and_doubtful_cells():
    scores, truth = random_case()
    found = average_precision(scores, truth)
    for unit in range(scores.shape[2]):
        for value in range(truth.present.shape[2]):
            valid = truth.valid[..., value]
            wanted = by_definition(scores[..., unit][valid], truth.present[..., value][valid])
            assert found[unit, value].item() == pytest.approx(wanted, abs=1e-5)


def test_what_is_shown_nowhere_or_everywhere_scores_0():
    truth = truth_of([0, 0, 0], [1, 1, 1])
    assert torch.equal(reading_scores(torch.tensor([3.0, 2, 1])[None, :, None], truth), torch.zeros(1, 2))


def test_a_weight_of_2_is_the_scene_twice_and_weights_of_1_are_no_resampling():
    scores, truth = random_case()
    once, twice = torch.ones(6), torch.tensor([2.0, 1, 0, 1, 1, 1])
    rows = torch.tensor([0, 0, 1, 3, 4, 5])
    found = resample_precision(scores[..., 1], truth.present[..., 2], truth.valid[..., 2], torch.stack([once, twice]))
    wanted = [reading_scores(scores, truth)[1, 2], reading_scores(scores[rows], truth.take(rows))[1, 2]]
    torch.testing.assert_close(found.float(), torch.stack(wanted))


def test_chance_is_0_and_perfect_is_1_whatever_the_base_rate():
    base = torch.tensor([0.1, 0.9])
    assert above_chance(torch.stack([base, torch.ones(2)]), base).tolist() == [[0, 0], [1, 1]]


def test_a_cell_shows_its_majority_and_a_mixed_cell_is_doubtful():
    red = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0]])  # two cells of 2 x 2 pixels
    truth = Truth.from_shares([torch.stack([red, 0 * red])[None].repeat(1, 1, 2, 1)[:, :, :4]], 2)
    assert truth.present[0].tolist() == [[True, False], [False, False]] * 2
    assert truth.valid[0, :, 0].tolist() == [True, True] * 2
    half = torch.zeros(1, 1, 2, 2)
    half[..., 0] = 1.0
    assert Truth.from_shares([half], 1).valid.tolist() == [[[False]]]


def test_meaning_is_chosen_on_one_half_and_scored_on_the_other():
    meaning = find_meaning(torch.tensor([[0.9, 0.1, 0.0]]), torch.tensor([[0.2, 0.5, 0.1]]))
    assert meaning.value.tolist() == [0]
    torch.testing.assert_close(meaning.score, torch.tensor([0.2]))
    torch.testing.assert_close(meaning.margin, torch.tensor([-0.3]))


def test_chance_is_the_score_of_the_units_own_value_with_other_scenes_truth():
    scores, truth = random_case()
    generator, values = torch.Generator().manual_seed(4), torch.tensor([0, 3, 1, 1, 2])
    paired = [truth.take(other_scenes(len(scores), generator)) for _ in range(3)]
    wanted = torch.stack([reading_scores(scores, each).gather(1, values[:, None])[:, 0] for each in paired])
    torch.testing.assert_close(chance_scores(scores, truth, values, 3, seed=4), wanted)


def test_a_p_value_counts_the_permutations_that_do_as_well_and_the_one_that_was_seen():
    by_chance = torch.tensor([[0.1, 0.5], [0.2, 0.5], [0.3, 0.5]])
    assert p_values(torch.tensor([0.2, 0.6]), by_chance).tolist() == [3 / 4, 1 / 4]


def test_benjamini_and_hochberg_by_hand():
    p = torch.tensor([0.9, 0.01, 0.03, 0.024])  # ranked .01 .024 .03 .9 against .0125 .025 .0375 .05
    assert beyond_chance(p).tolist() == [False, True, True, True]
    assert beyond_chance(torch.tensor([0.03, 0.02, 0.04, 0.9])).tolist() == [False] * 4


def test_no_scene_keeps_its_own_truth():
    generator = torch.Generator().manual_seed(0)
    for scenes in (2, 3, 10):
        for _ in range(20):
            order = other_scenes(scenes, generator)
            assert sorted(order.tolist()) == list(range(scenes)) and (order != torch.arange(scenes)).all()


def test_best_of_all_units_is_the_best_of_one_any_and_of_two_of_three_by_hand():
    matched = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.3]])
    torch.testing.assert_close(best_of(matched, 3), torch.tensor([[0.0, 1], [1, 0], [0, 0]]))
    torch.testing.assert_close(best_of(matched, 1), torch.full((3, 2), 1 / 3))
    torch.testing.assert_close(best_of(matched, 2), torch.tensor([[0.0, 2], [2, 0], [1, 1]]) / 3)


def test_expected_scores_weigh_the_units_that_stand_for_a_value():
    scores, truth = random_case()
    of_all, weights = reading_scores(scores, truth), torch.ones(1, len(scores))
    shares = best_of(of_all, 2)
    torch.testing.assert_close(
        expected_scores(scores, shares, truth, weights)[:, 0], (shares * of_all).sum(0).double(), atol=1e-5, rtol=0
    )


def test_a_basis_of_both_signs_keeps_its_largest_entries():
    x = torch.tensor([[1.0, -3.0, 2.0]])
    assert keep_top(both_signs(x), 2).tolist() == [[0, 0, 2, 0, 3, 0]]
    assert keep_top(torch.tensor([[-1.0, -2.0, 4.0]]), 2).tolist() == [[0, 0, 4]]


def test_probes_find_the_units_that_were_added_up_and_few_units_when_few_are_allowed():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 16, 6, generator=generator)
    present = torch.stack([2 * x[..., 1] - x[..., 4] > 0.5, x[..., 0] > 0], -1)
    truth = Truth(present, torch.ones_like(present))
    dense, (one, two) = linear_probe(x, truth), sparse_probes(x, truth, (1, 2))
    assert one[:, 0].nonzero().flatten().tolist() == [1] and two[:, 0].nonzero().flatten().tolist() == [1, 4]
    assert (two[1, 0] / two[4, 0]).item() == pytest.approx(-2, abs=0.3)
    torch.testing.assert_close(two[:, 0], dense[:, 0], atol=0.05, rtol=0)


def test_probes_read_sure_cells_alone_and_a_value_that_none_shows_gives_no_number_that_is_not_finite():
    x, present = torch.randn(8, 4, 3), torch.zeros(8, 4, 2, dtype=torch.bool)
    present[..., 0] = x[..., 2] > 0
    valid = torch.ones_like(present)
    valid[:, :2] = False
    spoilt = x.clone()
    spoilt[:, :2] = 1e6
    weights = linear_probe(spoilt, Truth(present, valid))
    torch.testing.assert_close(weights, linear_probe(x, Truth(present, valid)))
    assert weights.isfinite().all() and not weights[:, 1].any()


def test_samples_of_a_mean_spread_as_its_standard_error():
    x = torch.randn(160, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = leave_out(160, 16).double()
    samples = scene_samples(weights @ x / weights.sum(1), 4_000)
    assert samples[0].item() == pytest.approx(x.mean().item())
    assert samples[1:].std().item() == pytest.approx(x.std().item() / 160**0.5, rel=0.25)
    assert torch.equal(samples, scene_samples(weights @ x / weights.sum(1), 4_000))


def test_rank_correlation_with_ties_and_with_a_third_rank_taken_out():
    a = torch.tensor([1.0, 2, 3, 4])
    assert spearman(a, a.exp()) == pytest.approx(1) and spearman(a, -a) == pytest.approx(-1)
    assert spearman(a, torch.ones(4)) == 0
    assert spearman(a, torch.tensor([1.0, 1, 2, 2])) == pytest.approx(4 / (5 * 4) ** 0.5)  # ranks 1.5 1.5 3.5 3.5
    third = torch.tensor([1.0, 2, 4, 3])
    ab, at, bt = 0.4, 0.8, spearman(torch.tensor([3.0, 1, 2, 4]), third)
    wanted = (ab - at * bt) / ((1 - at**2) * (1 - bt**2)) ** 0.5
    assert spearman(a, torch.tensor([3.0, 1, 2, 4]), third) == pytest.approx(wanted)
    assert spearman(a, 2 * a, a) == 0


def test_samples_of_a_rank_correlation_begin_with_all_and_draw_the_same_units_each_time():
    a, third = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, 2, 4, 3])
    b = torch.tensor([3.0, 1, 2, 4])
    samples = spearman_samples(a, b, third, resamples=50)
    assert samples.shape == (51,) and samples[0].item() == pytest.approx(spearman(a, b, third))
    assert samples[1:].std() > 0 and torch.equal(samples, spearman_samples(a, b, third, resamples=50))
    torch.testing.assert_close(spearman_samples(a, 2 * b, resamples=50), spearman_samples(a, b, resamples=50))


def test_a_permuted_dictionary_is_matched_feature_by_feature():
    a, order = torch.randn(16, 12, generator=torch.Generator().manual_seed(0)), torch.randperm(12)
    partners, cosines = match_dictionaries(a, 3 * a[:, order])
    assert torch.equal(order[partners], torch.arange(12))
    torch.testing.assert_close(cosines, torch.ones(12))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: average_precision(torch.zeros(2, 4, 1), truth_of([1, 0, 0, 1])),
            "activations of .2, 4. .* has .1, 4.",
        ),
        (lambda: Truth.from_shares([torch.zeros(1, 2, 8, 8)], 3), "pictures of .8, 8. pixels do not fall into 3 x 3"),
        (lambda: Truth.from_shares([torch.zeros(1, 2, 8, 8)], 4, 0.2), "majority is 0.2; wanted 0.5 to 1"),
        (lambda: find_meaning(torch.zeros(3, 1), torch.zeros(3, 1)), "1 value: wanted at least 2"),
        (
            lambda: chance_scores(torch.zeros(1, 4, 1), truth_of([1, 0, 0, 1]), torch.tensor([0]), 3),
            "1 scene: wanted at least 2",
        ),
        (lambda: best_of(torch.zeros(3, 2), 4), "4 candidates of 3 units: wanted 1 to 3"),
        (lambda: match_dictionaries(torch.zeros(4, 3), torch.zeros(4, 2)), "decoders of .4, 3. and .4, 2."),
    ],
)
def test_what_cannot_be_measured_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


# --- the planted features ---------------------------------------------------------------------------------------------


class PlantedBlock(nn.Module):
    """A block whose update is a known sum of attribute directions, with noise: what it adds is `proj_out`'s output."""

    def __init__(self):
        super().__init__()
        self.proj_out, self.planted = nn.Identity(), None

    def forward(self, hidden):
        return hidden + self.proj_out(self.planted.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (GRID, -1))


class PlantedUNet(nn.Module):
    """Nothing but that block, at mid.0's place."""

    def __init__(self):
        super().__init__()
        self.mid_block = nn.Module()
        self.mid_block.attentions = nn.ModuleList([PlantedBlock()])

    def forward(self, hidden, timestep):
        return self.mid_block.attentions[0](hidden)


@pytest.fixture(scope="module")
def planted():
    """Scenes, the truth, a pipeline with the planted block, the SAE that has exactly the
    planted features, activations."""
    assert BLOCKS["mid.0"] == "unet.mid_block.attentions.0"
    generator = torch.Generator().manual_seed(0)
    maps = attribute_maps(sample_scenes(SCENES, 0, "test"))
    shares = [
        torch.stack([(maps[name] == value).float() for value in range(size)], 1)
        for name, size in zip(FAMILIES, SIZES, strict=True)
    ]
    truth = Truth.from_shares(shares, GRID)
    directions = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=generator)).Q  # columns
    cells = torch.nn.functional.adaptive_avg_pool2d(torch.cat(shares, 1), GRID)
    update = torch.einsum("dv,svhw->sdhw", directions[:, :VALUES], cells)
    unet = PlantedUNet()
    unet.mid_block.attentions[0].planted = update + 0.12 * torch.randn(update.shape, generator=generator)
    turbo = {"timesteps": torch.tensor([999.0])}
    state = {"scheduler": SimpleNamespace(**turbo), "num_timesteps": 1, "do_classifier_free_guidance": False}
    pipe = Mock(spec=StableDiffusionXLPipeline, unet=unet, interrupt=False, **state)
    pipe.progress_bar = lambda total: nullcontext()
    order = torch.randperm(D_MODEL, generator=generator)  # feature i is direction order[i]
    sae = TopKSAE(D_MODEL, D_MODEL, 3).requires_grad_(False)
    sae.decoder.weight.data, sae.encoder.weight.data = directions[:, order], directions[:, order].T.contiguous()
    with capture_updates(pipe, ["mid.0"]) as updates, pipe.progress_bar(total=1):
        unet(torch.zeros_like(update), torch.tensor(999.0))
    x = to_vectors(updates["mid.0"][0])
    return SimpleNamespace(truth=truth, pipe=pipe, sae=sae, order=order, directions=directions, x=x, cells=cells)


def halves(activations, truth):
    """Reading scores on the even and on the odd scenes."""
    maps = activations.unflatten(0, (SCENES, -1))
    rows = torch.arange(SCENES)
    return [reading_scores(maps[rows % 2 == i], truth.take(rows[rows % 2 == i])) for i in (0, 1)]


def test_planted_features_mean_what_was_planted_and_the_others_nothing(planted):
    even, odd = halves(planted.sae.encode(planted.x), planted.truth)
    meaning, known = find_meaning(even, odd), planted.order < VALUES
    assert torch.equal(meaning.value[known], planted.order[known])
    assert meaning.score[known].min() > 0.95 and meaning.margin[known].min() > 0.5
    assert meaning.score[~known].abs().max() < 0.1


def test_maps_paired_with_another_scenes_truth_score_at_chance(planted):
    maps = planted.sae.encode(planted.x).unflatten(0, (SCENES, -1))
    elsewhere = maps[other_scenes(SCENES, torch.Generator().manual_seed(1))].flatten(0, 1)
    even, odd = halves(elsewhere, planted.truth)
    own = find_meaning(*halves(planted.sae.encode(planted.x), planted.truth)).score
    assert find_meaning(even, odd).score.mean() < 0.1 * own.mean()


def test_random_directions_read_worse_than_planted_ones_and_shuffled_cells_score_at_chance(planted):
    generator = torch.Generator().manual_seed(2)
    directions = torch.nn.functional.normalize(torch.randn(D_MODEL, D_MODEL, generator=generator), dim=0)
    counted = {}
    activations = planted.sae.encode(planted.x)
    shuffled = torch.stack([column[torch.randperm(len(column), generator=generator)] for column in activations.T], 1)
    for name, each in (
        ("planted", activations),
        ("random", planted.x @ directions),
        ("shuffled", shuffled),
    ):
        even, odd = halves(each, planted.truth)
        counted[name] = (best_of(even, D_MODEL) * odd).sum(0).mean().item()
    assert counted["planted"] > 0.95 and counted["random"] < 0.65 and abs(counted["shuffled"]) < 0.05


# --- the rules of notebook 09, on a block that has the effect and on blocks that have not -----------------------------

HALVES = torch.arange(0, SCENES, 2), torch.arange(1, SCENES, 2)


@pytest.fixture(params=["planted", "permuted features", "dead block"])
def block(request, planted):
    """A name, and update vectors [scenes, cells, d_model]: as planted; the scenes' maps exchanged; a block
    that adds noise alone."""
    x, generator = planted.x.unflatten(0, (SCENES, -1)), torch.Generator().manual_seed(5)
    other = {
        "planted": lambda: x,
        "permuted features": lambda: x[other_scenes(SCENES, generator)],
        "dead block": lambda: 0.12 * torch.randn(x.shape, generator=generator),
    }
    return request.param, other[request.param]()


def word_of(samples, at_least=1e-6):
    run = Run("09_what_each_block_does", {"scale": "pocket", "source": ""})
    number = interval_of(samples)
    return Claim("a rule", at_least=at_least).judge(run, number.value, number[1:]).word.split()[0]


def test_reading_better_than_random_directions_holds_where_features_were_planted_and_nowhere_else(planted, block):
    name, x = block
    dictionaries = {"SAE": planted.sae, "random": untrained(planted.sae, 1)}
    units = {key: lambda rows, sae=sae: sae.encode(x[rows]) for key, sae in dictionaries.items()}
    count, found = compare_reading(units, planted.truth, HALVES, groups=8)
    gap = scene_samples((found["SAE"] - found["random"]).mean(0))
    assert count == D_MODEL and (word_of(gap) == "holds") == (name == "planted")


def test_planted_features_read_beyond_chance_and_those_of_a_permuted_or_dead_block_do_not(planted, block):
    name, x = block
    activations, planted_ones = planted.sae.encode(x), planted.order < VALUES
    matched, scored = (reading_scores(activations[rows], planted.truth.take(rows)) for rows in HALVES)
    meaning = find_meaning(matched, scored)
    chance = chance_scores(activations[HALVES[1]], planted.truth.take(HALVES[1]), meaning.value, 200)
    beyond = beyond_chance(p_values(meaning.score, chance))
    share = bootstrap(beyond[planted_ones].float())
    assert word_of(share, at_least=0.5) == ("holds" if name == "planted" else "fails")
    assert beyond[~planted_ones].float().mean() < 0.1


def test_few_planted_units_tell_what_the_linear_probe_tells_and_nothing_in_a_dead_block(planted, block):
    name, x = block
    matched, scored = (planted.truth.take(rows) for rows in HALVES)
    activations, eye = planted.sae.encode(x), torch.eye(VALUES)
    weights = leave_out(len(HALVES[1]), 8)
    (one,) = sparse_probes(activations[HALVES[0]], matched, (1,))
    few = expected_scores(activations[HALVES[1]] @ one, eye, scored, weights)
    most = expected_scores(x[HALVES[1]] @ linear_probe(x[HALVES[0]], matched), eye, scored, weights)
    assert all((each[:, 0].min() > 0.95) == (name == "planted") for each in (few, most))
    assert name == "planted" or max(few[:, 0].max(), most[:, 0].max()) < 0.3


def seen(planted):
    """Which values a linear model that reads the directions back sees in the U-Net's output: [scenes, values]."""
    with planted.pipe.progress_bar(total=1):
        hidden = planted.pipe.unet(torch.zeros(SCENES, D_MODEL, GRID, GRID), torch.tensor(999.0))
    read = torch.einsum("dv,sdhw->svhw", planted.directions[:, :VALUES], hidden)
    return (read.amax((-2, -1)) > 0.5).float()


def changes(planted, features, amounts, intended):
    """[scenes, 2]: the intended value's change, and how many other values came or went."""
    before = seen(planted)
    with intervene(planted.pipe, {"mid.0": add_features(planted.sae, features, amounts)}):
        change = seen(planted) - before
    aim = change.gather(1, intended[:, None])[:, 0]
    return torch.stack([aim, change.abs().sum(1) - aim.abs()], 1).tolist()


def test_a_planted_feature_writes_its_value_and_nothing_else(planted):
    before = seen(planted)
    lacking = [(scene, int((before[scene] == 0).nonzero()[0])) for scene in range(SCENES)]
    intended = torch.tensor([value for _, value in lacking])
    features = planted.order.argsort()[intended]  # of direction v
    assert changes(planted, features, torch.ones(SCENES), intended) == [[1.0, 0.0]] * SCENES
    assert changes(planted, features, torch.zeros(SCENES), intended) == [[0.0, 0.0]] * SCENES


def test_taking_a_planted_feature_away_erases_its_value_and_a_random_feature_does_nothing(planted):
    before = seen(planted)
    intended = before.argmax(1)
    features = planted.order.argsort()[intended]
    assert changes(planted, features, -torch.ones(SCENES), intended) == [[-1.0, 0.0]] * SCENES
    noise = planted.order.argsort()[torch.full((SCENES,), VALUES)]  # a direction that no attribute has
    assert changes(planted, noise, -torch.ones(SCENES), intended) == [[0.0, 0.0]] * SCENES


def test_planted_features_come_back_in_another_dictionary_and_the_rest_do_not(planted):
    generator = torch.Generator().manual_seed(3)
    other = torch.nn.functional.normalize(torch.randn(D_MODEL, D_MODEL, generator=generator), dim=0)
    known = planted.order < VALUES
    other[:, :VALUES] = planted.directions[:, :VALUES]
    _, cosines = match_dictionaries(planted.sae.decoder.weight, other)
    assert cosines[known].min() > 0.99 and cosines[~known].max() < 0.9
