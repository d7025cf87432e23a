# The control plane. From the root of the project:
#   docker build -f deploy/docker/kuma-cp.Dockerfile -t REGISTRY/kuma-cp:VERSION .
# Give BASE by its digest (python@sha256:...) for an image that can be made again bit by bit.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 SOURCE_DATE_EPOCH=0
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/kuma && /opt/kuma/bin/pip install --constraint constraints.txt .

FROM ${BASE}
COPY --from=build /opt/kuma /opt/kuma
# Volumes begin with the owner of what they are mounted over.
RUN install -d -o 5678 -g 5678 -m 0700 /var/lib/kuma
ENV PATH=/opt/kuma/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 5678:5678
ENTRYPOINT ["kuma-cp"]
CMD ["run"]
