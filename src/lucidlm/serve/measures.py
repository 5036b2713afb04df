"""What the server measures of itself, in Prometheus's form."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lucidlm.serve.models import Models

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Measures:
    """Counters of requests and tokens, and what the engines are doing whenever somebody asks."""

    def __init__(self, models: Models) -> None:
        self.registry = CollectorRegistry()
        named = {"registry": self.registry, "namespace": "lucidlm"}
        self.requests = Counter("requests", "Requests answered.", ["path", "status"], **named)
        self.seconds = Histogram("request_seconds", "Until the last byte was sent.", ["path"], buckets=SECONDS, **named)
        self.prompt_tokens = Counter("prompt_tokens", "Tokens of prompts.", ["model"], **named)
        self.tokens = Counter("written_tokens", "Tokens written.", ["model"], **named)
        self.first_token = Histogram(
            "first_token_seconds", "Until a request's first token.", ["model"], buckets=SECONDS, **named
        )
        self.registry.register(_Engines(models))


class _Engines(Collector):
    """What the engines are doing."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("lucidlm_running_texts", "Texts being read and written.", labels=["model"])
        waiting = GaugeMetricFamily("lucidlm_waiting_texts", "Texts that wait for their turn.", labels=["model"])
        cache = GaugeMetricFamily("lucidlm_cache_used_ratio", "Share of the cache's blocks in use.", labels=["model"])
        healthy = GaugeMetricFamily("lucidlm_healthy", "Whether the engine goes on.", labels=["model"])
        for model in self._models:
            if model.writer is not None:
                engine = model.writer.engine
                running.add_metric([model.name], engine.running)
                waiting.add_metric([model.name], engine.waiting)
                cache.add_metric([model.name], engine.used_blocks / engine.blocks)
                healthy.add_metric([model.name], model.writer.healthy)
        yield from (running, waiting, cache, healthy)
