# The init container of a Pod with a sidecar: kumactl, and what it sets up the kernel with. From the root of the project:
#   docker build -f deploy/docker/kuma-init.Dockerfile -t REGISTRY/kuma-init:VERSION .
# Give BASE by its digest (python@sha256:...) for an image that can be made again bit by bit. It runs as root, with the
# capability NET_ADMIN and no other.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 SOURCE_DATE_EPOCH=0
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/kuma && /opt/kuma/bin/pip install --constraint constraints.txt .

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends iproute2 nftables && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/kuma /opt/kuma
ENV PATH=/opt/kuma/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["kumactl", "install", "transparent-proxy"]
