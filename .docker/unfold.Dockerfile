# `unfold serve` with an export in it: `make image NAME=tickets` stages the folder that this builds.
# Pin the base by its digest: --build-arg BASE_DIGEST=sha256:…
ARG BASE_TAG=3.12-slim
ARG BASE_DIGEST=
FROM python:${BASE_TAG}${BASE_DIGEST:+@${BASE_DIGEST}}

WORKDIR /srv/unfold
ENV PYTHONPATH=/srv/unfold \
    PYTHONDONTWRITEBYTECODE=1 \
    UNFOLD_HOME=/srv/unfold \
    HOME=/tmp

# First what changes rarely, so that a new export rebuilds only the last layer.
COPY requirements requirements
RUN pip install --no-cache-dir --requirement requirements/server.txt --constraint requirements/cpu.txt \
    && pip install --no-cache-dir --no-deps --requirement requirements/grpc.txt
COPY configs configs
COPY pipelines pipelines
RUN python -m compileall -q pipelines
COPY exports exports

USER 65532:65532
EXPOSE 8501 8500
# Exits with 1 if a model has no version that is served.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8501/readyz', timeout=4)"]
# Further options of `unfold serve` may follow: docker run IMAGE --set limits.rows=8
ENTRYPOINT ["python", "-m", "pipelines.cli", "serve", "--host", "0.0.0.0", "--grpc-port", "8500"]
