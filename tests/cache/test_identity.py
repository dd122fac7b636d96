"""What two descriptions differ in is named."""

from sae_lib.cache.identity import differences


def test_equal_descriptions_differ_in_nothing_and_a_tuple_is_a_list():
    assert differences({"a": (1, 2), "b": {"c": None}}, {"b": {"c": None}, "a": [1, 2]}) == ""


def test_the_field_is_named_with_both_values():
    there = {"settings": {"steps": 4, "seed": 0}, "dtype": "float16"}
    assert differences(there, {"settings": {"steps": 1, "seed": 0}}) == (
        'settings.steps is 4 (asked: 1), dtype is "float16" (asked: nothing)'
    )


def test_long_values_are_shortened_and_of_many_fields_the_first_are_named():
    assert differences("a" * 64, "b" * 64) == 'all is "aaaaaaaaaaaaaaa... (asked: "bbbbbbbbbbbbbbb...)'
    assert differences(dict.fromkeys("abcdef", 1), {}).endswith("d is 1 (asked: nothing), and 2 more")
