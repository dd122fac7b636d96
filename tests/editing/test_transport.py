"""Selection and transport: hand-worked numbers, and a planted model in which few features, but many
neurons, make an edit."""

import pytest
import torch

from sae_lib.activations.denoising import CallSettings
from sae_lib.editing.bases import Neurons, PrincipalComponents, SAEFeatures, WholeUpdate
from sae_lib.editing.transport import draw_edited, run_pass, scores, select_units, transport
from sae_lib.saes.topk import TopKSAE

ALL = torch.ones(1, 2, 2, dtype=torch.bool)
EVERYWHERE = {2: (ALL, ALL)}


def maps(*values):
    """[1 step, 1 case, units, 2, 2] with the same value at all positions."""
    return torch.tensor(values).view(1, 1, -1, 1, 1).expand(1, 1, len(values), 2, 2).clone()


def test_scores_are_differences_of_shares():
    found = scores({"a": maps(3.0, 1.0)}, {"a": maps(1.0, 1.0)}, EVERYWHERE)
    torch.testing.assert_close(found, torch.tensor([[0.25, -0.25]]))


def test_only_the_region_counts_and_of_the_steps_the_first_unless_asked():
    source = torch.cat([maps(1.0, 0.0), maps(0.0, 1.0)])
    source[..., 0, 0] = 9.0
    mask = ALL.clone()
    mask[0, 0, 0] = False
    empty = {"a": torch.zeros_like(source)}
    torch.testing.assert_close(scores({"a": source}, empty, {2: (mask, mask)}), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(scores({"a": source}, empty, {2: (mask, mask)}, "mean"), torch.tensor([[0.5, 0.5]]))
    with pytest.raises(ValueError, match="unknown aggregate 'last'"):
        scores(empty, empty, {2: (mask, mask)}, "last")


def test_normalised_units_count_alike_whatever_their_size():
    found = scores({"a": maps(100.0, 1.0)}, {"a": maps(0.0, 0.0)}, EVERYWHERE, normalised=True)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5]]))


def test_a_sum_below_zero_turns_the_order_round_unless_absolute_values_are_summed():
    source, nothing = {"a": maps(2.0, -3.0)}, {"a": maps(0.0, 0.0)}
    as_published = scores(source, nothing, EVERYWHERE)
    corrected = scores(source, nothing, EVERYWHERE, absolute=True)
    torch.testing.assert_close(as_published, torch.tensor([[-2.0, 3.0]]))
    torch.testing.assert_close(corrected, torch.tensor([[0.4, -0.6]]))


def test_the_highest_are_added_and_the_lowest_taken_off():
    added, taken = select_units(torch.tensor([[0.1, 0.5, -0.2, 0.0]]), 1)
    assert added.tolist() == [[False, True, False, False]] and taken.tolist() == [[False, False, True, False]]
    with pytest.raises(ValueError, match="5 units were asked for and there are 4"):
        select_units(torch.zeros(1, 4), 5)


def test_a_block_of_a_finer_grid_is_averaged_over_its_own_cells():
    fine = torch.zeros(1, 1, 1, 4, 4)
    fine[..., :2, :2] = 3.0
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    masks = EVERYWHERE | {4: (mask, mask)}
    source, nothing = {"coarse": maps(1.5), "fine": fine}, {"coarse": maps(0.0), "fine": 0 * fine}
    torch.testing.assert_close(scores(source, nothing, masks), torch.tensor([[0.5, 0.5]]))  # 12 in 8 cells of 16 is 1.5
    change = transport(WholeUpdate(), source, nothing, None, masks)
    assert (
        change.maps["fine"].shape[-1] == 4
        and change.numbers.tolist() == [4 + 4]
        and change.active_units.tolist() == [2]
    )


def test_transport_adds_in_one_region_and_takes_off_in_the_other():
    left = torch.tensor([[[True, False], [True, False]]])
    blocks = ("down.2.1", "up.0.1", "up.0.0", "mid.0")
    source, target = {b: maps(2.0, 3.0) for b in blocks}, {b: maps(5.0, 7.0) for b in blocks}
    change = transport(WholeUpdate(), source, target, None, {2: (left, ~left)})
    torch.testing.assert_close(change.maps["mid.0"][0, 0, :, 0], torch.tensor([[2.0, -5.0], [3.0, -7.0]]))
    assert change.numbers.tolist() == [4 * 8.0] and change.active_units.tolist() == [4 * 4.0]
    alone = transport(WholeUpdate(), source, target, None, {2: (left, ~left)}, subtract=False)
    assert alone.maps["mid.0"][0, 0, :, 0].tolist() == [[2.0, 0.0], [3.0, 0.0]]


def test_principal_components_give_the_centred_maps_back():
    torch.manual_seed(0)
    update, components = torch.randn(2, 3, 6, 4, 4), torch.linalg.qr(torch.randn(6, 6)).Q
    basis = PrincipalComponents({"mid.0": torch.ones(6)}, {"mid.0": components})
    units = basis.encode("mid.0", update)
    assert units.shape == (2, 3, 12, 4, 4) and units.min() >= 0
    torch.testing.assert_close(basis.decode("mid.0", units), update - 1, atol=1e-5, rtol=0)


def test_a_random_features_change_has_the_features_norm_in_another_direction():
    torch.manual_seed(0)
    saes = {block: TopKSAE(16, 64, 4).requires_grad_(False) for block in ("up.1.2", "mid.0")}
    update, one = torch.randn(1, 1, 16, 2, 2), torch.zeros(1, 1, 64, 2, 2)
    one[:, :, 5] = 3.0
    own, other = (basis.decode("mid.0", one) for basis in (SAEFeatures(saes), SAEFeatures.random(saes, 0)))
    torch.testing.assert_close(own.norm(dim=2), other.norm(dim=2))
    assert not torch.allclose(own, other)
    units = SAEFeatures(saes).encode("mid.0", update)
    torch.testing.assert_close(units, SAEFeatures.random(saes, 0).encode("mid.0", update))


# --- a planted model: each block's update is a sum of attribute directions, and a picture is what
# can be read back -----

D, SIDE, ATTRIBUTES = 32, 8, 12


@pytest.fixture(scope="module")
def planted():
    """16 cases in which one of an object's three attributes is another one in the source; the same in
    features and in neurons."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q[:, :ATTRIBUTES]
    rotation = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q
    sae = TopKSAE(D, 2 * D, 4).requires_grad_(False)
    others = torch.nn.functional.normalize(torch.randn(D, 2 * D - ATTRIBUTES, generator=generator), dim=0)
    sae.decoder.weight[:] = torch.cat([directions, others], 1)
    sae.encoder.weight[:] = sae.decoder.weight.T
    sae.encoder.weight[ATTRIBUTES:] *= 0.1
    saes = {"down.2.1": sae}
    masks = torch.zeros(16, SIDE, SIDE, dtype=torch.bool)
    update = {kind: torch.zeros(1, 16, D, SIDE, SIDE) for kind in ("source", "target")}
    edits = []
    for case in range(16):
        top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
        masks[case, top : top + 3, left : left + 3] = True
        old, new, *kept = torch.randperm(ATTRIBUTES - 2, generator=generator)[:4].tolist()
        edits.append((old, new))
        for kind, changed in (("source", new), ("target", old)):
            other = directions[:, ATTRIBUTES - 1 - (kind == "source"), None, None]  # elsewhere something changes too
            update[kind][0, case] += ~masks[case] * 2 * other
            update[kind][0, case] += masks[case] * directions[:, [changed, *kept]].sum(1)[:, None, None]
    noise = {kind: 0.02 * torch.randn(each.shape, generator=generator) for kind, each in update.items()}
    update = {kind: each + noise[kind] for kind, each in update.items()}
    return directions, rotation, saes, masks, update, edits


def success(planted, change, rotated=False):
    """Share of the cases whose new attribute can be read in the region, and whose old one is gone."""
    directions, rotation, _, masks, update, edits = planted
    change = torch.einsum("ij,scjhw->scihw", rotation.T, change) if rotated else change
    read = torch.einsum("da,scdhw->sachw", directions, update["target"] + change)[0]
    means = [(read[:, case] * masks[case]).sum((-2, -1)) / masks[case].sum() for case in range(len(edits))]
    return sum(bool(mean[new] > 0.5 > mean[old]) for mean, (old, new) in zip(means, edits, strict=True)) / len(edits)


def features_success(planted, k, select_in, random=False):
    _, _, saes, masks, update, _ = planted
    basis = SAEFeatures.random(saes, 1) if random else SAEFeatures(saes)
    source, target = ({"down.2.1": basis.encode("down.2.1", update[kind])} for kind in ("source", "target"))
    chosen = select_units(scores(source, target, {SIDE: (select_in, select_in)}), k)
    return success(planted, transport(basis, source, target, chosen, {SIDE: (masks, masks)}).maps["down.2.1"])


def neurons_success(planted, k):
    _, rotation, _, masks, update, _ = planted
    site = "down.2.1/ff.0"
    source, target = ({site: torch.einsum("ij,scjhw->scihw", rotation, update[kind])} for kind in ("source", "target"))
    chosen = select_units(scores(source, target, {SIDE: (masks, masks)}, normalised=True), k)
    return success(
        planted, transport(Neurons(), source, target, chosen, {SIDE: (masks, masks)}).maps[site], rotated=True
    )


def test_one_planted_feature_makes_the_edit_and_neurons_take_many(planted):
    assert features_success(planted, 1, planted[3]) == 1.0
    assert neurons_success(planted, 1) == 0.0 and neurons_success(planted, 4) < 0.5
    assert neurons_success(planted, D) == 1.0


def test_shuffled_masks_and_random_features_make_no_planted_edit(planted):
    masks = planted[3]
    order = torch.rand(16, SIDE * SIDE, generator=torch.Generator().manual_seed(3)).argsort(1)
    shuffled = masks.flatten(1).gather(1, order).view_as(masks)
    assert features_success(planted, 1, shuffled) < 0.5
    assert features_success(planted, 1, masks, random=True) == 0.0


# --- with a pipeline --------------------------------------------------------------------------------------------------


def test_a_pass_keeps_updates_and_neurons_and_no_change_draws_the_same_picture(pipe):
    call, prompts = CallSettings(2, 0.0, 3, batch_size=2), ["a red circle", "a blue star", "a heart"]
    one = run_pass(pipe, prompts, call, [4, 5, 6], ["mid.0", "up.1.2"], neurons=True)
    for block, width, side in (("mid.0", 128, 8), ("up.1.2", 64, 16)):
        assert one.maps[block].shape == (2, 3, width, side, side)
        assert one.maps[f"{block}/ff.0"].shape == (2, 3, 4 * width, side, side)
    still = {site: torch.zeros_like(each) for site, each in one.maps.items()}
    assert torch.equal(draw_edited(pipe, prompts, call, [4, 5, 6], still), one.pictures)


def test_neurons_put_back_one_prompt_s_feed_forward_into_another(pipe):
    call = CallSettings(1, 0.0, 3)
    first, second = (
        run_pass(pipe, [prompt], call, [0], ["up.0.1"], neurons=True)
        for prompt in ("a red circle", "a blue star at sea")
    )
    site = "up.0.1/ff.0"
    change = {site: first.maps[site] - second.maps[site]}
    drawn = draw_edited(pipe, ["a blue star at sea"], call, [0], change)
    assert not torch.equal(drawn, second.pictures)
