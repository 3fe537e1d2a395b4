# SPDX-License-Identifier: MIT
# A stage for each service of docker-compose.yml. One stage compiles; of it an image gets no more than a program.
# No setting and no secret gets in: they come when a container is started.

FROM debian:bookworm-slim AS base
RUN groupadd --gid 10001 postern && \
    useradd --uid 10001 --gid postern --home-dir / --no-create-home --shell /usr/sbin/nologin postern
COPY containers/http-status /usr/local/bin/

FROM base AS build
WORKDIR /postern
COPY toolchains/install.sh toolchains/
RUN toolchains/install.sh build
COPY CMakeLists.txt CMakePresets.json ./
COPY doc/systemd doc/systemd
COPY port port
COPY src src
COPY processor processor
RUN cmake --preset release -DPOSTERN_TESTS=OFF && \
    cmake --build --preset release && \
    strip build/release/src/gateway/postern-gateway build/release/processor/postern-processor

FROM base AS gateway
RUN apt-get update && \
    apt-get install -y --no-install-recommends libwolfssl35 && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /postern/build/release/src/gateway/postern-gateway /usr/local/bin/
WORKDIR /websocket_server
RUN install -d -o postern -g postern logs spool
USER postern
CMD ["postern-gateway"]

FROM base AS processor
RUN apt-get update && \
    apt-get install -y --no-install-recommends libpq5 && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /postern/build/release/processor/postern-processor /usr/local/bin/
WORKDIR /message_processor
RUN install -d -o postern -g postern logs
USER postern
CMD ["postern-processor"]

# Both programs, for their --check. As root, because it makes the folders for the logs writable.
FROM processor AS prepare
USER root
RUN apt-get update && \
    apt-get install -y --no-install-recommends libwolfssl35 && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /postern/build/release/src/gateway/postern-gateway /usr/local/bin/
COPY containers/prepare /usr/local/bin/
WORKDIR /postern
CMD ["prepare"]

FROM base AS migrate
RUN apt-get update && \
    apt-get install -y --no-install-recommends alembic python3-psycopg2 && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /postern
COPY alembic.ini ./
COPY migrations migrations
ENV PYTHONDONTWRITEBYTECODE=1
USER postern
CMD ["alembic", "upgrade", "head"]

FROM base AS locust
RUN apt-get update && \
    apt-get install -y --no-install-recommends python3-locust python3-websocket && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /load
ENV PYTHONDONTWRITEBYTECODE=1
USER postern
CMD ["locust"]
