"""Requests that TensorFlow Serving answers are answered alike, over REST and gRPC.

The cases follow its documentation and the behaviour of its tests; the models are small ones of our
own: a line, an identity of each dtype, a counter, and some that fail.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.engine.core.files import new_folder
from tests.support.servers import serving, wait

pytest.importorskip("tensorflow_serving")

import grpc
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from tests.support.grpc_client import GrpcClient

Code = grpc.StatusCode
DTYPES = [
    tf.bool, tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64,
    tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64, tf.complex128, tf.string,
]  # fmt: skip
NAN, INF = float("nan"), float("inf")


class Line(tf.Module):
    """Half of the input plus a constant, for inputs of one column."""

    def __init__(self, constant: float) -> None:
        self.slope, self.constant = tf.Variable(0.5), tf.Variable(constant)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def serve(self, x):
        return {"y": self.slope * x + self.constant}


class Counter(tf.Module):
    """A model with state."""

    def __init__(self) -> None:
        self.count = tf.Variable(0.0)

    @tf.function(input_signature=[])
    def get_counter(self):
        return {"output": self.count.read_value()}

    @tf.function(input_signature=[])
    def incr_counter(self):
        return {"output": self.count.assign_add(1.0)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="delta")])
    def incr_counter_by(self, delta):
        self.count.assign_add(tf.reduce_sum(delta))
        return {"output": tf.fill(tf.shape(delta), self.count.read_value())}

    @tf.function(input_signature=[])
    def reset_counter(self):
        self.count.assign(0.0)
        return {"output": tf.identity(0.0)}


def free(dtype: Any, name: str = "x") -> tf.TensorSpec:
    """Return the spec of a tensor of any shape."""
    return tf.TensorSpec(None, dtype, name=name)


def various() -> dict[str, Any]:
    """Return signatures by name: identities, and functions of all kinds of outputs."""

    def signature(*inputs: tf.TensorSpec) -> Callable[[Callable[..., Any]], Any]:
        return tf.function(input_signature=list(inputs))

    def named(name: str) -> Callable[..., Any]:
        return lambda x: {name: tf.identity(x)}

    @signature(free(tf.int32, "a"), free(tf.float32, "b"))
    def two(a, b):
        return {"a": tf.identity(a), "b": 2 * b}

    @signature(free(tf.string, "b64"))
    def called_b64(b64):
        return {"y": tf.identity(b64)}

    @signature(free(tf.string))
    def join(x):
        return {"y": tf.strings.reduce_join(x) + b"\0\0"}

    @signature(free(tf.float32))
    def uneven(x):
        return {"once": x, "twice": tf.concat([x, x], 0)}

    @signature(free(tf.float32))
    def checked(x):
        text = "see /srv/models/secret.txt"
        with tf.control_dependencies([tf.debugging.assert_less(x, 10.0, message=text)]):
            return {"y": tf.identity(x)}

    @signature(free(tf.int64))
    def large(x):
        return {"y": tf.fill(tf.reshape(x, [1]), 1.0)}

    @signature(tf.TensorSpec([None, 2], tf.float32, name="x"))
    def softmax(x):
        return {"y": tf.nn.softmax(x)}

    @signature(tf.TensorSpec([None, 2], tf.float32, name="x"))
    def product(x):
        return {"y": tf.matmul(x, [[1.0], [2.0]])}

    @signature(free(tf.string))
    def read(x):
        return {"y": tf.io.read_file(x)}

    found = {d.name: signature(free(d))(named("y")) for d in DTYPES}
    found["serving_default"] = found["float32"]
    found["raw"] = signature(free(tf.string))(named("y_bytes"))
    return found | {
        "two": two, "called_b64": called_b64, "join": join, "uneven": uneven, "checked": checked,
        "large": large, "softmax": softmax, "product": product, "read": read,
    }  # fmt: skip


def save_graph(folder: Path) -> None:
    """Save a model of TensorFlow 1, with signatures for other methods than predict."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session, new_folder(folder) as work:
        x = v1.placeholder(tf.float32, name="x")
        slope = v1.get_variable("slope", initializer=0.5)
        y = tf.identity(slope * x + 3.0, "y")
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(work / "model"))

        def signature(given: str, found: str, method: str) -> Any:
            info = v1.saved_model.build_tensor_info
            return v1.saved_model.build_signature_def(
                {given: info(x)}, {found: info(y)}, f"tensorflow/serving/{method}"
            )

        signatures = {
            "serving_default": signature("x", "y", "predict"),
            "regress_x2_to_y3": signature("inputs", "outputs", "regress"),
            "classify_x2_to_y3": signature("inputs", "scores", "classify"),
        }
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
        for path in (work / "model").iterdir():
            path.rename(work / path.name)


def save(folder: Path, model: tf.Module, signatures: dict[str, Any]) -> None:
    with new_folder(folder) as work:
        tf.saved_model.save(model, str(work), signatures)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcClient]:
    home = tmp_path_factory.mktemp("home")
    exports = home / "exports"
    line = Line(2.0)
    save(exports / "half_plus_two" / "123", line, {"serving_default": line.serve})
    line = Line(3.0)
    save(exports / "half_plus_three" / "0", line, {"serving_default": line.serve})
    for version in "123":
        shutil.copytree(exports / "half_plus_three" / "0", exports / "half_plus_three" / version)
    save_graph(exports / "graph" / "1")
    counter = Counter()
    names = ("get_counter", "incr_counter", "incr_counter_by", "reset_counter")
    save(exports / "counter" / "1", counter, {name: getattr(counter, name) for name in names})
    save(exports / "various" / "1", tf.Module(), various())
    labels = ("stable=1", "canary=2", "gone=7")
    settings = [f"labels.half_plus_three.{label}" for label in labels]
    with serving(home, "grpc_port=0", *settings) as server:
        wait(lambda: server.get(f"/v1/models/{THREE}").text.count("AVAILABLE") == 3)
        client = GrpcClient(server)
        yield client
        client.channel.close()


def same(one: Any, other: Any) -> bool:
    """Return whether JSON values are equal, NaN included."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def rows(*instances: Any, signature: str | None = None) -> dict[str, Any]:
    named = {} if signature is None else {"signature_name": signature}
    return {**named, "instances": list(instances)}


def columns(inputs: Any, signature: str | None = None) -> dict[str, Any]:
    named = {} if signature is None else {"signature_name": signature}
    return {**named, "inputs": inputs}


def b64(raw: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(raw).decode()}


def deep(levels: int) -> bytes:
    return b'{"inputs": %b1%b}' % (b"[" * levels, b"]" * levels)


LONG = bytes(range(256))
TWO, THREE = "half_plus_two", "half_plus_three"
FIRST = b'{"inputs": [1.0], "inputs": [2.0]}'
# Model, body, and the outputs or predictions.
ANSWERED: dict[str, tuple[str, Any, Any]] = {
    "the README's example": (TWO, rows(1.0, 2.0, 5.0), [2.5, 3.0, 4.5]),
    "a model of TensorFlow 1": ("graph", rows(1.0, 2.0), [3.5, 4.0]),
    "a signature to regress": ("graph", rows(1.0, signature="regress_x2_to_y3"), [3.5]),
    "the documentation's example": (THREE, rows(1.0, 2.0, 5.0), [3.5, 4.0, 5.5]),
    "as the signature has it": (TWO, rows([1.0], [2.0]), [[2.5], [3.0]]),
    "rows of two": (TWO, rows([1.0, 2.0], [3.0, 4.0]), [[2.5, 3.0], [3.5, 4.0]]),
    "rows of matrices": (TWO, rows([[1.0, 2.0]]), [[[2.5, 3.0]]]),
    "columns": (TWO, columns([3.0, 4.0]), [3.5, 4.0]),
    "named columns": (TWO, columns({"x": [3.0, 4.0]}), [3.5, 4.0]),
    "a scalar": (TWO, columns(2.0), 3.0),
    "a named scalar": (TWO, columns({"x": 2.0}), 3.0),
    "named rows": (TWO, rows({"x": 1.0}, {"x": 2.0}), [2.5, 3.0]),
    "the signature's name": (TWO, rows(3.0, signature="serving_default"), [3.5]),
    "an empty name": (TWO, rows(3.0, signature=""), [3.5]),
    "integers and decimals": (TWO, rows(1, 2.0, 3), [2.5, 3.0, 3.5]),
    "exponents": (TWO, b'{"instances": [1e1, 2E0, 20e-1, -0]}', [7.0, 3.0, 3.0, 2.0]),
    "an unknown key": (TWO, {"instances": [1.0], "more": {"x": []}}, [2.5]),
    "an unknown column": (TWO, columns({"x": [1.0], "more": 3}), [2.5]),
    "white space": (TWO, b' \t\r\n{ "instances" : [ 1.0 ] }\n', [2.5]),
    "a byte order mark": (TWO, b'\xef\xbb\xbf{"instances": [1.0]}', [2.5]),
    "escaped keys": (TWO, b'{"\\u0069nputs": [1.0]}', [2.5]),
    "no columns": (TWO, columns([]), []),
    "NaN": (TWO, b'{"instances": [NaN, 1.0]}', [NAN, 2.5]),
    "infinities": (TWO, b'{"instances": [Infinity, -Infinity]}', [INF, -INF]),
    "short infinities": (TWO, b'{"instances": [Inf, -Inf, -NaN]}', [INF, -INF, NAN]),
    "too large for float32": (TWO, rows(1e39, -1e39), [INF, -INF]),
    "not exact in float32": ("various", rows(16777217), [16777216.0]),
    "a text of such numbers": (
        "various", b'{"signature_name": "two", "inputs": {"a": 1, "b": [NaN], "c": "x, NaN"}}',
        {"a": 1, "b": [NAN]},
    ),
    "texts of such numbers": (
        "various", b'{"x": NaN, "signature_name": "string", "inputs": ["a, NaN , -Inf, b"]}',
        ["a, NaN , -Inf, b"],
    ),
    "the first of equal keys": (TWO, FIRST, [2.5]),
    "the first of equal names": (TWO, b'{"inputs": {"x": [1.0], "x": [2.0]}}', [2.5]),
    "the first name of a row": (TWO, b'{"instances": [{"x": 1.0, "x": 2.0}]}', [2.5]),
    "the first, and NaN": (TWO, b'{"inputs": [NaN], "inputs": [2.0]}', [NAN]),
    "booleans": ("various", rows(True, False, signature="bool"), [True, False]),
    "int8": ("various", rows(-128, 127, signature="int8"), [-128, 127]),
    "int16": ("various", rows(-(2**15), 2**15 - 1, signature="int16"), [-(2**15), 2**15 - 1]),
    "int32": ("various", rows(-(2**31), 2**31 - 1, signature="int32"), [-(2**31), 2**31 - 1]),
    "int64": ("various", rows(-(2**63), 2**63 - 1, signature="int64"), [-(2**63), 2**63 - 1]),
    "uint8": ("various", rows(0, 255, signature="uint8"), [0, 255]),
    "uint32": ("various", rows(2**32 - 1, signature="uint32"), [2**32 - 1]),
    "uint64": ("various", rows(2**64 - 1, signature="uint64"), [2**64 - 1]),
    "float32": ("various", rows(0.1, 9e6, 3e-5), [0.1, 9e6, 3e-5]),
    "float64": (
        "various", rows(0.1, 1e300, 2**63, signature="float64"), [0.1, 1e300, 2.0**63],
    ),
    "large integers for float64": (
        "various", rows(2**64, -(2**70), signature="float64"), [2.0**64, -(2.0**70)],
    ),
    "texts": ("various", rows("a", "grün", "\0", "", signature="string"), ["a", "grün", "\0", ""]),
    "base64": (
        "various", rows(b64(b"hello"), b64(b"world"), signature="string"), ["hello", "world"],
    ),
    "base64 in lists": (
        "various", rows([b64(b"a")], [b64(b"b")], signature="string"), [["a"], ["b"]],
    ),
    "base64 in named rows": (
        "various", rows({"x": [[b64(b"a")]]}, signature="string"), [[["a"]]],
    ),
    "base64 beside texts": ("various", rows("a", b64(b"b"), signature="string"), ["a", "b"]),
    "base64 as columns": ("various", columns(b64(b"hello"), "string"), "hello"),
    "base64 as a column": ("various", columns({"x": b64(b"hello")}, "string"), "hello"),
    "base64 in lines": (
        "various", rows({"b64": base64.encodebytes(LONG).decode()}, signature="raw"), [b64(LONG)],
    ),
    "base64 without padding": ("various", rows({"b64": "aGk"}, signature="string"), ["hi"]),
    "base64 for an input called b64": (
        "various", columns(b64(b"hello"), "called_b64"), "hello",
    ),
    "base64 rows for an input called b64": (
        "various", rows(b64(b"hello"), signature="called_b64"), ["hello"],
    ),
    "a list for an input called b64": (
        "various", columns({"b64": ["hello"]}, "called_b64"), ["hello"],
    ),
    "bytes": ("various", rows("a", signature="raw"), [b64(b"a")]),
    "a scalar of bytes": ("various", columns("a", "raw"), b64(b"a")),
    "a scalar string": ("various", columns(["a", "b"], "join"), "ab\0\0"),
    "two inputs": (
        "various", rows({"a": 1, "b": 2.5}, {"a": 2, "b": 3}, signature="two"),
        [{"a": 1, "b": 5.0}, {"a": 2, "b": 6.0}],
    ),
    "two columns": (
        "various", columns({"a": [1, 2, 3], "b": [[2.5]]}, "two"),
        {"a": [1, 2, 3], "b": [[5.0]]},
    ),
    "outputs of several sizes": (
        "various", columns([1.0], "uneven"), {"once": [1.0], "twice": [1.0, 1.0]},
    ),
    "a scalar for a free shape": ("various", columns(7), 7.0),
    "a free shape": ("various", columns([[[1], [2]]]), [[[1.0], [2.0]]]),
    "no rows": ("various", columns([[], []]), [[], []]),
    "a graph's check passes": ("various", rows(9.0, signature="checked"), [9.0]),
    "half": ("various", rows(1.5, signature="float16"), [1.5]),
}  # fmt: skip


@pytest.mark.parametrize(("model", "body", "expected"), ANSWERED.values(), ids=ANSWERED)
def test_rest_requests_are_answered(client, model, body, expected):
    found = client.server.post(body, f"/v1/models/{model}:predict")
    assert found.status_code == 200, found.text
    (key,) = found.json()
    asked = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert key == ("predictions" if b"nstances" in asked else "outputs")
    assert same(found.json()[key], expected)


REFUSED: dict[str, tuple[str, Any, str]] = {
    "nothing": (TWO, b"", "JSON Parse error: The document is empty"),
    "no JSON": (TWO, b"instances = [1, 2]", "JSON Parse error"),
    "cut": (TWO, b'{"instances": [1.0', "JSON Parse error"),
    "two documents": (TWO, b'{"instances": [1.0]} {}', "JSON Parse error"),
    "a trailing comma": (TWO, b'{"instances": [1.0,]}', "JSON Parse error"),
    "a leading zero": (TWO, b'{"instances": [01]}', "JSON Parse error"),
    "half a character": (TWO, b'{"instances": ["\\ud800"]}', "JSON Parse error"),
    "half a character, and NaN": (TWO, b'{"a": NaN, "instances": ["\\ud800"]}', "JSON Parse error"),
    "not UTF-8": (TWO, b'{"instances": ["\xff"]}', "JSON Parse error"),
    "infinite as a double": (TWO, b'{"instances": [1e999]}', "JSON Parse error"),
    "infinite as a double, and NaN": (TWO, b'{"instances": [1e999, NaN]}', "JSON Parse error"),
    "an endless integer, and NaN": (
        TWO, b'{"instances": [NaN, %b]}' % (b"1" * 5000), "JSON Parse error",
    ),
    "other infinities": (TWO, b'{"instances": [infinity]}', "JSON Parse error"),
    "a text that never ends": (TWO, b'{"a": Inf, "' + b'\\"' * 50_000, "JSON Parse error"),
    "a list": (TWO, b"[]", "not an object"),
    "NaN alone": (TWO, b"NaN", "JSON Parse error"),
    "a number": (TWO, b"1", "not an object"),
    "deep": (TWO, deep(900), "more than 32 deep"),
    "deeper": (TWO, deep(5_000), "JSON Parse error"),
    "deepest": (TWO, b'{"inputs": ' + b"[" * 100_000, "JSON Parse error"),
    "deep, and NaN": (TWO, deep(5_000).replace(b"1", b"NaN"), "JSON Parse error"),
    "deep objects": (TWO, b'{"a":' * 5_000, "JSON Parse error"),
    "neither key": (TWO, {}, "Missing 'inputs' or 'instances' key"),
    "both keys": (TWO, rows(1.0) | columns([1.0]), "only one of 'inputs' or 'instances'"),
    "a signature that is a number": (
        TWO, {"signature_name": 100}, "'signature_name' key must be a string value",
    ),
    "no such signature": (
        TWO, rows(1.0, signature="nope"), 'Serving signature name: "nope" not found',
    ),
    "instances that are a number": (TWO, {"instances": 1.0}, "not a list"),
    "instances that are an object": (TWO, {"instances": {"x": 1.0}}, "not a list"),
    "instances that are null": (TWO, {"instances": None}, "not a list"),
    "no instances": (TWO, {"instances": []}, "no values in 'instances'"),
    "inputs that are null": (TWO, columns(None), "not of expected type: float"),
    "text for a number": (TWO, rows("x", "y"), "not of expected type: float"),
    "true for a number": (TWO, rows(True), "not of expected type: float"),
    "null for a number": (TWO, rows(None), "not of expected type: float"),
    "an object for a number": (TWO, columns([{}]), "not of expected type: float"),
    "base64 for a number": (TWO, rows(b64(b"a")), "not of expected type: float"),
    "a number for text": ("various", rows(1, signature="string"), "not of expected type: string"),
    "1 for a boolean": ("various", rows(1, signature="bool"), "not of expected type: bool"),
    "true for an integer": ("various", rows(True, signature="int32"), "expected type: int32"),
    "1.0 for an integer": ("various", rows(1.0, signature="int32"), "expected type: int32"),
    "1e2 for an integer": (
        "various", b'{"signature_name": "int64", "inputs": [1e2]}', "expected type: int64",
    ),
    "NaN for an integer": (
        "various", b'{"signature_name": "int32", "inputs": [NaN]}', "expected type: int32",
    ),
    "NaN for text": (
        "various", b'{"signature_name": "string", "inputs": [NaN]}', "expected type: string",
    ),
    "too large for int8": ("various", rows(128, signature="int8"), "int8 cannot hold"),
    "too large for int32": ("various", rows(2**31, signature="int32"), "int32 cannot hold"),
    "too large for int64": ("various", rows(2**63, signature="int64"), "int64 cannot hold"),
    "too large for uint64": ("various", rows(2**64, signature="uint64"), "expected type: uint64"),
    "negative for uint8": ("various", rows(-1, signature="uint8"), "uint8 cannot hold"),
    "invalid base64": ("various", rows({"b64": "a*b="}, signature="string"), "not base64"),
    "base64 of 5 characters": ("various", rows({"b64": "aGkaa"}, signature="string"), "not base64"),
    "base64 that is a number": (
        "various", columns([{"b64": 3}], "string"), "expected type: string",
    ),
    "base64 and more": (
        "various", columns([{"b64": "aGk=", "more": 1}], "string"), "expected type: string",
    ),
    "rows of unequal size": (TWO, rows([1, 2], [3, 4], [5, 6, 7]), "unequal"),
    "rows of unequal depth": (TWO, rows([1, 2], [[3, 4]]), "unequal"),
    "a list beside a number": (TWO, rows(1, [1]), "not of expected type: float"),
    "a number beside a list": (TWO, rows([1], 1), "unequal"),
    "an empty row beside another": (TWO, rows([], [1]), "unequal"),
    "unequal columns": (TWO, columns([[1, 2], [3]]), "unequal"),
    "an object beside a list": (TWO, rows({"x": 1.0}, [1.0]), "not an object"),
    "a list beside an object": (TWO, rows([1.0], {"x": 1.0}), "not an object"),
    "another name in a row": (TWO, rows({"z": 1.0}), "{x}"),
    "a name more in a row": (TWO, rows({"x": 1.0, "z": 1.0}), "{x}"),
    "a name less in a row": ("various", rows({"a": 1}, signature="two"), "{a, b}"),
    "plain rows of two inputs": ("various", rows(1.0, signature="two"), "{a, b}"),
    "base64 rows of two inputs": ("various", rows(b64(b"a"), signature="two"), "{a, b}"),
    "plain columns of two inputs": ("various", columns([1.0], "two"), "{a, b}"),
    "a missing column": ("various", columns({"a": 1}, "two"), "Missing named input: b"),
    "uneven outputs in rows": ("various", rows(1.0, signature="uneven"), "batch size"),
    "a scalar output in rows": ("various", rows("a", signature="join"), "batch size"),
    "complex outputs": ("various", columns([1.0], "complex64"), "type: complex64"),
    "bfloat16": ("various", columns([1.0], "bfloat16"), "type: bfloat16"),
    "what the graph refuses": ("various", rows(11.0, signature="checked"), "see …"),
    "a shape the graph refuses": ("various", rows(1.0, signature="product"), "cannot take this"),
    "columns the graph refuses": (
        "various", rows([1.0], signature="product"), "cannot take this",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "body", "said"), REFUSED.values(), ids=REFUSED)
def test_rest_requests_are_refused(client, model, body, said):
    found = client.server.post(body, f"/v1/models/{model}:predict")
    assert (found.status_code, set(found.json())) == (400, {"error"}), found.text
    assert said in found.json()["error"]
    assert len(found.json()["error"]) < 500
    assert "/srv" not in found.text


def test_memory_that_there_is_not(client):
    body = columns([2**50], "large")
    found = client.server.post(body, "/v1/models/various:predict")
    assert found.status_code == 503, found.text
    assert "not enough memory" in found.json()["error"]
    code, details = refused(
        client.predictions.Predict, asking("various", "large", x=np.int64(2**50))
    )
    assert (code, details) == (Code.RESOURCE_EXHAUSTED, found.json()["error"])
    assert client.server.post(rows(1.0), f"/v1/models/{TWO}:predict").status_code == 200


def test_what_a_model_does_not_find(client):
    found = client.server.post(columns("/srv/nope", "read"), "/v1/models/various:predict")
    assert found.status_code == 404, found.text
    asked = asking("various", "read", x=np.array("/srv/nope"))
    code, details = refused(client.predictions.Predict, asked)
    assert (code, details) == (Code.NOT_FOUND, found.json()["error"])
    assert "No such file" in details
    assert "/srv" not in details


def test_the_schema_of_a_model_with_all_dtypes(client):
    paths = client.server.get("/openapi.json").json()["paths"]
    assert "/v1/models/various:predict" in paths


def test_a_long_name_is_cut_in_errors(client):
    name = "n" * 1_000_000
    found = client.server.post(rows(1.0, signature=name), f"/v1/models/{TWO}:predict")
    assert found.status_code == 400
    assert len(found.text) < 300
    for request in (asking(name), asking(TWO, name), asking(TWO, **{name: 1.0})):
        assert len(refused(client.predictions.Predict, request)[1]) < 400


def test_requests_of_other_shapes_do_not_spoil_a_batch(client):
    """A softmax over a row would be one over several requests if their rows were joined."""

    def ask(values: Any) -> tuple[int, Any]:
        body = columns(values, "softmax")
        found = client.server.post(body, "/v1/models/various:predict")
        return found.status_code, found.json()

    asked = [[[1.0, 2.0]], [1.0, 2.0], 1.0, [[[1.0, 2.0]]], [[3.0, 4.0]], [[1.0]], [3.0, 4.0, 5.0]]
    alone = [ask(values) for values in asked]
    with ThreadPoolExecutor(7) as clients:
        for _ in range(5):
            assert list(clients.map(ask, asked)) == alone
    assert [status for status, _ in alone].count(200) >= 5


def test_loading_does_not_change_state_and_no_call_is_joined_with_another(client):
    def counted(signature: str, *delta: float) -> Any:
        body = columns(list(delta) or {}, signature)
        return client.server.post(body, "/v1/models/counter:predict").json()["outputs"]

    assert counted("get_counter") == 0.0
    assert counted("incr_counter") == 1.0
    assert counted("incr_counter_by", 3.0, 4.0) == [8.0, 8.0]
    assert counted("reset_counter") == 0.0
    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(lambda _: counted("incr_counter_by", 1.0), range(8)))
    assert sorted(found) == [[float(n)] for n in range(1, 9)]
    assert outputs_over_grpc(client, asking("counter", "incr_counter")) == {"output": 9.0}
    assert counted("reset_counter") == 0.0


def outputs_over_grpc(client: GrpcClient, request: Any) -> dict[str, Any]:
    """Return the outputs over gRPC as lists."""
    outputs = client.predictions.Predict(request, timeout=60).outputs
    return {name: tf.make_ndarray(tensor).tolist() for name, tensor in outputs.items()}


def asking(model: str, signature: str = "", filter: Any = (), **inputs: Any) -> Any:
    request = predict_pb2.PredictRequest(output_filter=filter)
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        is_proto = isinstance(value, TensorProto)
        request.inputs[name].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
    return request


def versioned(request: Any, version: int | str) -> Any:
    if isinstance(version, int):
        request.model_spec.version.value = version
    else:
        request.model_spec.version_label = version
    return request


def tensor(dtype: Any, shape: Any = (), **values: Any) -> Any:
    dims = [{"size": size} for size in shape]
    return TensorProto(dtype=dtype.as_datatype_enum, tensor_shape={"dim": dims}, **values)


def refused(method: Any, request: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as error:
        method(request, timeout=60)
    return error.value.code(), error.value.details()


F, S = tf.float32, tf.string
GRPC_ANSWERED: dict[str, tuple[Any, dict[str, Any]]] = {
    "a scalar": (asking(TWO, x=tensor(F, float_val=[2])), {"y": 3.0}),
    "a vector": (asking(TWO, x=tensor(F, [1], float_val=[2])), {"y": [3.0]}),
    "a matrix": (asking(TWO, x=tensor(F, [2, 1], float_val=[2, 4])), {"y": [[3.0], [4.0]]}),
    "a matrix of other columns": (
        asking(TWO, x=tensor(F, [1, 2], float_val=[2, 4])), {"y": [[3.0, 4.0]]},
    ),
    "another model": (asking(THREE, x=tensor(F, [1], float_val=[2])), {"y": [4.0]}),
    "a model of TensorFlow 1": (asking("graph", x=tensor(F, float_val=[2])), {"y": 4.0}),
    "a signature to regress": (
        asking("graph", "regress_x2_to_y3", inputs=np.float32(2)), {"outputs": 4.0},
    ),
    "a signature to classify": (
        asking("graph", "classify_x2_to_y3", inputs=np.float32(2)), {"scores": 4.0},
    ),
    "a filter": (asking(TWO, filter=["y"], x=tensor(F, float_val=[2])), {"y": 3.0}),
    "one output of two": (
        asking("various", "two", ["b"], a=np.int32(1), b=np.float32(2)), {"b": 4.0},
    ),
    "a version": (versioned(asking(TWO, x=np.float32(2)), 123), {"y": 3.0}),
    "the label of an older version": (
        versioned(asking(THREE, x=np.float32(2)), "stable"), {"y": 4.0},
    ),
    "omitted values": (asking("various", x=tensor(F, [4], float_val=[1, 2])), {"y": [1, 2, 2, 2]}),
    "no values": (asking("various", x=tensor(F, [2])), {"y": [0.0, 0.0]}),
    "no texts": (asking("various", "string", x=tensor(S, [2])), {"y": [b"", b""]}),
    "no integers": (asking("various", "bfloat16", x=tensor(tf.bfloat16, [1])), {"y": [0.0]}),
    "no rows": (asking("various", x=tensor(F, [0, 2])), {"y": []}),
    "content": (
        asking("various", x=tensor(F, [2], tensor_content=np.float32([1, 2]).tobytes())),
        {"y": [1.0, 2.0]},
    ),
    "texts as content": (
        asking("various", "string", x=tensor(S, [2], tensor_content=b"\2\1abc")),
        {"y": [b"ab", b"c"]},
    ),
    "a scalar text with zeros": (
        asking("various", "join", x=np.array(["a", "b"])), {"y": b"ab\0\0"},
    ),
    "a scalar text": (asking("various", "string", x=tensor(S, string_val=[b"\0"])), {"y": b"\0"}),
    "bytes": (
        asking("various", "raw", x=np.array([b"\xff\0a"], object)), {"y_bytes": [b"\xff\0a"]},
    ),
    "a check that passes": (asking("various", "checked", x=np.float32(1)), {"y": 1.0}),
    "no inputs": (asking("counter", "get_counter"), {"output": 0.0}),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "expected"), GRPC_ANSWERED.values(), ids=GRPC_ANSWERED)
def test_grpc_requests_are_answered(client, request_, expected):
    assert outputs_over_grpc(client, request_) == expected


SAMPLES = {"bool": [True, False], "string": [b"a", b"\0"]}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_each_dtype_over_grpc(client, dtype):
    values = np.array(SAMPLES.get(dtype.name, [1, 0]), dtype.as_numpy_dtype)
    if dtype.is_floating:
        values = np.array([1.5, NAN, INF, -INF], dtype.as_numpy_dtype)
    elif dtype.is_complex:
        values = np.array([1 + 2j, complex(NAN, -INF)], dtype.as_numpy_dtype)
    elif dtype.is_integer:
        values = np.array([dtype.min, dtype.max], dtype.as_numpy_dtype)
    for given in (values, values[:1], values[0]):
        answer = client.predictions.Predict(asking("various", dtype.name, x=given), timeout=60)
        found = tf.make_ndarray(answer.outputs["y"])
        assert (found.dtype, found.shape) == (values.dtype, np.shape(given))
        if dtype == tf.bfloat16:  # NumPy does not know its NaN
            found, given = found.astype(np.float32), given.astype(np.float32)
        np.testing.assert_array_equal(found, np.array(given, found.dtype))


INVALID, PRECONDITION = Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION
GRPC_REFUSED: dict[str, tuple[Any, Any, str]] = {
    "an empty message": (predict_pb2.PredictRequest(), INVALID, "Missing ModelSpec"),
    "an empty name": (asking("", x=1.0), INVALID, "no name"),
    "an unknown model": (
        asking("nope", x=1.0), Code.NOT_FOUND, "Servable not found for request: Latest(nope)",
    ),
    "an unknown version": (
        versioned(asking(TWO, x=1.0), 9), Code.NOT_FOUND,
        "Servable not found for request: Specific(half_plus_two, 9)",
    ),
    "an unlabelled version that is not served": (
        versioned(asking(THREE, x=1.0), 0), Code.NOT_FOUND, "Servable not found",
    ),
    "an unknown label": (
        versioned(asking(THREE, x=1.0), "nope"), INVALID,
        "Unrecognized servable version label: nope",
    ),
    "a label of no version": (
        versioned(asking(THREE, x=1.0), "gone"), INVALID,
        "Unrecognized servable version label: gone",
    ),
    "a label of another model": (
        versioned(asking(TWO, x=1.0), "stable"), INVALID, "Unrecognized servable version label",
    ),
    "an unknown signature": (asking(TWO, "nope", x=1.0), PRECONDITION, '"nope" not found'),
    "no inputs": (asking(TWO), INVALID, "Missing but required: {x}"),
    "other inputs": (
        asking(TWO, a=1.0, b=1.0), INVALID, "Sent extra: {a, b}. Missing but required: {x}.",
    ),
    "an input more": (asking(TWO, x=1.0, b=1.0), INVALID, "Sent extra: {b}"),
    "another dtype": (
        asking(TWO, x=tensor(S, [1], string_val=[b"a"])), INVALID,
        "to be float but string is provided",
    ),
    "float64 for float32": (asking(TWO, x=np.float64(1)), INVALID, "to be float"),
    "int32 for float32": (asking(TWO, x=1), INVALID, "to be float but int32 is provided"),
    "no dtype": (asking(TWO, x=TensorProto()), INVALID, "to be float"),
    "an unknown output": (
        asking(TWO, filter=["z"], x=np.float32(1)), INVALID,
        "output tensor alias not found in signature: z",
    ),
    "an output twice": (
        asking(TWO, filter=["y", "y"], x=np.float32(1)), INVALID,
        "duplicate output tensor alias: y",
    ),
    "no shape": (
        asking(TWO, x=TensorProto(dtype=1, tensor_shape={"unknown_rank": True}, float_val=[1])),
        INVALID, "the shape is unknown",
    ),
    "a negative size": (asking(TWO, x=tensor(F, [-1], float_val=[1])), INVALID, "negative"),
    "content of another length": (
        asking(TWO, x=tensor(F, [2], tensor_content=b"\0" * 7)), INVALID, "as long as",
    ),
    "texts of another length": (
        asking("various", "string", x=tensor(S, [2], tensor_content=b"\2\1ab")), INVALID, "as long",
    ),
    "fewer texts": (
        asking("various", "string", x=tensor(S, [3], tensor_content=b"\1")), INVALID, "as long",
    ),
    "half of a complex number": (
        asking("various", "complex64", x=tensor(tf.complex64, [1], scomplex_val=[1])), INVALID,
        "1 values",
    ),
    "values in another field": (
        asking(TWO, x=tensor(F, [1], double_val=[1])), INVALID, "not in float_val",
    ),
    "what the graph refuses": (
        asking("various", "checked", x=np.float32(11)), INVALID, "see …",
    ),
    "a shape that the graph refuses": (
        asking("various", "product", x=np.float32(11)), INVALID, "cannot take this",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "code", "said"), GRPC_REFUSED.values(), ids=GRPC_REFUSED)
def test_grpc_requests_are_refused(client, request_, code, said):
    found, message = refused(client.predictions.Predict, request_)
    assert (found, said in message) == (code, True), (found, message)
    assert "/srv" not in message


def test_the_model_spec_of_an_answer(client):
    for request, version in (
        (asking(THREE, x=np.float32(2)), 3),
        (versioned(asking(THREE, x=np.float32(2)), "canary"), 2),
        (versioned(asking(THREE, x=np.float32(2)), 1), 1),
    ):
        spec = client.predictions.Predict(request, timeout=60).model_spec
        assert (spec.name, spec.signature_name) == (THREE, "serving_default")
        assert (spec.version.value, spec.version_label) == (version, "")


def test_the_metadata_of_a_model(client):
    def request(*fields: str, **spec: Any) -> Any:
        found = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        for key, value in spec.items():
            setattr(found.model_spec, key, value)
        return found

    method = client.predictions.GetModelMetadata
    for name, label, version in ((TWO, None, 123), (THREE, None, 3), (THREE, "stable", 1)):
        asked = request("signature_def", name=name)
        answer = method(asked if label is None else versioned(asked, label), timeout=60)
        assert (answer.model_spec.name, answer.model_spec.version.value) == (name, version)
        assert answer.model_spec.signature_name == ""
        assert list(answer.metadata) == ["signature_def"]
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert answer.metadata["signature_def"].Unpack(signatures)
        found = signatures.signature_def["serving_default"]
        assert [dim.size for dim in found.inputs["x"].tensor_shape.dim] == [-1, 1]
        assert found.outputs["y"].dtype == tf.float32.as_datatype_enum
    for asked, code in (
        (request("signature_def"), INVALID),
        (request("signature_def", name=""), INVALID),
        (request(name=TWO), INVALID),
        (request("graph", name=TWO), INVALID),
        (request("signature_def", name="nope"), Code.NOT_FOUND),
        (versioned(request("signature_def", name=TWO), 9), Code.NOT_FOUND),
        (versioned(request("signature_def", name=TWO), "nope"), INVALID),
    ):
        assert refused(method, asked)[0] == code


def test_the_status_of_a_model(client):
    def request(**spec: Any) -> Any:
        found = get_model_status_pb2.GetModelStatusRequest()
        for key, value in spec.items():
            setattr(found.model_spec, key, value)
        return found

    def versions(asked: Any) -> list[tuple[int, str, int, str]]:
        found = client.models.GetModelStatus(asked, timeout=60).model_version_status
        state = get_model_status_pb2.ModelVersionStatus.State
        return [
            (v.version, state.Name(v.state), v.status.error_code, v.status.error_message)
            for v in found
        ]

    served = [(number, "AVAILABLE", 0, "") for number in (3, 2, 1)]
    assert versions(request(name=THREE)) == served
    assert versions(versioned(request(name=THREE), 2)) == [served[1]]
    assert versions(versioned(request(name=THREE), "stable")) == [served[2]]
    for asked, code, said in (
        (request(), INVALID, "Missing ModelSpec"),
        (request(name=""), INVALID, "no name"),
        (request(name="nope"), Code.NOT_FOUND, "Could not find any versions of model nope"),
        (versioned(request(name=TWO), 9), Code.NOT_FOUND, "Could not find version 9 of model"),
        (versioned(request(name=TWO), "nope"), INVALID, "Unrecognized servable version label"),
    ):
        found, message = refused(client.models.GetModelStatus, asked)
        assert (found, said in message) == (code, True), message


def test_a_failing_version_shows_no_paths_of_the_server(client):
    folder = client.server.home / "exports" / "broken" / "1"
    with new_folder(folder) as work:
        (work / "saved_model.pb").write_bytes(b"broken")
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "broken"

    def status() -> Any:
        try:
            return client.models.GetModelStatus(request, timeout=60).model_version_status
        except grpc.RpcError:
            return []

    wait(lambda: any(version.status.error_code for version in status()))
    (version,) = status()
    assert version.status.error_message
    assert str(client.server.home) not in version.status.error_message
