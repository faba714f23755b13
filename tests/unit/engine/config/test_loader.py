"""Loading configs: values, overrides, and all errors with their locations."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from ruamel.yaml import YAML

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import BaseConfig, BucketTrainConfig, Fraction
from pipelines.engine.core.errors import UserError
from pipelines.engine.tasks.catalog import find_config, get_config
from pipelines.sentiment.config import (
    SentimentConfig,
    SentimentDataConfig,
    SentimentModelConfig,
    SentimentTextConfig,
    SentimentTrainConfig,
)
from tests.support import ROOT

READY_MADE = sorted((ROOT / "configs").glob("*/*.yaml"))


class Extra(BaseConfig):
    """An optional section."""

    passes: float = Field(1.0, gt=0)
    window: int = Field(100, ge=2)
    dropout: Fraction = 0.1


class Toy(SentimentConfig):
    extra: Extra | None = None


MINIMAL = "data: {source: reviews.csv}\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def load(path: Path, *overrides: str) -> Toy:
    return configs.load(path, Toy, overrides)


def errors(path: Path, *overrides: str) -> list[str]:
    """Return the lines of the error without the folder of the file."""
    with pytest.raises(UserError) as caught:
        load(path, *overrides)
    return str(caught.value).replace(f"{path.parent}/", "").split("\n")


# Values


def test_minimal_config_has_the_defaults(write):
    config = load(write(MINIMAL))
    assert config == Toy(data=SentimentDataConfig(source="reviews.csv"))
    assert config.train.epochs == BucketTrainConfig().epochs
    assert config.extra is None


@pytest.mark.parametrize("path", READY_MADE, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_ready_made_configs_are_valid(path):
    config = configs.load(path, get_config(path.parent.name))
    assert config.task == path.parent.name
    assert config.name == path.stem


def test_there_are_ready_made_configs():
    assert READY_MADE


def test_default_config_is_found_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("sentiment", None).samefile(ROOT / "configs/sentiment/default.yaml")
    own = Path("configs/sentiment/default.yaml")
    own.parent.mkdir(parents=True)
    own.write_text(MINIMAL)
    assert find_config("sentiment", None) == own
    assert find_config("sentiment", "x.yaml") == Path("x.yaml")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("+2.5e-1", 0.25),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.0e-3", 0.001),
        ("3", 3.0),
        ("1_0", 10.0),
    ],
)
def test_numbers_are_read_as_written(write, written, read):
    path = write(MINIMAL + f"train: {{learning_rate: {written}}}")
    assert load(path).train.learning_rate == read


@pytest.mark.parametrize(
    "written", ["no", "yes", "on", "off", "2020-01-31", "1:30", "010", "1e5x", "e3", "0x1F"]
)
def test_words_dates_and_non_decimal_numbers_are_text(write, written):
    assert load(write(f"data: {{source: {written}}}")).data.source == written


@pytest.mark.parametrize("written", [".inf", "-.inf", ".nan", "1e999"])
def test_numbers_that_are_not_finite_are_errors(write, written):
    (line,) = errors(write(MINIMAL + f"train: {{learning_rate: {written}}}"))
    assert line.startswith("c.yaml:2:9: train.learning_rate: ")


def test_keys_are_always_text(write):
    config = load(write("data:\n  source: a.csv\n  labels: {0: no, 1: yes, true: maybe, 1.5: x}"))
    assert config.data.labels == {"0": "no", "1": "yes", "true": "maybe", "1.5": "x"}


def test_numbers_are_converted_to_names_of_labels(write):
    path = write("data: {source: a.csv, labels: {0: 1, 1: 2.5}, where: {year: 1999}}")
    config = load(path, "data.where.stars=5")
    assert config.data.labels == {"0": "1", "1": "2.5"}
    assert config.data.where == {"year": "1999", "stars": "5"}


def test_anchors_and_merge_keys(write):
    config = load(
        write(
            """\
data: &data
  source: a.csv
  where: {<<: {split: train}, lang: en}
train: {epochs: &n 7, patience: *n}
"""
        )
    )
    assert config.data.where == {"split": "train", "lang": "en"}
    assert (config.train.epochs, config.train.patience) == (7, 7)


def test_file_with_byte_order_mark_and_windows_line_ends(write):
    assert load(write(b"\xef\xbb\xbfdata:\r\n  source: a.csv\r\nseed: 3\r\n")).seed == 3


def test_integers_are_valid_numbers_but_not_vice_versa(write):
    assert load(write(MINIMAL + "train: {weight_decay: 1}")).train.weight_decay == 1.0
    assert errors(write(MINIMAL + "train: {epochs: 2.0}")) == [
        "c.yaml:2:9: train.epochs: must be a whole number, not 2.0"
    ]


# Errors in the file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: x", "seed: must be a whole number, not 'x'"),
        ("seed: true", "seed: must be a whole number, not True"),
        ("seed: -1", "seed: must be at least 0, not -1"),
        ("seed: 2147483648", "seed: must be less than 2147483648, not 2147483648"),
        ("name: 3", "name: must be text, not 3"),
        ("name: a b", "name: must match ^[A-Za-z0-9][A-Za-z0-9._-]*$, not 'a b'"),
        ("name: ../x", "name: must match ^[A-Za-z0-9][A-Za-z0-9._-]*$, not '../x'"),
        ("seeed: 1", "seeed: unknown key (did you mean seed?)"),
        (
            "zzz: 1",
            "zzz: unknown key (allowed: calibration, data, decision, device, extra, model, name, "
            "registered_model, seed, "
            "task, text, train)",
        ),
        (
            "device: gpus",
            "device: must be 'auto', 'cpu' or 'gpu' (did you mean gpu?), not 'gpus'",
        ),
        ("device: quantum", "device: must be 'auto', 'cpu' or 'gpu', not 'quantum'"),
        ("task: captioning", "task: must be 'sentiment', not 'captioning'"),
        ("train: 3", "train: must be a mapping of keys"),
        ("train:", "train: must be a mapping of keys"),
        ("model: [a]", "model: must be a mapping of keys"),
    ],
)
def test_errors_at_the_top_level(write, text, message):
    assert errors(write(MINIMAL + text)) == [f"c.yaml:2:1: {message}"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model: {cell: lsmt}", "2:9: model.cell: must be 'rnn', 'lstm', 'gru' or 'feedforward' "
         "(did you mean lstm?), not 'lsmt'"),
        ("model:\n  unit: [3]", "3:3: model.unit: unknown key (did you mean units?)"),
        ("model: {units: 3}", "2:9: model.units: must be a list, not 3"),
        ("model: {units: []}", "2:9: model.units: must have 1 entries or more, not []"),
        ("model: {units: [8, 0]}", "2:20: model.units.1: must be at least 1, not 0"),
        ("model:\n  pool:\n    - last\n    - men",
         "5:7: model.pool.1: must be 'last', 'mean' or 'max' (did you mean mean?), not 'men'"),
        ("model: {bidirectional: yes}", "2:9: model.bidirectional: must be true or false, "
         "not 'yes'"),
        ("model: {truncate: x}", "2:9: model.truncate: must be a whole number, not 'x'"),
        ("extra: {passes: 0}", "2:9: extra.passes: must be greater than 0.0, not 0"),
        ("extra: {windw: 3}", "2:9: extra.windw: unknown key (did you mean window?)"),
        ("train: {clip_norm: 0}", "2:9: train.clip_norm: must be greater than 0.0, not 0"),
        ("text: {keep: [head]}", "2:8: text.keep: must be 'head', 'tail' or 'ends' "
         "(did you mean head?), not ['head']"),
    ],
)  # fmt: skip
def test_errors_in_sections(write, text, line):
    assert errors(write(MINIMAL + text)) == [f"c.yaml:{line}"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "1:1: data: must be a mapping of keys"),
        ("{}", "1:1: data.source: this key is required"),
        # One source or several: an error in one of several is reported for that one.
        ("{source: 3}", "1:8: data.source: must be text or a list, not 3"),
        ("{source: {a: b}}", "1:8: data.source: must be text or a list, not {'a': 'b'}"),
        ("{source: []}", "1:8: data.source: must have 1 entries or more, not []"),
        ("{source: [1]}", "1:17: data.source.0: must be text, not 1"),
        ("{source: [a, [b]]}", "1:20: data.source.1: must be text, not ['b']"),
        ("{source: a, where: 3}", "1:19: data.where: must be a mapping, not 3"),
        ("{source: a, where: {ok: [x]}}", "1:27: data.where.ok: must be text, not ['x']"),
        ("{source: a, labels: {int: [3], a: x}}", "1:28: data.labels.int: must be text, not [3]"),
        # A fraction or a source: one line, whether the type or the value is wrong.
        ("{source: a, test: [1]}", "1:26: data.test.0: must be text, not 1"),
        ("{source: a, test: []}", "1:19: data.test: must have 1 entries or more, not []"),
        ("{source: a, test: {}}", "1:19: data.test: must be a number, text or a list, not {}"),
        ("{source: a, test: 1.5}", "1:19: data.test: must be less than 1.0, not 1.5"),
        ("{source: a, test: 1}", "1:19: data.test: must be less than 1.0, not 1"),
        ("{source: a, test: -0.1}", "1:19: data.test: must be at least 0.0, not -0.1"),
    ],
)
def test_errors_in_data(write, text, line):
    assert errors(write(f"data: {text}")) == [f"c.yaml:{line}"]


def test_errors_in_merged_keys_are_located_where_they_are_written(write):
    text = "data: &data\n  source: a.csv\n  test: 2.0\ntrain: {<<: {epochs: 0}}\n"
    assert errors(write(text)) == [
        "c.yaml:3:3: data.test: must be less than 1.0, not 2.0",
        "c.yaml:4:14: train.epochs: must be at least 1, not 0",
    ]


def test_each_invalid_source_is_reported(write):
    path = write("data: {source: [1, a.csv, 2]}")
    assert errors(path, "data.test=[b.csv, true]") == [
        "c.yaml:1:17: data.source.0: must be text, not 1",
        "c.yaml:1:27: data.source.2: must be text, not 2",
        "--set data.test=[b.csv, true]: data.test.1: must be text, not True",
    ]


def test_all_errors_are_reported_together_and_once_each(write):
    path = write(
        """\
nmae: x
data:
  source: a.csv
  validation: 2.0
model:
  cell: lsmt
  units: [a, 4]
train:
  epochs: 0
  learning_rate: fast
  lr: 1e-3
"""
    )
    lines = errors(path, "train.buckets=0", "data.label=[3]")
    assert sorted(lines) == sorted(
        [
            "c.yaml:1:1: nmae: unknown key (did you mean name?)",
            "c.yaml:4:3: data.validation: must be less than 1.0, not 2.0",
            "--set data.label=[3]: data.label: must be text, not [3]",
            "c.yaml:6:3: model.cell: must be 'rnn', 'lstm', 'gru' or 'feedforward' "
            "(did you mean lstm?), not 'lsmt'",
            "c.yaml:7:11: model.units.0: must be a whole number, not 'a'",
            "c.yaml:9:3: train.epochs: must be at least 1, not 0",
            "c.yaml:10:3: train.learning_rate: must be a number, not 'fast'",
            "--set train.buckets=0: train.buckets: must be at least 1, not 0",
            "c.yaml:11:3: train.lr: unknown key (allowed: batch_size, batch_tokens, buckets, "
            "class_weights, "
            "clip_norm, distribute, epochs, health, learning_rate, optimizer, patience, precision, "
            "schedule, warmup_steps, weight_decay)",
        ]
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 1\ndata: {source: a}\nseed: 2", "3:1: seed: duplicate key (first on line 1)"),
        ("data:\n  source: a\n  source: b", "3:3: data.source: duplicate key (first on line 2)"),
        (
            "data: {source: a, labels: {0: x, '0': y}}",
            "1:34: data.labels.0: duplicate key (first on line 1)",
        ),
    ],
)
def test_duplicate_keys_are_errors(write, text, line):
    assert errors(write(text)) == [f"c.yaml:{line}"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("data: {source: a", "c.yaml:1:17: not YAML: expected ',' or '}'"),
        ("data:\n\tsource: a", "c.yaml:2:1: not YAML: found character '\\t'"),
        ("a: b: c", "c.yaml:1:5: not YAML: mapping values are not allowed here"),
        ("data: *nothing", "c.yaml:1:7: not YAML: found undefined alias"),
        ("data: !!python/object:os.system x", "c.yaml:1:7: not YAML: unknown tag"),
        ("data: {? [a] : b}", "c.yaml:1:10: not YAML: a key must be text"),
        ("data: \x00", "c.yaml: not YAML: unacceptable character"),
        ("", "c.yaml: the config is empty"),
        ("# only a comment\n", "c.yaml: the config is empty"),
        ("- a\n- b", "c.yaml: a config is a mapping"),
        ("just text", "c.yaml: a config is a mapping"),
        ("data: &a {source: *a}", "c.yaml:1:7: not YAML: an alias inside its own value"),
        ("seed: !!int x", "c.yaml:1:7: not YAML: 'x' is no int"),
        ("data: {<<: [1]}", "c.yaml:1:13: not YAML: << merges mappings only"),
        ("a: 1\n---\nb: 2", "c.yaml:2:1: not YAML: but found another document"),
    ],
)
def test_files_that_are_no_configs(write, text, place):
    assert errors(write(text))[0].startswith(place)


def test_file_that_is_not_utf_8(write):
    assert errors(write(b"name: caf\xe9"))[0].startswith("c.yaml: cannot be read: 'utf-8' codec")


def test_missing_file_lists_the_available_ones(write):
    path = write(MINIMAL)
    assert errors(path.with_name("d.yaml")) == [
        "d.yaml: no such config file; available: c.yaml",
    ]
    with pytest.raises(UserError, match=r"no such config file$"):
        load(path.parent / "nowhere" / "d.yaml")


def test_folder_is_not_a_config(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)


# Overrides


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=7", "seed", 7),
        ("train.epochs=3", "train.epochs", 3),
        ("train.learning_rate=1e-4", "train.learning_rate", 1e-4),
        ("train.clip_norm=null", "train.clip_norm", None),
        ("train.clip_norm=~", "train.clip_norm", None),
        ("model.units=[8, 4]", "model.units", [8, 4]),
        ("model.pool=[last,max]", "model.pool", ["last", "max"]),
        ("model.bidirectional=true", "model.bidirectional", True),
        ("data.source=tfds:imdb_reviews@train", "data.source", "tfds:imdb_reviews@train"),
        ("data.source=a=b.csv", "data.source", "a=b.csv"),
        ("data.source=a: b: c.csv", "data.source", "a: b: c.csv"),
        ("data.source='3'", "data.source", "3"),
        ("data.labels={0: neg, 1: pos}", "data.labels", {"0": "neg", "1": "pos"}),
        ("data.labels.1=good", "data.labels", {"0": "bad", "1": "good"}),
        ("data.where.lang=en", "data.where", {"lang": "en"}),
        ("data.test=held_out.csv", "data.test", "held_out.csv"),
        ("data.test=0", "data.test", 0.0),
        ("data.source=[a.csv, package:b/c]", "data.source", ["a.csv", "package:b/c"]),
        ("data.test=[a.csv]", "data.test", ["a.csv"]),
        ("extra.passes=2", "extra.passes", 2.0),
        ("extra={window: 5}", "extra.window", 5),
    ],
)  # fmt: skip
def test_override(write, override, key, value):
    path = write("data: {source: a.csv, labels: {0: bad, 1: fine}}\ntrain: {epochs: 9}")
    found = load(path, override)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_overrides_change_nothing_else_and_the_last_one_wins(write):
    config = load(write(MINIMAL + "train: {epochs: 9, patience: 2}"), "seed=2", "train.epochs=3",
                  "train.epochs=4", "extra.window=8", "extra=null")  # fmt: skip
    expected = Toy(
        seed=2,
        data=SentimentDataConfig(source="reviews.csv"),
        train=SentimentTrainConfig(epochs=4, patience=2),
    )
    assert config == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=0", "train.epochs: must be at least 1, not 0"),
        ("train.epochs=", "train.epochs: must be a whole number, not None"),
        ("train.epochs=[1", "train.epochs: must be a whole number, not '[1'"),
        ("train=3", "train: must be a mapping of keys"),
        ("train.epoch=3", "train.epoch: unknown key (did you mean epochs?)"),
        ("trian.epochs=3", "trian: unknown key (did you mean train?)"),
        ("seed.x=3", "seed: must be a whole number, not {'x': 3}"),
        ("model.units.0=3", "model.units: must be a list, not {'0': 3}"),
        ("data.labels={0: x}", "data.labels: must have 2 entries or more, "
         "not {'0': 'x'}"),
        ("extra.dropout=1", "extra.dropout: must be less than 1.0, not 1"),
        ("train.class_weights={a: -1}", "train.class_weights.a: must be greater than 0.0, not -1"),
        ("train.class_weights.a=0", "train.class_weights.a: must be greater than 0.0, not 0"),
        ("train.class_weights={a: x}", "train.class_weights.a: must be a number, not 'x'"),
        ("train.class_weights=even", "train.class_weights: must be balanced, a weight for each "
         "class as in {spam: 5}, or null, not 'even'"),
        ("decision.threshold=1.5", "decision.threshold: must be at most 1.0, not 1.5"),
        ("decision.accuracy=0", "decision.accuracy: must be greater than 0.0, not 0"),
        ("data.separator=''", "data.separator: string should have at least 1 character, not ''"),
    ],
)  # fmt: skip
def test_error_in_an_override_is_located_there(write, override, message):
    path = write(MINIMAL + "model: {units: [4]}\ntrain: {epochs: 9}")
    assert errors(path, override) == [f"--set {override}: {message}"]


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", ".seed=3", ""])
def test_malformed_override_shows_the_format(write, override):
    assert errors(write(MINIMAL), override) == [
        f"--set {override}: write it as key=value, e.g. train.epochs=3"
    ]


def test_override_can_fix_an_error_in_the_file(write):
    assert load(write(MINIMAL + "seed: x"), "seed=3").seed == 3


def test_error_beside_an_override_is_located_in_the_file(write):
    path = write(MINIMAL + "train:\n  epochs: 3\n  patience: 0\n")
    assert errors(path, "train.epochs=5") == [
        "c.yaml:4:3: train.patience: must be at least 1, not 0"
    ]


# Dumping

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["1e-3", "1e5", "no", "null", "~", "", "true", "010", "0x1f", "2020-01-31", "1:30", ".5",
         "<<", "=", "- a", "a: b", "#", "1_0", ".inf", "'", '"', "\x85", "\u2028", "\ufeff", "é\n"]
    ),
)  # fmt: skip
several = st.lists(texts, min_size=1, max_size=3)
shares = st.floats(0, 1, exclude_max=True)
names = st.text(string.ascii_letters + string.digits, min_size=1, max_size=6)

experiments = st.builds(
    Toy,
    name=st.one_of(names, st.sampled_from(["1e-3", "12", "true", "0.1", "2020-01-31"])),
    seed=st.integers(0, 2**31 - 1),
    data=st.builds(
        SentimentDataConfig,
        source=st.one_of(texts, several),
        validation=st.one_of(shares, texts, several),
        test=st.one_of(shares, texts, several),
        where=st.dictionaries(texts, texts, max_size=3),
        labels=st.one_of(st.none(), st.dictionaries(texts, texts, min_size=2, max_size=4)),
        text=texts,
    ),
    text=st.builds(SentimentTextConfig, max_tokens=st.one_of(st.none(), st.integers(1, 9))),
    model=st.builds(
        SentimentModelConfig, units=st.lists(st.integers(1, 9), min_size=1, max_size=3)
    ),
    train=st.builds(
        SentimentTrainConfig,
        class_weights=st.one_of(
            st.none(), st.just("balanced"), st.dictionaries(texts, st.floats(1e-9, 1e9))
        ),
        learning_rate=st.floats(1e-300, 1e300),
        clip_norm=st.one_of(st.none(), st.floats(1e-9, 1e9)),
    ),
    extra=st.one_of(st.none(), st.builds(Extra, passes=st.floats(1e-3, 10))),
)


@given(experiments)
def test_dumped_config_loads_as_an_equal_one(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_bytes(configs.dump(config).encode())
    assert load(path) == config


def test_dump_is_plain_yaml_in_the_order_of_the_fields(write):
    config = load(write(MINIMAL + "name: 日本\n"), "name=x")
    values = YAML(typ="safe").load(configs.dump(config))
    assert list(values) == ["task", "name", "registered_model", "seed", "device", "data", "train",
                            "text", "model", "calibration", "decision", "extra"]  # fmt: skip
    assert values["train"]["learning_rate"] == 0.001


def test_flatten_returns_values_by_dotted_key(write):
    flat = configs.flatten(load(write(MINIMAL), "data.where.lang=en", "model.units=[8,4]"))
    assert flat["seed"] == "1"
    assert flat["data.where.lang"] == "en"
    assert flat["model.units"] == "[8, 4]"
    assert flat["extra"] == "null"
    assert flat["data.labels"] == "null"
    assert all(isinstance(value, str) for value in flat.values())
    assert not any(key.startswith("extra.") for key in flat)
    # An empty mapping is a value too: nothing is left out.
    assert configs.flatten(load(write(MINIMAL)))["data.where"] == "{}"


@given(experiments)
def test_flatten_includes_every_section(config):
    values = config.model_dump(mode="json")
    tops = {key.partition(".")[0] for key in configs.flatten(config)}
    assert tops == set(values)
    leaves = configs.flatten(config)
    assert float(leaves["train.learning_rate"]) == config.train.learning_rate
