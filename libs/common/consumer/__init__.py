"""The consumer runtime: Kafka partitions applied to PostgreSQL exactly once, a bulk use case per batch."""

from libs.common.consumer.transaction import Applier, Handler
from libs.common.consumer.worker import Worker

__all__ = ["Applier", "Handler", "Worker"]
