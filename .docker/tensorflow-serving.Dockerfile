# TensorFlow Serving with an export in it: `make image NAME=tickets KIND=tensorflow-serving` stages
# the folder that this builds. Pin the base by its digest: --build-arg BASE_DIGEST=sha256:…
ARG BASE_TAG=2.20.0
ARG BASE_DIGEST=
FROM tensorflow/serving:${BASE_TAG}${BASE_DIGEST:+@${BASE_DIGEST}}

COPY models /models

USER 65532:65532
EXPOSE 8501 8500
# It listens once the models are loaded. The image has no HTTP client, but bash.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8501"]
# Not the image's own entry point, a shell script that does not pass signals on.
ENTRYPOINT ["tensorflow_model_server", "--port=8500", "--rest_api_port=8501", "--model_config_file=/models/models.config"]
