"""A server for exported models, compatible with TensorFlow Serving's REST and gRPC APIs."""
