# opsbot in a container. The configuration is mounted, secrets come by environment or *_FILE, nothing of either is baked in:
#   docker run -v ./opsbot.yaml:/etc/opsbot/opsbot.yaml:ro --env-file opsbot.env opsbot
FROM python:3.13-slim-bookworm

# openssh-client: streams of backups go through the system's ssh.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/opsbot opsbot

WORKDIR /opt/opsbot
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements.lock

COPY pyproject.toml LICENSE README.md ./
COPY bot ./bot
COPY handlers ./handlers
COPY config ./config
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

USER 10001
WORKDIR /var/lib/opsbot
VOLUME /var/lib/opsbot

HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 \
    CMD ["opsbot", "--config", "/etc/opsbot/opsbot.yaml", "runs"]

ENTRYPOINT ["opsbot"]
CMD ["serve", "--config", "/etc/opsbot/opsbot.yaml"]
