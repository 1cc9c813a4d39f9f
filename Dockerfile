# Two images. The service, which is the default: `docker build -t jobwire .`; then `docker run jobwire` serves, and
# `docker run jobwire migrate`, `… publish …` and so on are the other commands.
# The reference workers: `docker build --target worker -t jobwire-worker .`

FROM python:3.11-slim AS build
WORKDIR /src

# What changes seldom comes first, so that its layers stay cached.
COPY requirements/build.txt requirements/
RUN python -m venv /tools && \
    /tools/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.txt

COPY scripts/generate_stubs.py scripts/
COPY protos protos
COPY clients/python clients/python
COPY server server
COPY workers workers
RUN /tools/bin/python scripts/generate_stubs.py && \
    /tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /wheels ./clients/python ./server ./workers

FROM python:3.11-slim AS install-server
WORKDIR /src
COPY requirements/run.txt requirements/
RUN python -m venv /opt/jobwire && \
    /opt/jobwire/bin/pip install --no-cache-dir --require-hashes --requirement requirements/run.txt
COPY --from=build /wheels/jobwire-*.whl /wheels/jobwire_server-*.whl /wheels/
RUN /opt/jobwire/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl && \
    /opt/jobwire/bin/pip check && \
    /opt/jobwire/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim AS install-worker
WORKDIR /src
COPY requirements/work.txt requirements/
RUN python -m venv /opt/jobwire && \
    /opt/jobwire/bin/pip install --no-cache-dir --require-hashes --requirement requirements/work.txt
COPY --from=build /wheels/jobwire-*.whl /wheels/jobwire_workers-*.whl /wheels/
RUN /opt/jobwire/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl && \
    /opt/jobwire/bin/pip check && \
    /opt/jobwire/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim AS base
LABEL org.opencontainers.image.title="Jobwire" \
      org.opencontainers.image.description="A job queue as a service: one gRPC server in front of one PostgreSQL" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE /usr/share/doc/jobwire/LICENSE
ENV PATH=/opt/jobwire/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# SIGTERM begins an orderly stop, of which docs/deploy.md says how long it may take.
STOPSIGNAL SIGTERM

FROM base AS worker
LABEL org.opencontainers.image.title="Jobwire workers" \
      org.opencontainers.image.description="The reference workers of Jobwire"
COPY --from=install-worker /opt/jobwire /opt/jobwire
# For a volume with the files, if they are in no bucket.
RUN install --directory --owner=10001 --group=10001 /data
USER 10001:10001
ENTRYPOINT ["python", "-m", "jobwire_workers.excel_parse"]

FROM base AS server
COPY --from=install-server /opt/jobwire /opt/jobwire

# A number, so that a platform can see that it is not root.
USER 10001:10001

# In a container the world is outside: gRPC; health and metrics over HTTP.
ENV JOBWIRE_LISTEN=0.0.0.0:50051 \
    JOBWIRE_HTTP_LISTEN=0.0.0.0:8080
EXPOSE 50051 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=2)"]

# No shell in between: the signals reach the server.
ENTRYPOINT ["jobwire"]
CMD ["serve"]
