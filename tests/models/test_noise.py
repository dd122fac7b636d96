import pytest
import torch

from sae_lib.models.noise import Noise, prompt_generator

SHAPE = (4, 8, 8)


def draws(rule, indices, count=2, seed=3):
    noise = Noise(rule, seed, indices, SHAPE)
    return torch.stack([noise.draw() for _ in range(count)])


@pytest.mark.parametrize("rule", ["prompt", "batch of 50"])
def test_a_prompt_s_noise_does_not_depend_on_who_is_beside_it(rule):
    together = draws(rule, range(45, 55))
    apart = torch.cat([draws(rule, part) for part in (range(45, 47), [47], range(48, 55))], 1)
    assert torch.equal(together, apart)


@pytest.mark.parametrize("rule", ["prompt", "batch of 50"])
def test_prompts_draws_and_seeds_have_noise_of_their_own(rule):
    flat = torch.cat([draws(rule, range(100), seed=seed).flatten(0, 1) for seed in (0, 1)]).flatten(1)
    assert len({row[0].item() for row in flat}) == 2 * 2 * 100


def test_a_batch_of_50_is_what_one_generator_seeded_with_the_batch_s_number_draws():
    generator = torch.Generator().manual_seed(2)  # as the authors' script: one generator for prompts 100 to 149
    wanted = [torch.randn(50, *SHAPE, generator=generator) for _ in range(2)]
    assert torch.equal(draws("batch of 50", range(100, 150), seed=0), torch.stack(wanted))


def test_alone_a_prompt_s_generator_is_seeded_with_its_number():
    assert torch.equal(draws("prompt", [7], 1, seed=0)[0, 0], torch.randn(SHAPE, generator=prompt_generator(0, 7)))
    assert prompt_generator(0, 7).initial_seed() == 7


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="unknown noise rule 'none'; choose one of 'prompt', 'batch of 50'"):
        Noise("none", 0, [0], SHAPE)
