"""A gRPC client of a server process, with TensorFlow Serving's stubs."""

from __future__ import annotations

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tests.support.servers import Server


class GrpcClient:
    """The stubs of both services."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = server.events("listening to gRPC")[0]["address"]
        self.channel = grpc.insecure_channel(self.address)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
