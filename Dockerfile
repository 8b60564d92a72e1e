# The runtime image, CPU, for `serve`; no torch in it:
#   docker build -t smp-pipeline .
#   docker run --rm -p 8080:8080 -p 8081:8081 -v "$PWD/models:/models:ro" smp-pipeline \
#       serve /models --host 0.0.0.0
# It asks the server on port 8080 whether it is ready; with another --port or TLS, give your own
# --health-cmd or --no-healthcheck.
#
# The same for `bench` and `check`, which read labelled texts:
#   docker build -t smp-pipeline:bench --build-arg VARIANT=bench .
#   docker run --rm -v "$PWD:/work" smp-pipeline:bench bench ...
#
# The training image, for NVIDIA GPUs (needs the NVIDIA container toolkit on the host):
#   docker build -t smp-pipeline:train --build-arg VARIANT=train .
#   docker run --rm --gpus all -v "$PWD:/work" smp-pipeline:train train ...

ARG PYTHON_VERSION=3.12
ARG VARIANT=runtime

FROM python:${PYTHON_VERSION}-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/smp-pipeline
ENV PATH=/opt/smp-pipeline/bin:$PATH
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY requirements/lock.txt requirements/lock.txt
COPY pipeline pipeline
COPY smp smp
COPY export export
COPY serve serve

# The lock file as constraints: its versions, but only of what the extras ask for. The compiler
# stays behind; `info --native` fails where it did not leave the native library.
FROM base AS install-runtime
RUN pip install --constraint requirements/lock.txt ".[cpu,serve]" && smp-pipeline info --native

FROM base AS install-bench
RUN pip install --constraint requirements/lock.txt ".[cpu,bench]" && smp-pipeline info --native

# torch's own wheels bring CUDA; the host brings the driver.
FROM base AS install-train
RUN pip install --constraint requirements/lock.txt ".[train,gpu]" && smp-pipeline info --native

FROM python:${PYTHON_VERSION}-slim AS user
RUN useradd --create-home --uid 10001 smp
ENV PATH=/opt/smp-pipeline/bin:$PATH HF_HUB_DISABLE_TELEMETRY=1
USER smp
WORKDIR /work
ENTRYPOINT ["smp-pipeline"]
CMD ["--help"]

FROM user AS runtime
COPY --from=install-runtime /opt/smp-pipeline /opt/smp-pipeline
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8080, timeout=2); c.request('GET', '/v2/health/ready'); exit(c.getresponse().status != 200)"]

FROM user AS bench
COPY --from=install-bench /opt/smp-pipeline /opt/smp-pipeline

FROM user AS train
COPY --from=install-train /opt/smp-pipeline /opt/smp-pipeline

FROM ${VARIANT}
