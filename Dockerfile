# The service. Build: docker build --tag framegate .
# Built here once, by the same script that a checkout uses; the image that runs has no compiler, no git and no root.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /srv/framegate
COPY script/bootstrap script/set_up.py script/
COPY requirements/runtime.txt requirements/dev.txt requirements/
COPY pyproject.toml README.md ./
COPY app app
COPY migrations migrations
RUN script/bootstrap --runtime && rm -rf .cache

FROM python:${PYTHON}-slim
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/framegate --create-home framegate \
    && chmod 0700 /var/lib/framegate
WORKDIR /srv/framegate
COPY --from=build /srv/framegate /srv/framegate
ENV PATH=/srv/framegate/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    FRAMEGATE_DATA_DIR=/var/lib/framegate/data \
    FRAMEGATE_LOG_FORMAT=json
USER framegate
VOLUME /var/lib/framegate
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["framegate"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
