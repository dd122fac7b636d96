import json
import math
import re

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sae_lib.models import prompts
from sae_lib.models.prompts import HELD_OUT, LAION, LAION_REVISION, load_prompts

QUIET = {
    "derandomize": True,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}
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
        ("prompts.txt", b"a cat\na \0dog", "line 2 of .* holds 'a .x00dog', wanted a text"),
        ("prompts.txt", "a cat\n".encode("utf-16"), "is not UTF-8"),
        ("prompts.json", b'["a cat"]', r"ends in '.json', wanted .txt \(a prompt per line\), .jsonl or .ndjson"),
        ("prompts.csv", b"id,caption\n1,a cat", "ends in '.csv', wanted .txt"),
        ("prompts", b"a cat", "ends in '', wanted .txt"),
        ("prompts.jsonl", b'{"caption": "a"}\n\n{"caption": null}', "line 3 of .* holds None, wanted a text: mend it"),
        ("prompts.jsonl", b'{"caption": "a"}\n{"text": 5}', "line 2 of .* holds 5, wanted a text"),
        ("prompts.jsonl", b'{"prompt": ["a", "b"]}', r"line 1 of .* holds \['a', 'b'\], wanted a text"),
        ("prompts.jsonl", b'{"prompt": " "}', "line 1 of .* holds ' ', wanted a text"),
        ("prompts.jsonl", b'{"prompt": "a", "prompt": "b"}', r"line 1 of .* holds \('a', 'b'\), wanted a text"),
        ("prompts.jsonl", rb'{"prompt": "\ud800"}', "line 1 of .* holds .*, wanted a text"),
        ("prompts.jsonl", b'"caption"', "line 1 of .* is no JSON object with caption, prompt, text"),
        ("prompts.jsonl", b"[" * 100_000, "line 1 of .* is no JSON object"),
        ("prompts.jsonl", b'{"caption": ' + b"1" * 5000 + b"}", "line 1 of .* is no JSON object"),
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


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"caption": ["a", None]}, "row 2 of .* holds None, wanted a text"),
        ({"caption": ["a", ""]}, "row 2 of .* holds '', wanted a text"),
        ({"text": [1, 2]}, "row 1 of .* holds 1, wanted a text"),
        ({"prompt": [["a"], ["b"]]}, r"row 1 of .* holds \['a'\], wanted a text"),
        ({"prompt": [b"a"]}, "row 1 of .* holds b'a', wanted a text"),
        ({"url": ["a"]}, "is no Parquet file with a column caption, prompt, text"),
    ],
)
def test_a_parquet_file_whose_column_is_no_text_is_refused(tmp_path, columns, message):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=message):
        load_prompts("sdxl", 1, "train", str(tmp_path / "x.parquet"))


def write(path, prompts, mark=""):
    """The prompts as a file of its suffix; mark: what some programs write first."""
    if path.suffix.lower() == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"prompt": pyarrow.array(prompts, pyarrow.string())}), path)
        return path
    if path.suffix.lower() != ".txt":
        prompts = [json.dumps({"prompt": prompt, "score": math.nan}, ensure_ascii=len(mark) > 0) for prompt in prompts]
    path.write_bytes((mark + "\n".join(prompts) + "\n").encode("utf-8"))
    return path


def read_all(path):
    """Every prompt of the file, in order, whatever is held out."""
    return prompts._read_file(path)


@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".jsonl", ".ndjson", ".JSONL", ".parquet", ".Parquet"])
def test_prompts_hold_any_character_but_the_end_of_a_line(tmp_path, suffix):
    odd = [
        "a cat\u2028on a mat",
        "a\x85b",
        "a\x0bb\x0cc\x1cd",
        "a\rb",
        '"quoted", {"caption": 1}',
        "\u732b \U0001f408",
        "[",
        "\ufeffa",
    ]
    path = write(tmp_path / f"x{suffix}", odd)
    assert load_prompts("sdxl", 8, "train", str(path)) == odd


def test_a_mark_at_the_start_and_the_line_ends_of_windows_are_no_part_of_a_prompt(tmp_path):
    (tmp_path / "x.txt").write_bytes("\ufeffa cat\r\n\r\na dog\r\n".encode())
    assert read_all(tmp_path / "x.txt") == ["a cat", "a dog"]
    (tmp_path / "x.jsonl").write_bytes('\ufeff{"text": "a cat"}\r\n{"text": "a dog"}'.encode())
    assert read_all(tmp_path / "x.jsonl") == ["a cat", "a dog"]


@settings(
    max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(
        st.one_of(
            st.text(min_size=1),
            st.text(alphabet="a \t\r\x00\x0b\x0c\x1c\x85\u2028\u2029\ufeff\"'[]{}:,\\\U0001f408", min_size=1),
        ),
        min_size=1,
        max_size=6,
    ),
    suffix=st.sampled_from([".txt", ".jsonl", ".parquet"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_random_prompts_come_back_as_they_were_written_or_are_refused_by_their_line(tmp_path, texts, suffix, mark):
    if suffix == ".txt":  # which cannot hold these: a line is one prompt, and an empty one none
        texts = [text for text in (text.replace("\n", " ") for text in texts) if text.strip()]
        mark = mark or ("\ufeff" if texts and texts[0].startswith("\ufeff") else "")
    path = write(tmp_path / f"x{suffix}", texts, mark)
    wrong = next((number for number, text in enumerate(texts, 1) if not text.strip() or "\0" in text), None)
    if wrong or not texts:
        with pytest.raises(ValueError, match=f"(line|row) {wrong} of .* holds .*, wanted a text|is empty: give one"):
            read_all(path)
    else:
        assert read_all(path) == [text.strip() for text in texts]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["caption", "text", "url"]), inner),
    max_leaves=5,
)


@settings(
    max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.lists(JSON, min_size=1, max_size=3), cut=st.integers(0, 30) | st.none())
def test_json_of_any_kind_gives_prompts_or_a_sentence_with_the_line(tmp_path, values, cut):
    path = tmp_path / "x.jsonl"
    lines = [json.dumps(value) for value in values]
    lines[-1] = lines[-1][: len(lines[-1]) - cut] if cut else lines[-1]
    path.write_text("\n".join(lines), encoding="utf-8")
    try:
        assert all(isinstance(prompt, str) and prompt for prompt in read_all(path))
    except ValueError as error:
        assert re.fullmatch(
            r"(line \d+ of .* (is no JSON|holds )|the prompt file .* is empty).*", str(error), re.DOTALL
        )


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_a_parquet_file_with_a_wrong_byte_or_cut_short_gives_texts_or_a_sentence(tmp_path, at, byte, cut):
    path = write(tmp_path / "x.parquet", LINES)
    content = bytearray(path.read_bytes())
    at %= len(content)
    content[at] = byte
    path.write_bytes(content[:at] if cut else content)
    try:
        assert all(map(prompts.is_text, read_all(path)))
    except ValueError as error:
        assert re.search(r"is no Parquet file with a column|row \d+ of .* wanted a text|is empty", str(error))


def test_a_row_of_the_authors_data_set_that_is_no_text_is_refused(monkeypatch):
    class Rows(list):
        def shuffle(self, seed):
            return self

    rows = Rows([{"caption": "a cat"}, {"caption": None}])
    monkeypatch.setattr("datasets.load_dataset", lambda *_arguments, **_settings: rows)
    with pytest.raises(ValueError, match=f"row 2 of {LAION} holds None, wanted a text"):
        list(prompts._stream_laion(LAION_REVISION))


def test_a_source_at_another_scale_is_refused_and_a_path_that_begins_like_the_data_set_is_a_path():
    with pytest.raises(ValueError, match="source 'x.txt' is for scale 'sdxl'; the pocket prompts are the pocket world"):
        load_prompts("pocket", 1, source="x.txt")
    with pytest.raises(FileNotFoundError, match="no prompt file"):
        load_prompts("sdxl", 1, source=f"{LAION}-mine.txt")


def test_a_missing_file_an_unknown_split_and_an_unknown_scale_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no prompt file .*give a text, JSONL or Parquet file"):
        load_prompts("sdxl", 1, "train", str(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match="unknown split 'test'"):
        load_prompts("pocket", 1, "test")
    with pytest.raises(ValueError, match="unknown scale 'huge'"):
        load_prompts("huge", 1)
