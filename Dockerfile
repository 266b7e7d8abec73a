# One image for each kind of process:
#   docker build --target intent-cpu|intent-gpu|agent|handlers -t sluice/TARGET:VERSION .
# Every RUN is a step of images/build.sh, which tests run too. The base is pinned by its version; with
# --build-arg PYTHON=python@sha256:… by its digest. All but intent-gpu build for linux/amd64 and linux/arm64.
# checkov:skip=CKV_DOCKER_7: the tag is that of the argument
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS tools
WORKDIR /src
COPY images/build.sh images/build.lock images/
RUN ["images/build.sh", "tools"]

FROM tools AS build-intent-cpu
COPY images/intent-cpu.lock images/
RUN ["images/build.sh", "dependencies", "intent-cpu", "/opt/sluice"]
COPY . .
RUN ["images/build.sh", "project", "intent-cpu", "/opt/sluice"]

FROM tools AS build-intent-gpu
COPY images/intent-gpu.lock images/
RUN ["images/build.sh", "dependencies", "intent-gpu", "/opt/sluice"]
COPY . .
RUN ["images/build.sh", "project", "intent-gpu", "/opt/sluice"]

FROM tools AS build-agent
COPY images/agent.lock images/
RUN ["images/build.sh", "dependencies", "agent", "/opt/sluice"]
COPY . .
RUN ["images/build.sh", "project", "agent", "/opt/sluice"]

FROM tools AS build-handlers
COPY images/handlers.lock images/
RUN ["images/build.sh", "dependencies", "handlers", "/opt/sluice"]
COPY . .
RUN ["images/build.sh", "project", "handlers", "/opt/sluice"]

# The root file system may be read-only: all that is written lies in /tmp.
FROM ${PYTHON} AS runtime
ENV PATH=/opt/sluice/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Where pipeline.yaml is mounted.
WORKDIR /etc/sluice
USER 65532:65532

FROM runtime AS worker
ENV SLUICE_LEASES__ALIVE_FILE=/tmp/alive
ENTRYPOINT ["sluice"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=4 CMD ["alive"]

FROM worker AS intent-cpu
COPY --from=build-intent-cpu /opt/sluice /opt/sluice

FROM worker AS intent-gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-intent-gpu /opt/sluice /opt/sluice

FROM worker AS agent
COPY --from=build-agent /opt/sluice /opt/sluice

# For Lambda, whose runtime asks for work and is not watched; jobs on Kubernetes name their own command.
FROM runtime AS handlers
COPY --from=build-handlers /opt/sluice /opt/sluice
COPY pipeline.yaml ./
ENTRYPOINT ["python", "-m", "awslambdaric"]
CMD ["handlers.aws.sqs.handler"]
HEALTHCHECK NONE
