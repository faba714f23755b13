"""YAML 1.2 with the location of each key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.config import yaml12

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text("0123456789.eE+-_:=~<>| \n\t#,[]{}'\"&*!%\r\x85\u2028\ufeff", max_size=8),
)
values = st.recursive(
    st.one_of(texts, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
)


@given(st.dictionaries(texts, values, max_size=3))
def test_dumped_values_are_parsed_as_the_same(value):
    assert yaml12.parse(yaml12.dump(value), "x.yaml")[0] == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("", None),
        ("~", None),
        ("True", True),
        ("-12", -12),
        ("1_000", 1000),
        ("-.5e3", -500.0),
        (".Inf", float("inf")),
        ("-.inf", float("-inf")),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("'5'", "5"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("010", "010"),
        ("12:30:45", "12:30:45"),
        ("2020-01-31T10:00:00Z", "2020-01-31T10:00:00Z"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        # An explicit key wins over a merged one, and the first of several merged mappings.
        ("{a: 1, <<: {a: 2, b: 3}}", {"a": 1, "b": 3}),
        ("{<<: [{a: 1}, {a: 2, b: 3}], c: 4}", {"a": 1, "b": 3, "c": 4}),
    ],
)
def test_values(written, value):
    parsed, _ = yaml12.parse(written, "x.yaml")
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_directive_does_not_bring_back_yaml_11():
    assert yaml12.parse("%YAML 1.1\n---\n{a: no, b: 010}", "x.yaml")[0] == {"a": "no", "b": "010"}


def test_locations():
    _, locations = yaml12.parse("a:\n  b: [1,\n    2]\n", "x.yaml")
    assert locations.find(()) == "x.yaml:1:1"
    assert locations.find(("a", "b")) == "x.yaml:2:3"
    assert locations.find(("a", "b", 1)) == "x.yaml:3:5"
    assert locations.find(("a", "c")) == "x.yaml:1:1"
    assert ("a", "b", 0) in locations
    locations.discard(("a", "b"))
    assert ("a", "b", 0) not in locations
    assert locations.find(("a", "b", 0)) == "x.yaml:1:1"
