"""Configurations: fields are checked when they are read, and what cannot be trained is refused before the work."""

import json
import math
import string

import pytest
from hypothesis import given, settings, strategies as st

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.stream import TrainingStream
from sae_lib.training import loop, recipe
from sae_lib.training.config import SAEConfig
from sae_lib.training.recipe import TrainingRun


def read(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text, encoding="utf-8")
    return TrainingRun.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompts": "200"}', "prompts is '200'; wanted a whole number or null"),
        ('{"prompts": true}', "prompts is True; wanted a whole number or null"),
        ('{"prompts": 2.5}', "prompts is 2.5; wanted a whole number or null"),
        ('{"vectors": 1e400}', "vectors is inf; wanted a whole number or null, finite"),
        ('{"ks": 10}', "ks is 10; wanted a list of whole numbers"),
        ('{"ks": [10, "5"]}', r"ks is \(10, '5'\); wanted a list of whole numbers"),
        ('{"ks": [[10]]}', "wanted a list of whole numbers"),
        ('{"ks": [0]}', r"ks is \(0,\); wanted each at least 1"),
        ('{"blocks": []}', 'blocks is empty; choose "chosen", "paper"'),
        ('{"blocks": 7}', "blocks is 7; wanted text or a list of texts"),
        ('{"kinds": "panel"}', "kinds is 'panel'; wanted a list of texts"),
        ('{"kinds": []}', "kinds is .*; wanted one or more of panel, transfer"),
        ('{"kinds": ["panels"]}', "kinds is .*; wanted one or more of panel, transfer"),
        ('{"ks": [5], "expansion_factors": []}', "expansion_factors is .*; wanted one or more, each above 0"),
        ('{"ks": [5], "expansion_factors": [NaN]}', "expansion_factors is .*; wanted a list of numbers, finite"),
        ('{"seed": -1}', "seed is -1; wanted at least 0"),
        ('{"sae_seeds": [0, -1]}', "sae_seeds is .*; wanted each at least 0"),
        (f'{{"seed": {2**64}}}', "seed is 18446744073709551616; wanted a whole number, finite and at most"),
        ('{"guidance_scale": NaN}', "guidance_scale is nan; wanted a number, finite"),
        ('{"guidance_scale": -2}', "guidance_scale is -2.0; wanted 0 for no guidance, or 1 or more"),
        ('{"guidance_scale": 0.5}', "guidance_scale is 0.5; wanted 0 for no guidance, or 1 or more"),
        ('{"scale": null}', "scale is None; wanted text"),
        ('{"scale": "sdxl", "source": "random/3"}', "unknown source 'random/3'"),
        ('{"ks": [1], "ks": [2]}', "'ks' stands in it twice"),
        ("[1]", "unknown field"),
        ("[" * 100_000, "is no JSON"),
        ("9" * 5_000, "is no JSON"),
    ],
)
def test_a_field_of_a_wrong_type_or_value_is_named_with_what_came_and_what_was_wanted(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"prompt_source": "mine.txt"}',
            "prompt_source is 'mine.txt' and is not used, since the pocket scale has",
        ),
        ('{"scale": "smoke", "source": "some/model"}', "source is 'some/model' and is not used, since the smoke scale"),
        ('{"kinds": ["panel"], "ks": [5]}', r"kinds is \('panel',\) and is not used, since ks are given"),
        ('{"expansion_factors": [2]}', r"expansion_factors is \(2,\) and is not used, since no ks are given: leave it"),
    ],
)
def test_a_field_that_this_run_would_not_use_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_a_file_with_all_defaults_written_out_and_a_byte_order_mark_is_the_default_run(tmp_path):
    defaults = {name: value for name, value in vars(TrainingRun()).items() if name != "blocks"}
    assert read(tmp_path, "\ufeff" + json.dumps(defaults)) == TrainingRun()


VALID = {
    "scale": st.sampled_from(["smoke", "pocket", "sdxl"]),
    "model": st.sampled_from(["turbo", "base"]),
    "source": st.sampled_from(["", "random", "random/16", "somewhere"]),
    "dtype": st.sampled_from(["", "float16"]),
    "prompts": st.none() | st.integers(1, 10**7),
    "prompt_source": st.sampled_from(["", "pocket", "mine.txt"]),
    "steps": st.integers(1, 50),
    "guidance_scale": st.sampled_from([0, 1, 7.5]),
    "noise": st.sampled_from(["prompt", "batch of 50"]),
    "seed": st.integers(0, 2**32),
    "batch_size": st.none() | st.integers(1, 64),
    "blocks": st.sampled_from(["", "paper", "mid.0", ["mid.0", "up.1.1"]]),
    "kinds": st.lists(st.sampled_from(["panel", "transfer"]), min_size=1, max_size=2),
    "ks": st.lists(st.integers(1, 64), max_size=3),
    "expansion_factors": st.lists(st.floats(0.5, 8), min_size=1, max_size=3),
    "sae_seeds": st.lists(st.integers(0, 9), max_size=3),
    "vectors": st.none() | st.integers(1, 10**9),
    "passes": st.none() | st.integers(1, 9),
    "buffer": st.integers(1, 10**7),
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, -(10**30), 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
"""Any JSON value, with numbers that no field can hold."""


def test_the_property_test_knows_every_field():
    assert list(VALID) == list(vars(TrainingRun()))


@st.composite
def configurations(draw):
    """Some fields with values that they may have, none to two with anything, at times a field that is not there."""
    names = draw(st.lists(st.sampled_from(list(VALID)), unique=True, max_size=6))
    values = {name: draw(VALID[name]) for name in names}
    wrong = draw(st.lists(st.sampled_from([*VALID, "scael", "", "\n"]), max_size=2))
    return values | {name: draw(ANYTHING) for name in wrong}


def gives_a_run_or_one_sentence(path):
    try:
        run = TrainingRun.read(path)
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError) and str(error) and "\n" not in str(error)
        return
    assert run.blocks and (run.ks or run.kinds) and math.isfinite(run.guidance_scale) and run.settings


@settings(derandomize=True, max_examples=600, deadline=None)
@given(configurations())
def test_any_configuration_gives_a_run_or_one_sentence(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(values))
    gives_a_run_or_one_sentence(path)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=40) | st.text(string.printable, max_size=40).map(str.encode) | ANYTHING.map(json.dumps))
def test_any_file_gives_a_run_or_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    gives_a_run_or_one_sentence(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": math.nan}, "lr is nan; wanted a number, finite"),
        ({"lr": math.inf}, "lr is inf; wanted a number, finite"),
        ({"k": True}, "k is True; wanted a whole number"),
        ({"seed": 2**60}, "seed is 1152921504606846976; wanted a whole number, finite and at most 2\\^53"),
    ],
)
def test_numbers_that_no_training_can_have_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SAEConfig.pocket("mid.0", **changes)


@pytest.mark.parametrize(
    ("block", "d_model", "message"),
    [
        ("up.1.2", 128, "d_model is 128 and the stream's vectors of up.1.2 have 64 dimensions"),
        ("mid.0", 128, "block 'mid.0' is missing from the stream, which has up.1.2"),
        ("up.1.2", 64, "the stream is empty or too short for up.1.2_k10_hidden512_seed0: wanted more than .* = 5120"),
    ],
)
def test_an_sae_that_does_not_fit_the_stream_is_refused_before_a_portion_is_made(
    pipe, tmp_path, monkeypatch, block, d_model, message
):
    monkeypatch.setattr(loop, "_Loop", None)
    stream = TrainingStream(pipe, ["a red circle"], ["up.1.2"], CallSettings(1, 0.0), passes=2)
    with pytest.raises(ValueError, match=message):
        loop.train_saes(stream, [SAEConfig.pocket(block, d_model=d_model)], tmp_path)


def test_a_store_of_which_no_sae_can_be_trained_is_not_begun(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "load_pipeline", lambda *_: pipe)
    monkeypatch.setattr(recipe, "write_shards", None)
    with pytest.raises(ValueError, match="k is 65; wanted at most n_f = 64"):
        TrainingRun("smoke", ks=(65,), expansion_factors=(0.5,), blocks=("mid.0",)).harvest(tmp_path)
