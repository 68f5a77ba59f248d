"""What a consumer tells about itself. Label `service` is the service, `topic` the Kafka topic."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS_APPLIED = Counter("superfan_events_applied_total", "Events whose effects were committed", ["service", "type"])
EVENTS_REPEATED = Counter(
    "superfan_events_repeated_total",
    "Copies of events already applied: the same content (repeat) or another under the same identity (conflict)",
    ["service", "kind"],
)
EVENT_DELAY = Histogram(
    "superfan_event_delay_seconds",
    "From Kafka's append of a batch's last record to the commit of its effects",
    ["service", "topic"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
BATCH_SECONDS = Histogram("superfan_batch_seconds", "One transaction of what a poll brought", ["service", "topic"])
BATCH_RETRIES = Counter(
    "superfan_batch_retries_total", "Batches tried again because the database failed", ["service", "topic"]
)
OFFSET_CONFLICTS = Counter(
    "superfan_offset_conflicts_total", "Batches refused because another member had applied them", ["service", "topic"]
)
OFFSET_RESETS = Counter(
    "superfan_offset_resets_total", "Partitions begun at the earliest record: no known position", ["service", "topic"]
)
RECORDS_AGAIN = Counter(
    "superfan_records_again_total",
    "Records applied once more, because the database was older than what the group had applied",
    ["service", "topic"],
)
RECORDS_EXPIRED = Counter(
    "superfan_records_expired_total", "Records that retention removed before they were read", ["service", "topic"]
)
DEAD_LETTERS = Counter("superfan_dead_letters_total", "Events that no code could apply", ["service", "error"])
LAG = Gauge(
    "superfan_consumer_lag_records", "Records not yet applied of the partitions held here", ["service", "topic"]
)
LAG_SECONDS = Gauge(
    "superfan_consumer_lag_seconds",
    "Age that the oldest record not yet applied of the partitions held here has at most; 0 when nothing is behind",
    ["service", "topic"],
)
ASSIGNED = Gauge("superfan_consumer_partitions", "Partitions held by this process", ["service", "topic"])
REBALANCES = Counter("superfan_consumer_rebalances_total", "Times that partitions were given up", ["service", "topic"])
REBUILDS = Counter(
    "superfan_consumer_rebuilds_total", "Times that the Kafka client was replaced after an error", ["service", "topic"]
)
PAUSED = Gauge("superfan_consumer_paused", "1 while the consumer waits for the outbox to empty", ["service", "topic"])
HELD = Gauge("superfan_consumer_held", "1 while an operator has paused the topic", ["service", "topic"])
LETTERS_WAITING = Gauge("superfan_dead_letters_waiting", "Dead letters that are kept (counted to 1,001)", ["service"])
STOPPED = Gauge("superfan_consumer_stopped", "1 while dead letters have stopped the line", ["service"])
