import pytest
import torch
from hypothesis import given, strategies as st

from sae_lib.judges.intervals import bootstrap_interval, bootstrap_share, bootstrap_trials, interval_of
from sae_lib.saes.metrics import (
    active_set_iou,
    coefficient_similarity,
    explained_variance,
    explained_variance_as_published,
    row_iou,
)

X = torch.tensor([[0.0, 0.0], [2.0, 4.0]])  # variances 1, 4
X_HAT = torch.tensor([[0.0, 1.0], [1.0, 3.0]])  # variances 1/4, 1; errors (0, -1), (1, 1): variances 1/4, 1


def test_explained_variance_is_the_mean_over_dimensions():
    assert explained_variance(X, X_HAT) == pytest.approx(((1 - 0.25 / 1) + (1 - 1 / 4)) / 2)


def test_as_published_the_error_is_compared_with_the_reconstruction():
    assert explained_variance_as_published(X, X_HAT) == pytest.approx(((1 - 0.25 / 0.25) + (1 - 1 / 1)) / 2, abs=1e-6)
    assert explained_variance_as_published(X, X_HAT) == explained_variance(X_HAT, X)


def test_of_an_uncorrelated_error_the_published_number_p_stands_for_1_over_2_minus_p():
    x_hat = torch.tensor([[2.0], [2.0], [-2.0], [-2.0]])
    error = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    published = explained_variance_as_published(x_hat + error, x_hat)
    assert published == pytest.approx(0.75)
    assert explained_variance(x_hat + error, x_hat) == pytest.approx(1 / (2 - published))


def test_perfect_is_1_the_mean_is_0_and_a_constant_error_is_free():
    x = torch.randn(50, 3)
    assert explained_variance(x, x) == 1
    assert explained_variance(x, x.mean(0).expand_as(x)) == pytest.approx(0, abs=1e-6)
    assert explained_variance(x, x + torch.tensor([5.0, -3.0, 1.0])) == pytest.approx(1, abs=1e-5)


def test_explained_variance_of_one_vector_is_refused():
    with pytest.raises(ValueError, match="of 1 vectors is not defined"):
        explained_variance(X[:1], X[:1])


def test_coefficient_similarity_is_the_mean_cosine_of_the_rows():
    a = torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    b = torch.tensor([[6.0, 8.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert coefficient_similarity(a, b) == pytest.approx((1 + 0.5**0.5 + 0) / 3)


def test_active_set_iou_counts_features_and_not_their_strength():
    a = torch.tensor([[9.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    b = torch.tensor([[0.1, 0.0, 2.0, 0.0], [3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert row_iou(a, b).tolist() == [pytest.approx(1 / 3), 1, 0]
    assert active_set_iou(a, b) == pytest.approx((1 / 3 + 1 + 0) / 3)


@given(st.integers(0, 1000))
def test_similarities_are_symmetric_and_1_of_a_vector_with_itself(seed):
    a, b = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(seed))
    a, b = a + 0.01, torch.where(b > 0.5, b, 0.0)
    assert coefficient_similarity(a, a) == pytest.approx(1) and active_set_iou(a, a) == 1
    assert coefficient_similarity(a, b) == pytest.approx(coefficient_similarity(b, a))
    assert active_set_iou(a, b) == active_set_iou(b, a)


def test_the_bootstrap_reports_the_mean_of_all_prompts_and_an_interval_around_it():
    value, low, high = bootstrap_interval(torch.arange(100.0))
    assert value == pytest.approx(49.5)
    standard_error = 28.87 / 100**0.5
    assert low == pytest.approx(49.5 - 1.96 * standard_error, abs=0.7)
    assert high == pytest.approx(49.5 + 1.96 * standard_error, abs=0.7)


def test_the_bootstrap_is_seeded():
    values = torch.arange(20.0)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_prompts_that_agree_leave_no_interval():
    assert bootstrap_interval(torch.full((10,), 0.5)) == (0.5, 0.5, 0.5)


def test_a_statistic_of_pooled_sums_is_taken_after_resampling():
    sums = torch.tensor(
        [[1.0, 2.0], [3.0, 4.0], [5.0, 14.0]]
    )  # the ratio of sums is 9 / 20, not the mean of the ratios
    value, low, high = bootstrap_interval(sums, lambda mean: mean[:, 0] / mean[:, 1])
    assert value == pytest.approx(9 / 20)
    assert 5 / 14 <= low < value < high <= 3 / 4


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(200):
        _, low, high = bootstrap_interval(torch.randn(40, generator=generator), resamples=200, level=0.8)
        covered += low <= 0 <= high
    assert 0.7 < covered / 200 < 0.88


def test_a_bootstrap_over_one_prompt_is_refused():
    with pytest.raises(ValueError, match="over 1 prompts is not defined"):
        bootstrap_interval(torch.ones(1))


def test_trials_are_averaged_and_their_features_and_captions_weighted():
    values = torch.tensor([[1.0, 0.0], [2.0, 1.0], [6.0, 1.0]])
    samples = bootstrap_trials(values, torch.tensor([0, 0, 1]), torch.tensor([4, 5, 4]), 30)
    assert samples.shape == (31, 2)
    torch.testing.assert_close(samples[0], torch.tensor([3.0, 2 / 3]).double())
    assert ((samples >= torch.tensor([1.0, 0.0])) & (samples <= torch.tensor([6.0, 1.0]))).all()


def test_a_number_weighs_the_same_in_every_call():
    few = bootstrap_trials(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]), torch.tensor([4, 5]), 30)
    has_a_say = torch.tensor([1.0, 1.0, 0.0])  # not the third trial, of another feature and caption
    values = torch.stack([has_a_say * torch.tensor([1.0, 3.0, 9.0]), has_a_say], 1)
    sums = bootstrap_trials(values, torch.tensor([0, 1, 7]), torch.tensor([4, 5, 90]), 30)
    torch.testing.assert_close(sums[:, 0] / sums[:, 1], few)


def test_features_that_differ_make_an_interval_that_more_captions_do_not_shrink():
    per_feature = torch.tensor([0.0, 1.0, 0.0, 1.0])
    wide = []
    for captions in (5, 500):
        features = torch.arange(4).repeat_interleave(captions)
        numbers = torch.arange(captions).repeat(4)
        _, low, high = interval_of(bootstrap_trials(per_feature[features], features, numbers))
        wide.append(high - low)
    assert wide[1] > 0.8 * wide[0] > 0.4


def test_the_two_level_interval_covers_the_truth_about_as_often_as_it_says():
    generator, covered = torch.Generator().manual_seed(0), 0
    features, captions = torch.arange(20).repeat_interleave(10), torch.arange(10).repeat(20)
    for _ in range(100):
        effect = torch.randn(20, generator=generator)[features] + torch.randn(10, generator=generator)[captions]
        _, low, high = interval_of(bootstrap_trials(effect, features, captions, 200), 0.8)
        covered += low <= 0 <= high
    assert 0.65 < covered / 100 < 0.95


def test_a_bootstrap_over_one_feature_is_refused():
    with pytest.raises(ValueError, match="over 1 features and 3 captions is not defined"):
        bootstrap_trials(torch.ones(3), torch.zeros(3).long(), torch.arange(3))


def test_a_share_of_none_or_all_leaves_room_for_three_of_n():
    assert bootstrap_share(torch.zeros(30)) == (0.0, 0.0, 0.1)
    assert bootstrap_share(torch.ones(2)) == (1.0, 0.0, 1.0)
    half = bootstrap_share(torch.tensor([0.0, 1.0] * 20))
    assert 0.3 < half.low < half.value < half.high < 0.7
