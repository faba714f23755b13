"""Exported models over HTTP, as TensorFlow Serving answers."""
