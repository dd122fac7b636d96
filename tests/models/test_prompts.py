import json

import pyarrow
import pyarrow.parquet
import pytest

from sae_lib.models import prompts
from sae_lib.models.prompts import HELD_OUT, LAION, LAION_REVISION, load_prompts

LINES = [f"prompt number {number}" for number in range(50)]


@pytest.fixture(params=["txt", "jsonl", "parquet"])
def file(request, tmp_path):
    """Fifty prompts; one of the held-out ones also stands among the training ones."""
    lines, path = [*LINES[:40], LINES[47], *LINES[41:]], tmp_path / f"prompts.{request.param}"
    if request.param == "txt":
        path.write_text("\n\n".join(lines), encoding="utf-8")
    elif request.param == "jsonl":
        path.write_text("".join(json.dumps({"caption": line}) + "\n" for line in lines), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.table({"url": [""] * 50, "text": lines}), path)
    return path


def test_a_file_gives_its_last_tenth_as_held_out_and_the_rest_for_training(file):
    assert load_prompts("sdxl", 5, "held-out", str(file)) == LINES[45:]
    assert load_prompts("sdxl", 44, "train", str(file)) == [*LINES[:40], *LINES[41:45]]


def test_more_prompts_than_the_file_has_are_refused(file):
    with pytest.raises(ValueError, match="45 train prompts were asked for and .* has 44: ask for fewer"):
        load_prompts("sdxl", 45, "train", str(file))


@pytest.mark.parametrize("scale", ["smoke", "pocket"])
def test_pocket_prompts_for_training_are_never_held_out_ones(scale):
    held_out, train = load_prompts(scale, HELD_OUT, "held-out"), load_prompts(scale, 2_048)
    assert len(train) == 2_048 and not set(held_out) & set(train)
    assert load_prompts(scale, 100, "held-out") == held_out[:100] and load_prompts(scale, 100) == train[:100]


def test_the_authors_data_set_is_streamed_past_its_held_out_prompts(monkeypatch):
    asked = []

    def stream(revision):
        asked.append(revision)
        yield from [*map(str, range(HELD_OUT)), "3", "first", "second"]

    monkeypatch.setattr(prompts, "_stream_laion", stream)
    assert load_prompts("sdxl", 2) == ["first", "second"]
    assert load_prompts("sdxl", 3, "held-out", f"{LAION}@abc") == ["0", "1", "2"]
    assert asked == [LAION_REVISION, "abc"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("prompts.txt", b"\xff\xfe\xff", "is not UTF-8"),
        ("prompts.txt", b" \n\n", "is empty: give one prompt per line"),
        (
            "prompts.jsonl",
            b'{"caption": "a"}\n{"url": "b"}',
            "line 2 of .* is no JSON object with caption, prompt, text",
        ),
        ("prompts.jsonl", b"a circle", "line 1 of .* is no JSON object"),
        ("prompts.parquet", b"no parquet", "is no Parquet file with a column caption, prompt, text"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_prompts("sdxl", 1, "train", str(tmp_path / name))


def test_a_missing_file_an_unknown_split_and_an_unknown_scale_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no prompt file .*give a text, JSONL or Parquet file"):
        load_prompts("sdxl", 1, "train", str(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match="unknown split 'test'"):
        load_prompts("pocket", 1, "test")
    with pytest.raises(ValueError, match="unknown scale 'huge'"):
        load_prompts("huge", 1)
