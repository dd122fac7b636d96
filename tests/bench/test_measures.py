"""What PocketBench measures, on truths that are made up so that the answer is known."""

import pytest
import torch

from sae_lib.bench import measures
from sae_lib.bench.measures import Halves, Truths
from sae_lib.features.meaning import find_meaning, leave_out, linear_probe
from sae_lib.judges.attributes import Truth, attribute_values
from sae_lib.saes.topk import TopKSAE

VALUES = [" ".join(pair[::-1]) for pair in attribute_values()]
PICTURES, CELLS = 96, 16
STAR, RED, PLAIN = (VALUES.index(value) for value in ("star shape", "red colour", "plain material"))


def drawn(seed):
    """Each value in a third of the cells, independently of the others."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(PICTURES, CELLS, len(VALUES), generator=generator) < 1 / 3
    return Truth(present, torch.ones_like(present))


@pytest.fixture(scope="module")
def truths():
    return Truths(drawn(0), drawn(1))


@pytest.fixture(scope="module")
def perfect(truths):
    """One unit per value, which is active where the value shows and nowhere else."""
    return Halves(*(truth.present.float() for truth in truths))


def noise(units):
    generator = torch.Generator().manual_seed(2)
    return Halves(*(torch.rand(PICTURES, CELLS, units, generator=generator) for _ in range(2)))


def changed(halves, change):
    """The halves with `change(activations, truth)` done to copies of them."""
    return Halves(*(change(of.clone()) for of in halves))


def used(codes, truths, needed):
    """`use` where every value needs the same score."""
    found = find_meaning(*measures.read_units(codes, truths))
    return measures.use(codes, truths, found, torch.full((len(VALUES),), needed))


def absorbed(codes, truths, **settings):
    """`absorption` where every value needs a score of 0.1."""
    needed = torch.full((len(VALUES),), 0.1)
    return measures.absorption(codes, truths, measures.read_units(codes, truths), needed, **settings)


def test_a_measure_without_groups_is_that_of_the_pictures_left():
    numbers = torch.arange(32.0)
    replicates = measures.by_group(32, lambda kept: numbers[kept].mean().item())
    assert replicates[0] == numbers.mean()
    assert replicates[1] == (numbers.sum() - numbers[0] - numbers[16]) / 30
    assert len(replicates) == 17


def test_one_unit_per_value_reads_everything_and_noise_nothing(truths, perfect):
    for codes, low, high in ((perfect, 0.999, 1), (noise(len(VALUES)), -0.05, 0.05)):
        read = measures.probing(codes, truths, measures.probe_units(codes, truths))
        assert all(low <= of[0] <= high for of in read.values()), read


def test_a_value_held_by_two_units_needs_two(truths, perfect):
    halves = torch.arange(PICTURES) % 2 == 0

    def split(of):
        first, second = of * halves[:, None, None], of * ~halves[:, None, None]
        return torch.cat([first, second], -1)

    codes = changed(perfect, split)
    read = measures.probing(codes, truths, measures.probe_units(codes, truths))
    assert read["reads with 1"][0] < 0.7
    assert read["reads with 2"][0] > 0.99
    scores = used(codes, truths, 0.1)
    assert scores["features per value"][0] == 2 and scores["use"][0] == 1 and scores["coverage"][0] == 1


def test_units_that_read_no_better_than_needed_are_of_no_use(truths, perfect):
    codes = changed(perfect, lambda of: torch.cat([of[..., :10], noise(54)[0]], -1))
    scores = used(codes, truths, 0.5)
    assert scores["use"][0] == 10 / 64
    assert scores["coverage"][0] == 10 / len(VALUES)
    assert scores["features per value"][0] == 1


def test_nothing_that_means_something_gives_zeros_and_no_error(truths):
    codes = Halves(torch.zeros(PICTURES, CELLS, 4), torch.zeros(PICTURES, CELLS, 4))
    assert all((of == 0).all() for of in used(codes, truths, 0.1).values())
    assert absorbed(codes, truths) == (None, [])


def test_a_star_that_vanishes_in_red_stars_is_found_and_how_deep(truths, perfect):
    at = {id(of): truth for of, truth in zip(perfect, truths, strict=True)}

    def absorb(of, truth):
        of = of.clone()
        of[..., STAR] *= ~truth.present[..., RED]
        return of

    codes = Halves(*(absorb(of, at[id(of)]) for of in perfect))
    mean, holes = absorbed(codes, truths, enough=20)
    (star,) = [one for one in holes if one.value == STAR]
    assert star.partner == RED and star.unit == STAR
    assert 0.9 < star.depth[0] <= 1  # less what is deepest by chance
    others = [one.depth[0].item() for one in holes if one.value != STAR]
    assert max(map(abs, others)) < 0.15
    assert mean[0] == pytest.approx(torch.stack([one.depth for one in holes]).mean(0)[0].item())


def test_missing_cells_at_random_makes_no_hole(truths, perfect):
    generator = torch.Generator().manual_seed(3)
    codes = changed(perfect, lambda of: of * (torch.rand(of.shape, generator=generator) < 0.5))
    mean, holes = absorbed(codes, truths, enough=20)
    assert len(holes) > 10 and abs(mean[0]) < 0.05


def test_a_hole_is_known_to_the_cell():
    here = torch.ones(32, 4, dtype=torch.bool)
    partner = torch.zeros(32, 4, 2, dtype=torch.bool)
    partner[:, :2, 0] = True  # half of the cells of every picture
    fires = ~partner[..., 0]
    known = torch.ones_like(partner)
    which, depth = measures.hole(fires, here, partner, known, 10, torch.Generator().manual_seed(0))
    assert which == 0  # the second partner is nowhere
    assert torch.equal(depth, torch.ones(17, dtype=torch.float64))
    assert measures.hole(fires, here, partner, known, 65, torch.Generator()) is None
    assert measures.hole(~here, here, partner, known, 10, torch.Generator()) is None


def test_the_threshold_of_best_f1():
    truth = Truth(torch.tensor([[[True], [True], [False], [False], [True]]]), torch.ones(1, 5, 1, dtype=torch.bool))
    assert measures.best_threshold(torch.tensor([[3.0, 2, 1, 0, 0]]), truth, 0) == 1.5
    doubtful = truth._replace(valid=torch.tensor([[[True], [True], [True], [True], [False]]]))
    assert measures.best_threshold(torch.tensor([[0.0, 2, 1, 0, 9]]), doubtful, 0) == 1.5
    assert measures.best_threshold(torch.zeros(1, 5), truth, 0) == float("inf")


def test_erasing_a_value_takes_it_and_leaves_the_others(truths, perfect):
    codes, columns = perfect.scored, torch.eye(len(VALUES))
    x = Halves(*(of + 0.01 * torch.randn(of.shape, generator=torch.Generator().manual_seed(4)) for of in perfect))
    direction = linear_probe(x.matched, truths.matched)
    probe = measures.probe_units(perfect, truths)[0]
    lost = measures.erasure(codes, columns, x.scored @ direction, direction, probe, truths.scored)
    assert lost["erases"][0] > 0.6
    assert abs(lost["erases beside"][0]) < 0.01
    nothing = measures.erasure(0 * codes, columns, x.scored @ direction, direction, probe, truths.scored)
    assert nothing["erases"][0] == nothing["erases beside"][0] == 0


def test_an_sae_that_rebuilds_everything_and_one_that_rebuilds_nothing():
    x = torch.randn(32, 4, 6, generator=torch.Generator().manual_seed(5)) * torch.tensor([1.0, 1, 1, 1, 1, 0.01])
    sae = TopKSAE(6, 12, 6).requires_grad_(False)
    sae.encoder.weight.data = torch.cat([torch.eye(6), -torch.eye(6)])
    sae.decoder.weight.data = sae.encoder.weight.T.clone()
    measured = measures.reconstruction(sae, x)
    assert measured["explained variance"][0] == pytest.approx(1, abs=1e-4)
    assert measured["L0"][0] == 6 and measured["dead share"][0] == 0
    sae.decoder.weight.data[5] = 0  # the dimension of small variance is lost
    measured = measures.reconstruction(sae, x)
    assert measured["explained variance"][0] == pytest.approx(5 / 6, abs=1e-4)
    assert measured["total variance explained"][0] > 0.9999
    sae.latent_bias.data[:] = -100
    measured = measures.reconstruction(sae, x)
    assert measured["total variance explained"][0] == pytest.approx(0, abs=1e-6)
    assert measured["L0"][0] == 0 and measured["dead share"][0] == 1


def test_the_same_decoder_in_another_order_is_stable_and_a_random_one_is_not():
    generator = torch.Generator().manual_seed(6)
    columns, rate = torch.randn(64, 32, generator=generator), torch.rand(32, generator=generator)
    shuffled = columns[:, torch.randperm(32, generator=generator)]
    other = torch.randn(64, 32, generator=generator)
    for names, low, high in (([columns, shuffled], 0.999, 1.001), ([columns, other], 0, 0.4)):
        assert all(low <= samples[0] <= high for samples in measures.stability(names, rate).values())


def test_stability_looks_at_the_rare_and_the_frequent_apart():
    generator = torch.Generator().manual_seed(7)
    columns, rate = torch.eye(30), torch.linspace(0, 1, 30)  # the first never fires and does not count
    other = columns.clone()
    other[:, :10] = torch.eye(30)[:, torch.randperm(10, generator=generator)] * -1
    found = {name: samples[0].item() for name, samples in measures.stability([columns, other], rate).items()}
    assert found["stability, frequent"] == pytest.approx(1)
    assert found["stability, rare"] < 0.2
    assert 0.2 < found["stability"] < 0.8


def test_leaving_groups_out_is_the_same_for_all_measures(truths, perfect):
    count = len(leave_out(PICTURES))
    read = measures.probing(perfect, truths, measures.probe_units(perfect, truths))
    lost, _ = absorbed(perfect, truths, enough=20)
    assert {len(of) for of in (*read.values(), lost)} == {count}
