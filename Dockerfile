FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels ".[exporter,flower]"

FROM python:3.13-slim
RUN useradd --system --create-home lanes
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels "ezai-lanes[exporter,flower]" && rm -rf /wheels
USER lanes
WORKDIR /home/lanes
ENTRYPOINT ["celery", "-A", "celery_app"]
CMD ["worker", "-Q", "critical,normal,batch", "-n", "shared@%h"]
