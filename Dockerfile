# Serves bundles and nothing else: the serve extra, no torch, no compiler, no root.
#   docker build -t potstill .
#   docker run --rm --read-only --tmpfs /tmp -p 8080:8080 -v "$PWD/runs/shop/bundle:/models/shop:ro" potstill
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY teacher ./teacher
COPY student ./student
COPY export ./export
COPY distill ./distill
RUN python -m venv /opt/potstill \
    && /opt/potstill/bin/python -m pip install --no-cache-dir --constraint constraints.txt '.[serve]'

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin potstill
COPY --from=build /opt/potstill /opt/potstill
ENV PATH=/opt/potstill/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=2s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/v2/health/ready', timeout=1)"]
ENTRYPOINT ["distill", "serve"]
CMD ["/models/shop", "--host", "0.0.0.0"]
