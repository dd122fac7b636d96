import pytest
import torch

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.updates import to_maps, to_vectors
from sae_lib.features.feature import (
    FeatureId,
    activation_maps,
    alikeness,
    colour_spread,
    match_rates,
    search_features,
    strength_unit,
)
from sae_lib.saes.statistics import FeatureStatistics
from sae_lib.saes.topk import TopKSAE

PROMPTS = ["a red circle", "a blue star", "a green square at sea", "a heart", "a tilted square"]


@pytest.fixture
def sae():
    torch.manual_seed(0)
    return TopKSAE(128, 64, 4).requires_grad_(False)


def test_a_feature_is_printed_as_the_paper_does_and_read_back():
    assert str(FeatureId("down.2.1", 2301)) == "down.2.1/2301"
    assert FeatureId.parse("down.2.1/2301") == FeatureId("down.2.1", 2301)


@pytest.mark.parametrize("text", ["down.2.1", "down.9.1/3", "mid.0/x"])
def test_what_names_no_feature_is_refused(text):
    with pytest.raises(ValueError, match="names no feature: wanted block/number"):
        FeatureId.parse(text)


def test_the_unit_of_strength_is_the_mean_and_a_dead_feature_has_none():
    two = torch.tensor([2.5, 0.0])
    statistics = FeatureStatistics(two, two, two, two, torch.tensor(10))
    assert strength_unit(statistics, 0) == 2.5
    with pytest.raises(ValueError, match="feature 1 never fired .*: it has no unit of strength"):
        strength_unit(statistics, 1)
    with pytest.raises(ValueError, match="feature 2 of an SAE with 2"):
        strength_unit(statistics, 2)


def test_activation_maps_are_the_dense_code_of_the_chosen_features(sae):
    update = torch.randn(3, 128, 2, 5)
    dense = to_maps(sae.encode(to_vectors(update)), 2, 5)
    chosen = torch.tensor([7, 0, 63])
    assert torch.equal(activation_maps(sae, update, chosen), dense[:, chosen])


def test_the_search_scores_a_feature_by_the_cosines_of_its_hits_over_all_its_top_pictures():
    pictures = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    top = torch.tensor([[0, 1], [1, 2], [2, 2]])
    text = torch.tensor([1.0, 0.0])  # cosines 1, 0.6, 0
    assert search_features(text, pictures, top, nearest=3).tolist() == pytest.approx([0.8, 0.3, 0.0])
    assert search_features(text, pictures, top, nearest=1).tolist() == pytest.approx([0.5, 0.0, 0.0])


def test_partners_fire_about_as_often_and_no_two_features_share_one():
    rates, others = torch.tensor([0.1, 0.11, 0.4]), torch.tensor([0.8, 0.1, 0.2, 0.001])
    assert match_rates(rates, others).tolist() == [1, 2, 0]


def test_a_feature_is_not_its_own_partner():
    rates = torch.tensor([0.1, 0.11, 0.4, 0.5])
    assert match_rates(rates, rates, torch.eye(4, dtype=torch.bool)).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize(
    ("rates", "forbidden", "message"),
    [
        ([0.1, 0.0], None, "a firing rate is 0"),
        ([0.1, 0.2, 0.3], None, "3 features and 2 others: too few"),
        ([0.1, 0.2], torch.tensor([[True, False], [True, False]]), "2 features and 2 others: too few"),
    ],
)
def test_what_has_no_partner_of_equal_rate_is_refused(rates, forbidden, message):
    with pytest.raises(ValueError, match=message):
        match_rates(torch.tensor(rates), torch.tensor([0.1, 0.2]), forbidden)


def test_alikeness_is_the_mean_cosine_over_pairs_of_different_pictures():
    embedded = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])  # cosines .6, 0, .8
    assert alikeness(embedded, torch.tensor([[0, 1, 2], [0, 0, 2]])).tolist() == pytest.approx([1.4 / 3, 1 / 3])


def test_the_colour_spread_is_0_where_a_feature_covers_one_colour_and_counts_no_other_pixel():
    picture = torch.zeros(1, 3, 4, 4)
    picture[:, 0, :2] = 1  # upper half red, lower half black
    upper, everywhere = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    upper[:, 0] = 3
    assert colour_spread(picture, upper).item() == 0
    assert colour_spread(picture, everywhere).item() == pytest.approx(127.5)
    assert colour_spread(picture, torch.zeros(1, 2, 2)).item() == 0


def test_noise_can_be_another_prompts(pipe):
    from sae_lib.activations.drawing import draw_pictures

    both = draw_pictures(pipe, PROMPTS[:2], CallSettings(1, 0.0))
    again = draw_pictures(pipe, PROMPTS[1:2], CallSettings(1, 0.0), [1])
    torch.testing.assert_close(again, both[1:], atol=1e-4, rtol=0)
