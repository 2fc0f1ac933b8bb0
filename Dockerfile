# The command in a container, for one user without rights. Versions are those of constraints.txt.
#   CPU:   docker build --tag tumorbatch:cpu .
#   CUDA:  docker build --tag tumorbatch:cuda --build-arg EXTRAS=cuda .
# CUDA's libraries come as Python packages; the driver is the host's (docker run --gpus all).
FROM debian:bookworm-slim AS build
ARG EXTRAS=""
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python3 -m venv /opt/tumorbatch \
    && /opt/tumorbatch/bin/python -m pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}"

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home tumorbatch
COPY --from=build /opt/tumorbatch /opt/tumorbatch
# The user of a cluster's pod may have another number, and no home.
ENV PATH=/opt/tumorbatch/bin:$PATH PYTHONDONTWRITEBYTECODE=1 KERAS_HOME=/tmp/keras MPLCONFIGDIR=/tmp/matplotlib
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["tumorbatch"]
CMD ["--help"]
