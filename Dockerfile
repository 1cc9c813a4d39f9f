# The service as an image: `docker run jobwire` serves, `docker run jobwire migrate`, `… publish …` and so on are the other commands.

FROM python:3.11-slim AS build
WORKDIR /src

# What changes seldom comes first, so that its layers stay cached.
COPY requirements/build.txt requirements/run.txt requirements/
RUN python -m venv /tools && \
    /tools/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.txt && \
    python -m venv /opt/jobwire && \
    /opt/jobwire/bin/pip install --no-cache-dir --require-hashes --requirement requirements/run.txt

COPY scripts/generate_stubs.py scripts/
COPY protos protos
COPY clients/python clients/python
COPY server server
RUN /tools/bin/python scripts/generate_stubs.py && \
    /tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /wheels ./clients/python ./server && \
    /opt/jobwire/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl && \
    /opt/jobwire/bin/pip check && \
    /opt/jobwire/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
LABEL org.opencontainers.image.title="Jobwire" \
      org.opencontainers.image.description="A job queue as a service: one gRPC server in front of one PostgreSQL" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY LICENSE /usr/share/doc/jobwire/LICENSE
COPY --from=build /opt/jobwire /opt/jobwire
ENV PATH=/opt/jobwire/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# A number, so that a platform can see that it is not root.
USER 10001:10001

# gRPC; health and metrics over HTTP.
EXPOSE 50051 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=2)"]

# SIGTERM begins a drain: allow it some time (`docker stop --time 60`).
STOPSIGNAL SIGTERM
ENTRYPOINT ["jobwire"]
CMD ["serve"]
