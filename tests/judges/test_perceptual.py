import random
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sae_lib.judges.perceptual import LPIPS, EncoderDistance, load_perceptual
from sae_lib.models.pipelines import load_pipeline
from sae_lib.pocket.world import ATTRIBUTES, SCENE_ATTRIBUTES, render, sample_scenes

CHANGED = ("shape", "colour", "material", "size", "content", "background", "style")


@pytest.fixture(scope="module")
def turbo():
    """The shipped pipeline: the distance is that of its trained VAE."""
    return load_pipeline("turbo")


@pytest.fixture(scope="module")
def distance(turbo):
    return load_perceptual("pocket", turbo)


@pytest.fixture(scope="module")
def scenes():
    """32 scenes of one object in the middle."""
    single = [scene for scene in sample_scenes(600, 0) if [thing.position for thing in scene.objects] == ["middle"]]
    return single[:32]


def change(scene, name, rng):
    """The scene with another value of one attribute."""
    (thing,) = scene.objects
    before = getattr(scene if name in SCENE_ATTRIBUTES else thing, name)
    value = {name: rng.choice([value for value in ATTRIBUTES[name] if value != before])}
    return replace(scene, **value) if name in SCENE_ATTRIBUTES else replace(scene, objects=(replace(thing, **value),))


def test_equal_pictures_have_distance_0(distance, scenes):
    pictures = render(scenes[:5])
    assert distance(pictures, pictures.clone()).tolist() == [0] * 5


def test_references_that_are_encoded_once_give_the_same_distances(distance, scenes):
    a, b, c = render(scenes[:12]).split(4)
    both = distance.against(a, b)(c)
    assert torch.equal(both, torch.stack([distance(a, c), distance(b, c)]))


def test_the_distance_is_symmetric_and_positive(distance, scenes):
    a, b = render(scenes).chunk(2)
    torch.testing.assert_close(distance(a, b), distance(b, a))
    assert (distance(a, b) > 0).all()


def test_the_distance_grows_with_the_number_of_attributes_changed(distance, scenes):
    """One, two and three attributes, chosen by chance for each scene, averaged over the scenes."""
    rng, means, changed = random.Random(0), [], list(scenes)
    names = [rng.sample(CHANGED, 3) for _ in scenes]
    for count in range(3):
        changed = [change(scene, chosen[count], rng) for scene, chosen in zip(changed, names, strict=True)]
        means.append(distance(render(scenes), render(changed)).mean().item())
    assert 0 < means[0] < means[1] < means[2]


def test_the_distance_grows_with_the_displacement_of_the_object(distance, scenes):
    means = []
    for pixels in (1, 2, 4, 8):
        moved = [replace(scene, objects=(replace(scene.objects[0], shift=(float(pixels), 0.0)),)) for scene in scenes]
        still = [replace(scene, objects=(replace(scene.objects[0], shift=(0.0, 0.0)),)) for scene in scenes]
        means.append(distance(render(still), render(moved)).mean().item())
    assert means == sorted(means) and means[0] > 0


def test_the_distance_does_not_depend_on_the_batch(distance, scenes):
    a, b = render(scenes + scenes[:8]), render(scenes[:8] + scenes)  # 40 pairs: more than are taken at once
    alone = torch.cat([distance(x, y) for x, y in zip(a.split(1), b.split(1), strict=True)])
    torch.testing.assert_close(distance(a, b), alone, atol=1e-6, rtol=1e-4)


def test_the_formula_is_that_of_lpips_on_every_stage():
    """Two stages that give out their input: u(a) = (1, 0), u(b) = (0, 1) at one of two positions, else equal."""

    class Vae(torch.nn.Module):
        device, dtype = "cpu", torch.float32

        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Module()
            self.encoder.down_blocks = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])

        def encode(self, pictures):
            for block in self.encoder.down_blocks:
                pictures = block(pictures)

    grey = torch.full((1, 3, 1, 2), 0.5)  # 0 after the step to [-1, 1]
    a, b = grey.clone(), grey.clone()
    a[0, 0, 0], b[0, 0, 0, 0], b[0, 1, 0, 1] = 1.0, 0.75, 1.0
    torch.testing.assert_close(EncoderDistance(Vae())(a, b), torch.tensor([2 * (0 + 2) / 2]))


def test_pictures_of_different_shapes_are_refused(distance):
    with pytest.raises(ValueError, match=r"\[2, 3, 64, 64\] and \[1, 3, 64, 64\]: wanted two of the same shape"):
        distance(torch.zeros(2, 3, 64, 64), torch.zeros(1, 3, 64, 64))


def test_no_hook_stays_on_the_encoder(turbo, distance):
    def hooks():
        return sum(len(module._forward_hooks) for module in turbo.vae.modules())

    before = hooks()
    distance(torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64))
    with pytest.raises(RuntimeError):
        distance(torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1))
    assert hooks() == before


@pytest.mark.parametrize("missing", ["torchmetrics.image", "torchvision"])
def test_lpips_without_its_packages_names_the_extra(turbo, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=r"wants the extra packages: pip install '\.\[sdxl\]'"):
        load_perceptual("sdxl", turbo)


def test_a_rehearsal_at_sdxl_scale_needs_no_extra_packages(turbo):
    assert isinstance(load_perceptual("sdxl", turbo, rehearsal=True), EncoderDistance)


def test_lpips_gives_one_number_a_pair():
    class Net(torch.nn.Linear):
        def forward(self, a, b, normalize):
            return (a - b).square().mean((1, 2, 3), keepdim=True)

    a = torch.arange(40.0).reshape(40, 1, 1, 1).expand(40, 3, 2, 2) / 40
    torch.testing.assert_close(LPIPS(Net(1, 1))(a, torch.zeros(40, 3, 2, 2)), (torch.arange(40.0) / 40) ** 2)


@pytest.mark.parametrize("error", [RuntimeError("PytorchStreamReader failed"), EOFError("Ran out of input")])
def test_weights_of_lpips_that_were_cut_short_are_refused_with_their_place(turbo, monkeypatch, error):
    def damaged(_net):
        raise error

    for name in ("torchvision", "torchmetrics", "torchmetrics.image"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(LearnedPerceptualImagePatchSimilarity=damaged))
    with pytest.raises(ValueError, match="weights of AlexNet in .* are damaged .*: delete them"):
        load_perceptual("sdxl", turbo)
