# unrain on an NVIDIA GPU: docker build -f docker/cuda.Dockerfile -t unrain-cuda . && docker run --rm --gpus all unrain-cuda info
# The CUDA kernels are compiled in the first stage; the second has no toolkit, torch brings the libraries it runs on.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt ./
RUN python3 -m venv /opt/unrain \
    && /opt/unrain/bin/pip install --no-cache-dir -c constraints.txt torch numpy safetensors pillow typer rich av
COPY . .
RUN /opt/unrain/bin/pip install --no-cache-dir --no-deps .

FROM ubuntu:24.04
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home unrain
COPY --from=build /opt/unrain /opt/unrain
USER 10001
WORKDIR /data
ENTRYPOINT ["/opt/unrain/bin/unrain"]
CMD ["--help"]
