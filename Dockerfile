# Not built by anyone yet: it says how the two commands go on a bare image.
#   docker build -t elute . && docker run --rm -v "$PWD/results:/elute/results" elute demo
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /elute
COPY pyproject.toml constraints.txt README.md LICENSE Makefile ./
COPY src ./src
# PyTorch first. Set TORCH_INDEX to the index of its CPU builds for a smaller image without CUDA.
ARG TORCH_INDEX=
RUN python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0 \
    && .venv/bin/pip install --no-cache-dir --constraint constraints.txt .
ENV PATH=/elute/.venv/bin:$PATH
ENTRYPOINT ["elute"]
CMD ["--help"]
