import matplotlib.pyplot as plt
import pytest
import torch

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.drawing import MAX_SHOWN, draw_pictures
from sae_lib.companion.pictures import SEEN, is_seen, show_picture
from sae_lib.models.noise import prompt_generator

PROMPTS = ["a red circle", "a blue star", "a green square"]


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_a_prompts_picture_does_not_depend_on_its_batch(pipe):
    together = draw_pictures(pipe, PROMPTS, CallSettings(1, 0.0, batch_size=3))
    apart = draw_pictures(pipe, PROMPTS, CallSettings(1, 0.0, batch_size=2))
    assert together.shape == (3, 3, 64, 64)
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)


def test_a_picture_is_the_pipelines_own(pipe):
    drawn = draw_pictures(pipe, PROMPTS[:1], CallSettings(1, 0.0, seed=5))
    generator = prompt_generator(5, 0)
    plain = pipe(PROMPTS[0], num_inference_steps=1, guidance_scale=0.0, generator=generator, output_type="pt").images
    torch.testing.assert_close(drawn, plain, atol=1e-5, rtol=0)


def test_drawing_no_prompts_is_refused(pipe):
    with pytest.raises(ValueError, match="no prompts"):
        draw_pictures(pipe, [], CallSettings(1, 0.0))


def test_a_small_picture_is_shown_pixel_for_pixel(ax):
    picture = torch.rand(3, 8, 6)
    shown = show_picture(ax, picture).get_array()
    assert shown.shape == (8, 6, 3)
    assert torch.equal(torch.from_numpy(shown.data), picture.movedim(0, -1))


def test_a_large_picture_is_shrunk_and_a_map_has_no_colour_axis(ax):
    assert show_picture(ax, torch.zeros(3, 2 * MAX_SHOWN, 2 * MAX_SHOWN)).get_array().shape == (MAX_SHOWN, MAX_SHOWN, 3)
    assert show_picture(ax, torch.zeros(1, 8, 8)).get_array().shape == (8, 8)


def test_a_tint_of_one_cell_is_seen_from_the_threshold_on_and_a_shifted_pattern_is_not():
    before = torch.full((3, 64, 64), 0.5)
    for levels, seen in ((SEEN + 0.1, True), (SEEN - 0.1, False)):
        after = before.clone()
        after[:, 4:8, 8:12] += levels / 255
        assert is_seen(before, after) is seen
    stripes = before + 0.2 * (torch.arange(64) % 2)
    assert not is_seen(stripes, stripes.roll(1, -1))
