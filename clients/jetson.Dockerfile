# A Jetson with JetPack 6 as a device that trains on its GPU: docs/jetson.md. It was linted, and neither built nor run on
# hardware.
# BASE is an image for JetPack 6 that has Python 3.11 or newer, and PyTorch 2.10 or newer for the Jetson's GPU.
ARG BASE
# hadolint ignore=DL3006
FROM ${BASE}

RUN useradd --system --uid 10001 --groups video --home-dir /var/lib/wash-fl-node --shell /usr/sbin/nologin wash-fl \
    && install -d -o wash-fl -g wash-fl -m 700 /var/lib/wash-fl-node \
    && install -d /etc/wash-fl
WORKDIR /opt/wash-fl/src
COPY pyproject.toml README.md LICENSE ./
COPY wash_fl ./wash_fl
COPY clients ./clients
COPY server ./server
# The PyTorch that is there stays: another one would not know the GPU. If it is too old, pip says so, and this fails.
RUN python3 -c 'import torch; print("torch==" + torch.__version__)' >/tmp/constraints.txt \
    && PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --constraint /tmp/constraints.txt '.[client]' \
    && rm /tmp/constraints.txt

# As in supernode.env.
# The name of an option of Flower's has PRIVATE in it; its value is a size.
# hadolint ignore=DL3064
ENV WASH_FL_STATE=/var/lib/wash-fl-node/members \
    FLWR_HOME=/var/lib/wash-fl-node/flower \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 \
    FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE=131072 \
    OMP_NUM_THREADS=1 \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/wash-fl-node
VOLUME /var/lib/wash-fl-node
ENTRYPOINT ["python3", "-P", "-m", "wash_fl.deploy.supervisor"]
CMD ["flower-supernode", "--help"]
