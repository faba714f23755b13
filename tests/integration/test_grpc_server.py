"""The gRPC API of a real server process, called by TensorFlow Serving's client."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.wrappers_pb2 import Int64Value

from pipelines.cli import main
from pipelines.serving import grpc_codec
from pipelines.serving.config import LimitsConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.json_codec import TensorSpec
from tests.support.servers import SETTINGS, Server, export, serving, wait

pytest.importorskip("tensorflow_serving")

import grpc
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.support.grpc_client import GrpcClient

Code = grpc.StatusCode


class Client(GrpcClient):
    def predict(self, request: Any, **options: Any) -> dict[str, Any]:
        outputs = self.predictions.Predict(request, timeout=60, **options).outputs
        return {name: tf.make_ndarray(tensor).tolist() for name, tensor in outputs.items()}

    def refused(self, request: Any, method: str = "predict", **options: Any) -> tuple[Any, str]:
        with pytest.raises(grpc.RpcError) as error:
            getattr(self, method)(request, **options)
        return error.value.code(), error.value.details()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    export(home / "exports" / "tiny" / "1", factor=0.1)
    with serving(home, *SETTINGS, "grpc_port=0") as server:
        client = Client(server)
        yield client
        client.channel.close()


def asking(inputs: Any = None, signature: str = "", **spec: Any) -> Any:
    """Return a request with tensors by name; by default a text for ``serving_default``."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = spec.pop("name", "tiny")
    request.model_spec.signature_name = signature
    for key, value in spec.items():
        if key == "version":
            request.model_spec.version.CopyFrom(Int64Value(value=value))
        else:
            setattr(request.model_spec, key, value)
    for name, value in ({"text": ["grün"]} if inputs is None else inputs).items():
        is_proto = isinstance(value, TensorProto)
        request.inputs[name].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
    return request


def tensor(dtype: Any, shape: Any, **values: Any) -> Any:
    """Return a TensorProto, which need not be valid."""
    dims = [{"size": size} for size in shape]
    return TensorProto(
        dtype=tf.as_dtype(dtype).as_datatype_enum, tensor_shape={"dim": dims}, **values
    )


def series(value: Any, width: Any = (1,)) -> Any:
    width = np.array(width, np.int32) if isinstance(width, tuple) else width
    value = np.array(value, np.float32) if isinstance(value, list) else value
    return asking({"series": value, "beam_width": width}, "series")


def test_predictions_equal_those_over_rest(client):
    rest = client.server.post({"inputs": ["grün", "ab"]}).json()["outputs"]
    found = client.predict(asking({"text": ["grün", "ab"]}))
    assert found.keys() == rest.keys()
    assert [text.decode() for text in found["loud"]] == rest["loud"] == ["GRÜN", "AB"]
    assert found["pair"] == rest["pair"]
    np.testing.assert_allclose(found["score"], rest["score"])
    answer = client.predict(series([[[1, 2.5], [3, 3.5]]], (2,)))
    np.testing.assert_allclose(answer["sum"], [2.0])
    about = client.predict(asking({}, "about"))
    assert about["names"] == [b"a", b"b"]
    assert np.isnan(about["nan"][0])
    assert client.predict(asking({"text": tensor(tf.string, [0])}))["pair"] == []


def test_the_last_value_is_repeated_for_omitted_ones(client):
    each = tensor(tf.float32, [1, 2, 2], float_val=[1, 2])
    width = tensor(tf.int32, [1], int_val=[1])
    np.testing.assert_allclose(client.predict(series(each, width))["sum"], [0.7])


def test_large_messages_both_ways(client):
    texts = ["a" * 1000] * 20
    assert client.predict(asking({"text": texts}))["loud"] == [b"A" * 1000] * 20
    many = np.ones([20, 50, 2], np.float32)
    assert len(client.predict(series(many, (1,) * 20))["sum"]) == 20


def test_a_request_can_name_a_version_and_the_response_names_it(client):
    answer = client.predictions.Predict(asking(version=1), timeout=60)
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("tiny", 1, "serving_default")
    assert client.predictions.Predict(asking(), timeout=60) == answer


def test_output_filter(client):
    request = asking()
    request.output_filter.extend(["score", "loud"])
    assert client.predict(request).keys() == {"score", "loud"}
    request.output_filter.append("nope")
    assert client.refused(request)[0] == Code.INVALID_ARGUMENT
    request.output_filter[2] = "loud"
    assert client.refused(request)[0] == Code.INVALID_ARGUMENT


def test_metadata(client):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    answer = client.predictions.GetModelMetadata(request, timeout=60)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("tiny", 1)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    found = signatures.signature_def["series"]
    assert found.method_name == "tensorflow/serving/predict"
    shape = found.inputs["series"].tensor_shape
    assert [dim.size for dim in shape.dim] == [-1, -1, 2]
    assert found.inputs["series"].dtype == tf.float32.as_datatype_enum
    for field in ([], ["graph"], ["signature_def", "graph"]):
        del request.metadata_field[:]
        request.metadata_field.extend(field)
        with pytest.raises(grpc.RpcError) as error:
            client.predictions.GetModelMetadata(request, timeout=60)
        assert error.value.code() == Code.INVALID_ARGUMENT


def test_status(client):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    (found,) = client.models.GetModelStatus(request, timeout=60).model_version_status
    assert (found.version, found.state, found.status.error_code) == (1, found.AVAILABLE, 0)
    request.model_spec.version.value = 1
    assert len(client.models.GetModelStatus(request, timeout=60).model_version_status) == 1
    request.model_spec.version.value = 2
    for name in ("tiny", "other"):
        request.model_spec.name = name
        with pytest.raises(grpc.RpcError) as error:
            client.models.GetModelStatus(request, timeout=60)
        assert error.value.code() == Code.NOT_FOUND


def test_other_methods_are_unimplemented(client):
    with pytest.raises(grpc.RpcError) as error:
        client.channel.unary_unary("/tensorflow.serving.PredictionService/Classify")(b"")
    assert error.value.code() == Code.UNIMPLEMENTED


FLOATS = [1.0, 2.0]
ONE = tensor(tf.int32, [1], int_val=[1])
HOSTILE = {
    "no model": (asking(name=""), Code.INVALID_ARGUMENT, "no name"),
    "another model": (asking(name="other"), Code.NOT_FOUND, "not found"),
    "a path": (asking(name="../../etc"), Code.NOT_FOUND, "not found"),
    "a long name": (asking(name="n" * 100_000), Code.NOT_FOUND, "not found"),
    "another version": (asking(version=9), Code.NOT_FOUND, "not found"),
    "version 0": (asking(version=0), Code.NOT_FOUND, "not found"),
    "a negative version": (asking(version=-(2**63)), Code.NOT_FOUND, "not found"),
    "a label": (asking(version_label="stable"), Code.INVALID_ARGUMENT, "label: stable"),
    "no signature": (asking(signature="nope"), Code.FAILED_PRECONDITION, "not found"),
    "a private one": (asking({}, "__saved_model_init_op"), Code.FAILED_PRECONDITION, "not found"),
    "no inputs": (asking({}), Code.INVALID_ARGUMENT, "{text}"),
    "another input": (asking({"txt": ["a"]}), Code.INVALID_ARGUMENT, "{text}"),
    "one input more": (asking({"text": ["a"], "b": 1}), Code.INVALID_ARGUMENT, "{text}"),
    "an empty tensor": (
        asking({"text": TensorProto()}), Code.INVALID_ARGUMENT, "an unknown dtype is provided",
    ),
    "numbers for texts": (
        asking({"text": FLOATS}), Code.INVALID_ARGUMENT, "string but float is provided",
    ),
    "float64": (
        series(tensor(tf.float64, [1, 1, 2], double_val=FLOATS)), Code.INVALID_ARGUMENT,
        "float but double is provided",
    ),
    "a resource": (
        asking({"text": TensorProto(dtype=tf.resource.as_datatype_enum)}),
        Code.INVALID_ARGUMENT, "string but resource is provided",
    ),
    "an unknown dtype": (
        asking({"text": TensorProto(dtype=99)}), Code.INVALID_ARGUMENT, "an unknown dtype",
    ),
    "too flat": (series([1.0]), Code.INVALID_ARGUMENT, "cannot take this"),
    "too deep": (
        series(tensor(tf.float32, [1] * 10_000, float_val=FLOATS)),
        Code.INVALID_ARGUMENT, "not 10000",
    ),
    "no shape known": (
        asking({"text": TensorProto(dtype=7, tensor_shape={"unknown_rank": True})}),
        Code.INVALID_ARGUMENT, "unknown",
    ),
    "a negative size": (
        series(tensor(tf.float32, [1, -1, 2], float_val=FLOATS)), Code.INVALID_ARGUMENT, "negative",
    ),
    "two negative sizes": (
        series(tensor(tf.float32, [-1, -1, 2], float_val=FLOATS)),
        Code.INVALID_ARGUMENT, "negative",
    ),
    "sizes that overflow": (
        series(tensor(tf.float32, [2**62, 2**62, 2], float_val=FLOATS)),
        Code.INVALID_ARGUMENT, "limits.rows",
    ),
    "a short content": (
        series(tensor(tf.float32, [1, 2, 2], tensor_content=b"\0" * 8)),
        Code.INVALID_ARGUMENT, "as long as",
    ),
    "a long content": (
        series(tensor(tf.float32, [1, 0, 2], tensor_content=b"\0" * 8)),
        Code.INVALID_ARGUMENT, "as long as",
    ),
    "an odd content": (
        series(tensor(tf.float32, [1, 1, 2], tensor_content=b"\0" * 7)),
        Code.INVALID_ARGUMENT, "as long as",
    ),
    "texts as content that ends early": (
        asking({"text": tensor(tf.string, [1], tensor_content=b"\2a")}),
        Code.INVALID_ARGUMENT, "as long as",
    ),
    "values elsewhere": (
        series(tensor(tf.float32, [1, 1, 2], double_val=FLOATS)), Code.INVALID_ARGUMENT,
        "not in float_val",
    ),
    "too many values": (
        series(tensor(tf.float32, [1, 1, 2], float_val=[1, 2, 3])),
        Code.INVALID_ARGUMENT, "3 values",
    ),
    "too many rows": (asking({"text": ["a"] * 21}), Code.INVALID_ARGUMENT, "limits.rows"),
    "a long text": (asking({"text": ["a" * 1001]}), Code.INVALID_ARGUMENT, "limits.text_bytes"),
    "many steps": (series([[[1, 2]] * 51]), Code.INVALID_ARGUMENT, "limits.steps"),
    "a wide beam": (series([[[1, 2]]], (5,)), Code.INVALID_ARGUMENT, "limits.most.beam_width"),
    "what the model refuses": (
        asking({"x": [11.0]}, "checked"), Code.INVALID_ARGUMENT, "cannot take this",
    ),
    "a long message": (asking({"text": ["a" * 300_000]}), Code.RESOURCE_EXHAUSTED, "larger"),
    "an endless answer": (
        asking({"steps": [2**31 - 1]}, "slow"), Code.DEADLINE_EXCEEDED, "limits.answer_seconds",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "code", "details"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_requests_are_rejected(client, request_, code, details):
    found, message = client.refused(request_)
    assert (found, details in message) == (code, True), (found, message)
    assert len(message) <= 500
    assert client.predict(asking())["loud"] == ["GRÜN".encode()]


@pytest.mark.parametrize("raw", [b"\xff" * 10, b"\x0a\xff", b"\x12\x80\x80\x80\x80\x08"])
def test_invalid_messages_are_rejected(client, raw):
    with pytest.raises(grpc.RpcError) as error:
        client.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(raw)
    assert error.value.code() == Code.INVALID_ARGUMENT
    assert client.predict(asking())


@pytest.mark.parametrize(
    ("dtype", "values", "found"),
    [
        ("float16", {"half_val": [0x3C00, 0xC000]}, [1.0, -2.0]),
        ("float64", {"double_val": [1, 2]}, [1.0, 2.0]),
        ("int8", {"int_val": [-128, 127]}, [-128, 127]),
        ("int8", {"int_val": [-129, 0]}, "cannot hold"),
        ("uint16", {"int_val": [-1, 0]}, "cannot hold"),
        ("float16", {"half_val": [65536, 0]}, "cannot hold"),
        ("float16", {"half_val": [0x7C00, 0]}, [np.inf, 0.0]),
        ("float32", {}, [0.0, 0.0]),
        ("int64", {"int64_val": [-(2**63), 2**63 - 1]}, [-(2**63), 2**63 - 1]),
        ("uint32", {"uint32_val": [2**32 - 1]}, [2**32 - 1] * 2),
        ("uint64", {"tensor_content": b"\xff" * 16}, [2**64 - 1] * 2),
        ("bool", {"bool_val": [True, False]}, [True, False]),
        ("bool", {"tensor_content": b"\1\0"}, [True, False]),
        ("bool", {"tensor_content": b"\1\2"}, "neither"),
        ("object", {"string_val": [b"\xff\0"]}, [b"\xff\0"] * 2),
        ("object", {}, [b"", b""]),
        ("object", {"tensor_content": b"\2\1ab\0"}, [b"ab", b"\0"]),
        ("complex64", {"scomplex_val": [1, 2, 3, 4]}, [1 + 2j, 3 + 4j]),
        ("complex64", {"scomplex_val": [1, 2, 3]}, "3 values"),
        ("complex128", {"dcomplex_val": [1, 2]}, [1 + 2j] * 2),
        (tf.qint8.as_numpy_dtype, {}, "cannot be sent"),
    ],
)
def test_every_dtype(dtype, values, found):
    spec = TensorSpec(np.dtype(dtype), (None,))
    given = {"x": tensor(tf.as_dtype(np.dtype(dtype)), [2], **values)}
    if isinstance(found, str):
        with pytest.raises(RequestError, match=found):
            grpc_codec.decode_inputs(given, {"x": spec}, LimitsConfig())
    else:
        array = grpc_codec.decode_inputs(given, {"x": spec}, LimitsConfig())["x"]
        assert (array.tolist(), array.dtype) == (found, spec.dtype)
        again = {"x": grpc_codec.encode_tensor(array)}
        assert grpc_codec.decode_inputs(again, {"x": spec}, LimitsConfig())["x"].tolist() == found


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([1] * 33, "at most 32 dimensions"),
        ([0, *[10_000] * 20], "too large together"),
        ([256, 10_000, 10_000], "limits.body_bytes"),
        ([257], "limits.rows"),
    ],
)
def test_limits_of_a_shape_that_a_signature_does_not_specify(shape, said):
    given = {"x": tensor(tf.float32, shape, float_val=[1.0] if 0 not in shape else [])}
    with pytest.raises(RequestError, match=said):
        grpc_codec.decode_inputs(
            given, {"x": TensorSpec(np.dtype("float32"), None)}, LimitsConfig()
        )


@pytest.mark.parametrize("end", [b"", b"\xff" * 10])
def test_many_empty_inputs_are_rejected_before_parsing(client, end):
    method = client.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with pytest.raises(grpc.RpcError) as error:
        method(b"\x12\x00" * 50_000 + end)
    assert error.value.code() == Code.INVALID_ARGUMENT
    assert "too many parts" in error.value.details()


def field(number: int, content: bytes) -> bytes:
    """Encode a field with a length prefix."""
    size, digits = len(content), []
    while True:
        digits.append(size & 127 | (128 if size > 127 else 0))
        size >>= 7
        if not size:
            return bytes([number << 3 | 2, *digits]) + content


@pytest.mark.parametrize(
    ("inner", "is_crowded"),
    [
        (field(15, field(3, b"") * 50_000), True),  # variants, which hold tensors
        (field(14, b""), True),  # resources
        (field(2, field(2, b"") * 100_000), True),  # sizes of a shape
        (field(8, b"a") * 100_000, True),  # texts
        (field(8, b"a") * 90_000, False),
        (field(5, b"\0\0\0\0" * 100_000), False),  # numbers, packed
    ],
)
def test_fields_of_inputs_are_counted(inner, is_crowded):
    tensor_ = bytes([1 << 3, 7]) + field(2, field(2, b"\x08\x01")) + field(8, b"a") + inner
    raw = field(2, field(1, b"text") + field(2, tensor_))
    predict_pb2.PredictRequest.FromString(raw)  # it would be parsed
    assert grpc_codec.has_too_many_fields(raw) == is_crowded
    # A malformed input before it hides nothing.
    assert grpc_codec.has_too_many_fields(field(2, b"a") + raw) == is_crowded


@pytest.mark.parametrize("kind", range(8))
def test_fields_of_all_wire_types_are_counted(kind):
    part = {0: b"\xff\x01", 1: b"8 bytes.", 2: b"\x01a", 5: b"four"}.get(kind, b"")
    raw = bytes([2 << 3 | kind]) + part
    assert not grpc_codec.has_too_many_fields(raw * 1000)
    assert grpc_codec.has_too_many_fields(raw * 1001) == (kind not in (6, 7))  # not wire types
    assert not grpc_codec.has_too_many_fields(
        asking({"text": ["a" * 1000] * 2000}).SerializeToString()
    )


def test_outputs_are_in_the_fields_that_tensorflow_serving_uses(client):
    outputs = client.predictions.Predict(asking({"text": ["grün", "ab"]}), timeout=60).outputs
    assert list(outputs["pair"].int_val) == [4, -4, 2, -2]
    np.testing.assert_allclose(outputs["score"].float_val, [0.4, 0.2])
    assert list(outputs["loud"].string_val) == ["GRÜN".encode(), b"AB"]


def test_compressed_messages_are_limited_by_what_they_become(client):
    packed = {"compression": grpc.Compression.Gzip}
    texts = asking({"text": ["a" * 1000] * 20})
    assert client.predict(texts, **packed)["loud"] == [b"A" * 1000] * 20
    before = memory(client.server)
    code, _ = client.refused(asking({"text": ["a" * 50_000_000]}), **packed)
    assert code == Code.RESOURCE_EXHAUSTED
    assert memory(client.server) < before + 25_000_000
    assert client.predict(asking())


def memory(server: Server) -> float:
    """Return the bytes of memory of a server's process."""
    lines = dict(line.rsplit(" ", 1) for line in server.get("/metrics").text.splitlines())
    return float(lines["process_resident_memory_bytes"])


def test_slow_and_missing_messages(client):
    refused = threading.Event()

    def never() -> Iterator[bytes]:
        refused.wait(10)
        yield b""

    method = "/tensorflow.serving.PredictionService/Predict"
    call = client.channel.stream_unary(method).future(never())
    assert call.code() == Code.DEADLINE_EXCEEDED
    assert "limits.receive_seconds" in call.details()
    refused.set()
    call = client.channel.stream_unary(method).future(iter([]))
    assert call.code() == Code.RESOURCE_EXHAUSTED
    host, port = client.address.split(":")
    with socket.create_connection((host, int(port))) as connection:  # HTTP/1 does no harm
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert client.predict(asking())


def test_the_limit_of_concurrent_requests(client):
    forever = asking({"steps": [2**31 - 1]}, "slow")
    with ThreadPoolExecutor(15) as clients:
        answers = list(clients.map(client.refused, [forever] * 15))
    codes = [code for code, _ in answers]
    assert codes.count(Code.DEADLINE_EXCEEDED) == 12  # limits.concurrent
    assert codes.count(Code.RESOURCE_EXHAUSTED) == 3
    assert any("limits.concurrent" in details for _, details in answers)


def test_too_many_connections(client):
    assert client.predict(asking())  # it has its connection before there are too many
    host, port = client.address.split(":")

    def another() -> grpc.StatusCode:
        own = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(client.address, own) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            try:
                stub.Predict(asking(), timeout=60)
            except grpc.RpcError as error:
                return error.code()
            return Code.OK

    with contextlib.ExitStack() as held:
        for _ in range(60):
            held.enter_context(socket.create_connection((host, int(port))))
        wait(lambda: another() == Code.UNAVAILABLE)
        assert client.predict(asking())
    wait(lambda: another() == Code.OK)


def test_the_deadline_of_a_client_cancels_the_prediction(client):
    forever = asking({"steps": [2**31 - 1]}, "slow")
    with pytest.raises(grpc.RpcError) as error:
        client.predictions.Predict(forever, timeout=0.3)
    assert error.value.code() == Code.DEADLINE_EXCEEDED
    assert client.predict(asking({"steps": [3]}, "slow"))["last"] == [3]
    idle = "unfold_requests_in_progress 0.0"
    wait(lambda: idle in client.server.get("/metrics").text)


def test_metrics_count_requests_and_the_log_has_no_texts(client):
    def counted() -> float:
        lines = client.server.get("/metrics").text.splitlines()
        name = 'unfold_requests_total{model="tiny",status="200"}'
        return sum(float(line.split()[1]) for line in lines if line.startswith(name))

    before = counted()
    client.predict(asking({"text": ["a secret"]}))
    client.refused(asking({"secret": ["a secret"]}))
    client.refused(asking({"text": ["secret" * 1000]}))
    client.refused(asking({"text": ["secret" * 100_000]}))
    assert counted() == before + 1
    assert [e["status"] for e in client.server.events("request")[-3:]] == [400, 400, 413]
    assert "secret" not in (client.server.home / "log").read_text()


def test_shutdown_waits_for_requests_in_flight(tmp_path):
    export(tmp_path / "exports" / "tiny" / "1")
    patient = "limits.answer_seconds=60"
    with serving(tmp_path, *SETTINGS, patient, "grpc_port=0") as server:
        client = Client(server)
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(client.predict, asking({"steps": [100_000]}, "slow"))
            busy = "unfold_requests_in_progress 1.0"
            wait(lambda: busy in server.get("/metrics").text)
            server.process.terminate()
            assert long.result()["last"] == [100_000]
        client.channel.close()


def test_shutdown_rejects_new_calls_while_http_requests_finish(tmp_path):
    export(tmp_path / "exports" / "tiny" / "1")
    patient = "limits.answer_seconds=60"
    with serving(tmp_path, *SETTINGS, patient, "grpc_port=0") as server:
        client = Client(server)
        assert client.predict(asking({"text": ["a"]}))
        with ThreadPoolExecutor(1) as pool:
            body = {"signature_name": "slow", "instances": [1_000_000]}
            long = pool.submit(server.post, body)
            busy = "unfold_requests_in_progress 1.0"
            wait(lambda: busy in server.get("/metrics").text)
            server.process.terminate()

            def refused() -> bool:
                try:
                    client.predict(asking({"text": ["a"]}))
                except grpc.RpcError as error:
                    return error.code() == Code.UNAVAILABLE
                return False

            wait(refused)
            assert not long.done()
            assert long.result().json() == {"predictions": [1_000_000]}
        client.channel.close()


def test_startup_errors_name_the_cause(client, monkeypatch, capfd):
    def told(*arguments: str) -> str:
        monkeypatch.setenv("UNFOLD_HOME", str(client.server.home))
        with pytest.raises(SystemExit) as end:
            main.main(["serve", "--port", "0", *arguments])
        assert end.value.code == 2
        return capfd.readouterr().err

    port = client.address.rsplit(":", 1)[1]
    assert f"cannot listen on 127.0.0.1:{port}" in told("--grpc-port", port)
    assert "grpc_port: must be at most 65535" in told("--grpc-port", "70000")
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    assert "tensorflow-serving-api" in told("--grpc-port", "0")
