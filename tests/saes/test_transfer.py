from itertools import pairwise

import pytest
import torch

from sae_lib.activations.denoising import CallSettings, stream_updates
from sae_lib.activations.updates import capture_updates, permute_dimensions, to_vectors
from sae_lib.judges.intervals import interval_of
from sae_lib.models.noise import prompt_generator
from sae_lib.saes import metrics
from sae_lib.saes.controls import PCA, RawUpdates, untrained
from sae_lib.saes.topk import TopKSAE
from sae_lib.saes.transfer import (
    HALVES,
    TransferStatistics,
    explained_samples,
    measure_halves,
    measure_transfer,
    share_of_rest,
)

PROMPTS = ["a red circle", "a blue square", "a green star"]
TURBO = CallSettings(steps=3, guidance_scale=0.0, seed=7, batch_size=2)
GUIDED = CallSettings(steps=2, guidance_scale=7.5, seed=7, batch_size=2)


@pytest.fixture(scope="module")
def sae():
    torch.manual_seed(0)
    return TopKSAE(128, 256, 16).requires_grad_(False)


@pytest.fixture(scope="module")
def measured(pipe, sae):
    return measure_transfer(pipe, PROMPTS, TURBO, {"mid.0": {"sae": sae, "raw": RawUpdates()}, "up.0.1": {"sae": sae}})


def all_updates(pipe, settings, block="mid.0"):
    """Update vectors of all prompts: one tensor `[prompts * positions, d_model]` a step."""
    parts = [updates[block] for _, updates in stream_updates(pipe, PROMPTS, [block], settings)]
    return [to_vectors(step) for step in torch.cat(parts, 1)]


def values(samples):
    return samples[:, 0].tolist()


# --- streaming


def test_every_prompt_is_run_once_in_order(pipe):
    indices = [list(indices) for indices, _ in stream_updates(pipe, PROMPTS, ["mid.0"], TURBO)]
    assert indices == [[0, 1], [2]]


def test_the_noise_does_not_depend_on_the_batch_size(pipe):
    one = all_updates(pipe, CallSettings(steps=3, guidance_scale=0.0, seed=7, batch_size=1))
    for a, b in zip(one, all_updates(pipe, TURBO), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_no_prompts_are_refused(pipe):
    with pytest.raises(ValueError, match="no prompts"):
        next(stream_updates(pipe, [], ["mid.0"], TURBO))


# --- statistics


def test_explained_variance_is_that_of_all_rows_pooled(pipe, sae, measured):
    statistics = measured["mid.0"]["sae"]
    for step, x in enumerate(all_updates(pipe, TURBO)):
        wanted = metrics.explained_variance(x.double(), sae(x).double())
        assert values(statistics.explained_variance())[step] == pytest.approx(wanted, abs=1e-5)
        published = metrics.explained_variance_as_published(x.double(), sae(x).double())
        assert values(statistics.explained_variance_as_published())[step] == pytest.approx(published, abs=1e-5)


def test_similarities_are_those_of_adjacent_steps(pipe, sae, measured):
    steps = all_updates(pipe, TURBO)
    codes = [sae.encode(x) for x in steps]
    pairs = list(pairwise(codes))
    similarities = [metrics.coefficient_similarity(a, b) for a, b in pairs]
    assert values(measured["mid.0"]["sae"].coefficient_similarity()) == pytest.approx(similarities, abs=1e-5)
    ious = [metrics.active_set_iou(a, b) for a, b in pairs]
    assert values(measured["mid.0"]["sae"].active_set_iou()) == pytest.approx(ious, abs=1e-3)
    raw = [metrics.coefficient_similarity(a, b) for a, b in pairwise(steps)]
    assert values(measured["mid.0"]["raw"].coefficient_similarity()) == pytest.approx(raw, abs=1e-5)


def test_of_a_guided_call_the_conditional_half_is_measured(pipe, sae):
    statistics = measure_transfer(pipe, PROMPTS, GUIDED, {"mid.0": {"sae": sae}})["mid.0"]["sae"]
    x = all_updates(pipe, GUIDED)[0]
    assert len(x) == 3 * 64
    assert values(statistics.explained_variance())[0] == pytest.approx(metrics.explained_variance(x, sae(x)), abs=1e-4)


def test_both_halves_of_a_guided_call_are_measured_in_one_run(pipe, sae):
    named = {"mid.0": {"sae": sae}}
    halves = measure_halves(pipe, PROMPTS, GUIDED, dict.fromkeys(HALVES, named))
    alone = measure_transfer(pipe, PROMPTS, GUIDED, named)["mid.0"]["sae"]
    torch.testing.assert_close(halves["conditional"]["mid.0"]["sae"].x, alone.x)
    parts = []
    for start in range(0, len(PROMPTS), GUIDED.batch_size):
        indices = range(start, min(start + GUIDED.batch_size, len(PROMPTS)))
        generator = [prompt_generator(GUIDED.seed, i) for i in indices]
        call = {"num_inference_steps": GUIDED.steps, "guidance_scale": GUIDED.guidance_scale, "output_type": "latent"}
        with capture_updates(pipe, ["mid.0"], guidance="both") as updates:
            pipe([PROMPTS[i] for i in indices], generator=generator, **call)
        parts.append(updates["mid.0"][0, 0])
    mean = torch.cat(parts).double().mean((2, 3))  # of the first step's unconditional half, per prompt and dimension
    torch.testing.assert_close(halves["unconditional"]["mid.0"]["sae"].x[0, :, 0], mean, atol=1e-3, rtol=1e-3)


def test_both_halves_of_a_call_without_guidance_are_refused(pipe, sae):
    with pytest.raises(
        ValueError, match='guidance is \'both\' at a guidance scale of 0.0; choose "conditional", or "both" above 1'
    ):
        measure_halves(pipe, PROMPTS, TURBO, {"unconditional": {"mid.0": {"sae": sae}}})


def test_there_is_one_pair_less_than_steps_and_of_one_step_there_is_none(pipe, sae, measured):
    assert measured["up.0.1"]["sae"].x.shape == (3, 3, 2, 128)
    assert measured["up.0.1"]["sae"].similarity.shape == (2, 3)
    one = measure_transfer(pipe, PROMPTS, CallSettings(1, 0.0), {"mid.0": {"sae": sae}})["mid.0"]["sae"]
    assert one.coefficient_similarity().shape == (0, 1001) and one.explained_variance(200).shape == (1, 201)


def hand_made(prompts=4, positions=5, seed=0, noise=0.3):
    """Statistics of one step of random vectors, and the vectors `[prompts, positions, 2]`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(prompts, positions, 2, generator=generator, dtype=torch.float64)
    x_hat = x + noise * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    moments = [torch.stack([v.mean(1), v.square().mean(1)], 1)[None] for v in (x, x - x_hat, x_hat)]
    return TransferStatistics(*moments, *[torch.zeros(0, prompts)] * 2), x, x_hat


def test_the_bootstrap_pools_the_rows_of_the_prompts_drawn():
    statistics, x, x_hat = hand_made()
    drawn = torch.randint(4, (1000, 4), generator=torch.Generator().manual_seed(0))
    pooled = [metrics.explained_variance(x[rows].flatten(0, 1), x_hat[rows].flatten(0, 1)) for rows in drawn]
    torch.testing.assert_close(statistics.explained_variance()[0, 1:], torch.tensor(pooled).double())


def test_explained_samples_are_those_of_the_measured_statistics(pipe, sae):
    reconstructors, settings = {"mid.0": {"sae": sae, "raw": RawUpdates()}}, CallSettings(1, 0.0, 0, 2)
    samples = explained_samples(pipe, PROMPTS, settings, reconstructors, 20, 3)
    assert list(samples) == ["mid.0/sae", "mid.0/raw"]
    expected = measure_transfer(pipe, PROMPTS, settings, reconstructors)["mid.0"]["sae"].explained_variance(20, 3)[0]
    assert torch.equal(samples["mid.0/sae"], expected)


def test_of_what_a_control_leaves_the_share_explained_is_0_for_the_control_and_1_for_all():
    control = torch.tensor([0.2, 0.5])
    torch.testing.assert_close(share_of_rest(control, control), torch.zeros(2))
    torch.testing.assert_close(share_of_rest(torch.tensor([0.6, 1.0]), control), torch.tensor([0.5, 1.0]))


def test_two_reconstructors_are_compared_on_the_same_prompts():
    (good, *_), (bad, *_) = hand_made(noise=0.1), hand_made(noise=0.5)
    gap = good.explained_variance()[0] - bad.explained_variance()[0]
    low, high = interval_of(gap)[1:]
    separate = [interval_of(statistics.explained_variance()[0]) for statistics in (good, bad)]
    assert 0 < low <= gap[0] <= high
    assert high - low < sum(interval.high - interval.low for interval in separate)


# --- controls


def test_pca_finds_the_direction_of_the_largest_variance():
    x = torch.tensor([[3.0, 4.0], [-3.0, -4.0], [0.8, -0.6], [-0.8, 0.6]]) + 10
    pca = PCA.fit(x.split(3), components=1)
    torch.testing.assert_close(pca.mean, torch.tensor([10.0, 10.0]))
    torch.testing.assert_close(pca.components.abs(), torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(pca.encode(x).abs().flatten(), torch.tensor([5.0, 5.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(pca.decode(pca.encode(x))[:2], x[:2])


def test_pca_with_all_components_loses_nothing_and_with_fewer_is_the_singular_vectors_best():
    x = torch.randn(200, 6) @ torch.randn(6, 6)
    full = PCA.fit([x], components=6)
    torch.testing.assert_close(full.decode(full.encode(x)), x, atol=1e-4, rtol=1e-4)
    pca = PCA.fit([x[:50], x[50:]], components=2)
    error = (x - pca.decode(pca.encode(x))).square().sum()
    assert error.item() == pytest.approx(torch.linalg.svdvals(x - x.mean(0))[2:].square().sum().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("chunks", "components", "message"),
    [
        ([], 1, "PCA of 0 vectors"),
        ([torch.zeros(1, 3)], 1, "PCA of 1 vectors"),
        ([torch.zeros(9, 3)], 4, "components is 4; wanted 1 to d_model = 3"),
    ],
)
def test_a_pca_that_is_not_defined_is_refused(chunks, components, message):
    with pytest.raises(ValueError, match=message):
        PCA.fit(chunks, components)


def test_permuting_dimensions_keeps_each_one_s_values_and_unties_them():
    x = torch.arange(1000.0)[:, None].repeat(1, 3)
    permuted = permute_dimensions(x, torch.Generator().manual_seed(0))
    assert torch.equal(permuted.sort(0).values, x)
    assert torch.corrcoef(permuted.T)[0, 1].abs() < 0.1
    assert torch.equal(permuted, permute_dimensions(x, torch.Generator().manual_seed(0)))


def test_an_untrained_sae_has_the_size_and_pre_bias_of_the_trained_one_and_nothing_else():
    sae = TopKSAE(128, 256, 16)
    sae.pre_bias.data += 1
    control = untrained(sae, seed=1)
    assert (control.d_model, control.n_f, control.k) == (sae.d_model, sae.n_f, sae.k)
    assert torch.equal(control.pre_bias, sae.pre_bias) and not torch.equal(control.encoder.weight, sae.encoder.weight)
    torch.testing.assert_close(control.decoder.weight.norm(dim=0), torch.ones(256))
    assert torch.equal(control.encoder.weight, untrained(sae, seed=1).encoder.weight)


def test_pca_of_16_bit_vectors_codes_float32_ones():
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    fit = PCA.fit([rows.half()], 2)
    assert fit.decode(fit.encode(rows)).dtype == torch.float32
