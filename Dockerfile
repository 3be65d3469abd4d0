# mamegpt on CPUs, for servers and clusters. What it holds is the folder that `make bundle` makes:
#
#   make bundle PLATFORM=linux-x86_64 PYTHON_VERSION=3.12
#   docker build --tag mamegpt --file Dockerfile dist/mamegpt-linux-x86_64-python3.12
FROM python:3.12-slim

RUN --mount=type=bind,target=/bundle sh /bundle/install.sh /opt/mamegpt \
    && useradd --create-home --uid 1000 mamegpt \
    && mkdir /work && chown mamegpt /work

ENV PATH=/opt/mamegpt/bin:$PATH
USER 1000
WORKDIR /work
ENTRYPOINT ["mamegpt"]
CMD ["--help"]
