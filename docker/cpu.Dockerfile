# unrain on a CPU: docker build -f docker/cpu.Dockerfile -t unrain . && docker run --rm -v "$PWD:/data" unrain run in.jpg -o out.png
FROM debian:12.9-slim AS build
# g++ takes the compiler of the release that the image names; its exact build is Debian's.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt ./
RUN python3 -m venv /opt/unrain \
    && /opt/unrain/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch==2.13.0" \
    && /opt/unrain/bin/pip install --no-cache-dir -c constraints.txt numpy safetensors pillow typer rich av
COPY . .
RUN UNRAIN_CUDA_ARCHS="" /opt/unrain/bin/pip install --no-cache-dir --no-deps .

FROM debian:12.9-slim
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
