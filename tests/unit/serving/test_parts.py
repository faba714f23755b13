"""Parts of the server: JSON codec, batching, repository and OpenAPI schemas."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipelines.serving import json_codec, json_parser, openapi, repository
from pipelines.serving.batching import Batcher
from pipelines.serving.config import BatchingConfig, LimitsConfig, ServingConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.json_codec import TensorSpec
from pipelines.serving.metrics import Metrics
from pipelines.serving.servable import Servable
from tests.support.servers import export

LIMITS = LimitsConfig()
FLOATS, WHOLE, TEXT = np.dtype(np.float32), np.dtype(np.int32), np.dtype(object)


def round_trip(arrays: dict[str, np.ndarray], format: json_codec.Format) -> dict[str, np.ndarray]:
    """Encode arrays as a response, and decode them as a request."""
    answer = json.loads(json_codec.encode_outputs(arrays, format))
    key, value = next(iter(answer.items()))
    asked = {"predictions": "instances", "outputs": "inputs"}[key]
    body = json.dumps({asked: value}).encode()
    specs = {n: TensorSpec(a.dtype, (None, *a.shape[1:])) for n, a in arrays.items()}
    return json_codec.decode_inputs(json_codec.parse_request(body), specs, LIMITS)


@st.composite
def equal_rows(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Generate arrays of all kinds with the same number of rows."""
    rows = draw(st.integers(1, 4))
    kinds = [npst.from_dtype(d, allow_nan=False, allow_infinity=False) for d in (FLOATS, WHOLE)]
    kinds.append(st.booleans())
    out = {}
    for i in range(draw(st.integers(1, 3))):
        shape = (rows, *draw(st.lists(st.integers(1, 3), max_size=2)))
        which = draw(st.integers(0, 3))
        if which == 3:
            name = draw(st.sampled_from(["text", "some_bytes"]))
            items = st.text(max_size=5).map(str.encode) if name == "text" else st.binary(max_size=5)
            out[f"{i}_{name}"] = draw(npst.arrays(TEXT, shape, elements=items))
        else:
            dtype = [FLOATS, WHOLE, np.dtype(bool)][which]
            out[f"{i}"] = draw(npst.arrays(dtype, shape, elements=kinds[which]))
    return out


@given(equal_rows(), st.sampled_from(["row", "column"]))
def test_encoding_and_decoding_round_trips(arrays, format):
    found = round_trip(arrays, format)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_floats_have_the_fewest_digits_that_identify_them():
    numbers = np.array([0.1, 1 / 3, 3.0], np.float32)
    assert (
        json_codec.encode_outputs({"x": numbers}, "column") == b'{"outputs":[0.1,0.33333334,3.0]}'
    )
    numbers[2] = -np.inf
    assert (
        json_codec.encode_outputs({"x": numbers}, "row")
        == b'{"predictions": [0.1, 0.33333334, -Infinity]}'
    )
    both = {"x": np.float32(0.1)[None], "y": np.array([np.nan], np.float32)}
    assert json_codec.encode_outputs(both, "row") == b'{"predictions": [{"x": 0.1, "y": NaN}]}'


def test_outputs_without_common_rows_need_column_format():
    uneven = {"a": np.zeros(2), "b": np.zeros(3)}
    with pytest.raises(RequestError, match="'inputs'"):
        json_codec.encode_outputs(uneven, "row")
    with pytest.raises(RequestError, match="'inputs'"):
        json_codec.encode_outputs({"a": np.float32(1)}, "row")
    assert (
        json_codec.encode_outputs({"a": np.array(0.5, np.float32)}, "column") == b'{"outputs":0.5}'
    )


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=8))
def test_any_json_value_is_decoded_or_rejected(value):
    for dtype in (FLOATS, WHOLE, TEXT):
        specs = {"x": TensorSpec(dtype, (None, None))}
        try:
            array = json_codec.decode_inputs(
                json_codec.Request("s", "column", value), specs, LIMITS
            )["x"]
        except RequestError:
            continue
        assert array.dtype == dtype


class Doubling:
    """A signature that doubles its input, rejects 13, and records the rows of each call."""

    is_batchable = True
    inputs: ClassVar = {
        "x": TensorSpec(WHOLE, (None,)),
        "max_length": TensorSpec(WHOLE, (None,)),
    }

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, inputs: dict[str, np.ndarray], seconds: float) -> dict[str, np.ndarray]:
        self.batches.append(len(inputs["x"]))
        if (inputs["x"] == 13).any():
            raise RequestError(400, "thirteen")
        return {"y": 2 * inputs["x"]}


def answers(signature: Any, inputs: list[dict[str, Any]], **config: Any) -> list[Any]:
    """Return the outputs of requests that arrive together while another one is running."""

    async def run() -> list[Any]:
        with ThreadPoolExecutor(1) as workers:
            batcher = Batcher(signature, BatchingConfig(**config), workers)
            calls = [
                batcher({n: np.array(v) for n, v in one.items()}, 5)
                for one in [{"x": [0], "max_length": [0]}, *inputs]
            ]
            return (await asyncio.gather(*calls, return_exceptions=True))[1:]

    return asyncio.run(run())


def test_a_version_that_failed_to_load_is_retried_later(tmp_path, monkeypatch):
    export(tmp_path / "tiny" / "1", signatures=["checked"])
    attempts = []

    def fail_once(*args: Any) -> repository.Servable:
        attempts.append(args)
        if len(attempts) == 1:
            raise MemoryError
        return Servable(*args)

    monkeypatch.setattr(repository, "Servable", fail_once)

    async def run() -> None:
        models = repository.Repository(tmp_path, [], ServingConfig(), Metrics())
        for _ in range(2):  # not at once, since a failure takes as long as a success
            await models.update()
            assert [(v.state, v.error) for v in models.versions("tiny")] == [
                ("END", "MemoryError: ")
            ]
        assert len(attempts) == 1
        monkeypatch.setattr(repository, "_RETRY", 0.0)
        await models.update()
        assert models.find("tiny").state == "AVAILABLE"
        await models.close()

    asyncio.run(run())


JSON_TEXT = st.recursive(
    st.sampled_from(["1", "-0", "0.5", "1e3", '"a"', '"NaN"', "null", "true"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", '"', "é"]), JSON_TEXT), max_size=4))
def test_the_first_of_equal_keys_counts(pairs):
    """As Python's parser reads it, without the values of keys that have one."""
    first = dict(reversed(pairs))
    members = ", ".join(f"{orjson.dumps(key).decode()}: {value}" for key, value in pairs)
    found, _ = json_parser.parse(f"{{{members}}}".encode())
    assert found == {key: json.loads(value) for key, value in first.items()}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "Inf", "-Inf", "-NaN"])
@given(value=JSON_TEXT, text=st.text(max_size=5))
def test_numbers_that_json_does_not_have(number, value, text):
    text = f"{text}, {number} , {text}"
    body = f"[{number}, {json.dumps(text)}, {value}, 18446744073709551616]"
    (first, second, *rest), is_marked = json_parser.parse(body.encode())
    assert is_marked
    found, expected = json_parser.without_mark(first), float(number)
    assert found == expected or (math.isnan(found) and math.isnan(expected))
    assert json_parser.without_mark(second) == text
    assert rest == [json.loads(value), 2.0**64]


def test_equal_keys_of_a_large_body_are_not_looked_for():
    """Nothing else would run while Python's own parser reads it."""
    content, _ = json_parser.parse(b'{"inputs": 1, "inputs": "%b"}' % (b"a" * 1_000_000))
    assert content == {"inputs": "a" * 1_000_000}


def test_a_shape_that_a_signature_does_not_specify_is_free():
    specs = {"x": TensorSpec(FLOATS, None)}
    deep = "[" * 33 + "1" + "]" * 33
    with pytest.raises(RequestError, match="more than 32 deep"):
        json_codec.decode_inputs(
            json_codec.parse_request(b'{"inputs": %b}' % deep.encode()), specs, LIMITS
        )
    found = json_codec.decode_inputs(
        json_codec.parse_request(b'{"inputs": [[1, 2]]}'), specs, LIMITS
    )
    np.testing.assert_array_equal(found["x"], [[1.0, 2.0]])
    json_codec.check_shapes(found, specs)
    narrow = {"x": TensorSpec(FLOATS, (None, 3))}
    with pytest.raises(RequestError, match=r"shape \[any, 3\] is expected, not \[1, 2\]"):
        json_codec.check_shapes(found, narrow)


def test_requests_that_arrive_meanwhile_form_a_batch_up_to_its_limit():
    signature = Doubling()
    asked = [{"x": [i, i + 20]} for i in range(5)]
    found = answers(signature, asked, max_rows=6)
    assert [a["y"].tolist() for a in found] == [[2 * i, 2 * i + 40] for i in range(5)]
    assert signature.batches == [1, 6, 4]


def test_a_batch_that_is_half_full_runs_beside_another():
    started, together = threading.Event(), threading.Barrier(2, timeout=60)

    class Meeting(Doubling):
        """Returns once two calls run at the same time."""

        def __call__(self, inputs: dict[str, np.ndarray], seconds: float) -> dict[str, np.ndarray]:
            started.set()
            together.wait()
            return super().__call__(inputs, seconds)

    signature: Any = Meeting()

    async def run() -> list[Any]:
        with ThreadPoolExecutor(2) as workers:
            batcher = Batcher(signature, BatchingConfig(max_rows=6), workers, concurrency=2)
            first = asyncio.ensure_future(batcher({"x": np.array([0])}, 60))
            await asyncio.to_thread(started.wait, 60)
            others = (batcher({"x": np.array([i])}, 60) for i in (1, 2, 3))
            return await asyncio.gather(first, *others)

    assert [a["y"].tolist() for a in asyncio.run(run())] == [[0], [2], [4], [6]]
    assert sorted(signature.batches) == [1, 3]


def test_only_compatible_requests_share_a_batch():
    signature = Doubling()
    asked = [
        {"x": [1], "max_length": [5]}, {"x": [2], "max_length": [6]}, {"x": [3], "max_length": [5]},
        # A shape that the signature does not have, twice; rows that differ among themselves; an
        # input for all rows; no rows.
        {"x": [[1, 2]], "max_length": [5]}, {"x": [[3, 4]], "max_length": [5]},
        {"x": [7, 8], "max_length": [5, 6]},
        {"x": [5, 6], "max_length": [5]}, {"x": [], "max_length": []},
    ]  # fmt: skip
    found = answers(signature, asked)
    assert [a["y"].tolist() for a in found] == [
        [2], [4], [6], [[2, 4]], [[6, 8]], [14, 16], [10, 12], []
    ]  # fmt: skip
    assert signature.batches == [1, 2, 1, 1, 1, 2, 2, 0]


def test_a_failing_request_does_not_fail_its_batch():
    signature = Doubling()
    found = answers(signature, [{"x": [12]}, {"x": [13]}, {"x": [14]}])
    assert found[0]["y"].tolist() == [24]
    assert isinstance(found[1], RequestError)
    assert found[2]["y"].tolist() == [28]
    assert signature.batches == [1, 3, 1, 1, 1]


def test_signatures_that_cannot_be_batched_run_each_request_alone():
    signature = Doubling()
    signature.is_batchable = False
    found = answers(signature, [{"x": [1]}, {"x": [2]}])
    assert [a["y"].tolist() for a in found] == [[2], [4]]
    assert signature.batches == [1, 1, 1]


def test_the_schema_of_a_model_has_its_inputs_outputs_and_limits():
    class Signature:
        inputs = {"text": TensorSpec(TEXT, (None,)), "beam_width": TensorSpec(WHOLE, (None,))}  # noqa: RUF012
        outputs = {"score": TensorSpec(FLOATS, (None, 3))}  # noqa: RUF012

    signatures: Any = {"serving_default": Signature()}
    (rows, columns) = openapi.request_schema(signatures, LIMITS)["anyOf"]
    row = rows["properties"]["instances"]["items"]["anyOf"][0]
    assert set(row["required"]) == {"text", "beam_width"}
    assert row["properties"]["beam_width"]["maximum"] == LIMITS.most.beam_width
    assert rows["properties"]["instances"]["maxItems"] == LIMITS.rows
    column = columns["properties"]["inputs"]["anyOf"][0]["properties"]
    assert column["text"]["type"] == "array"
    given_back = openapi.response_schema(signatures)["anyOf"][0]["properties"]["outputs"]
    assert given_back["items"]["minItems"] == 3
