"""The one place that imports aiokafka: a producer, a group consumer and the few administration calls.

Why a wrapper: used as its documentation shows, aiokafka 0.14 can lose, repeat or hang.
Each class says which trap it avoids.
"""

from aiokafka.errors import KafkaError

from libs.common.kafka.admin import apply_topics, cluster_id, end_offsets, log_ends
from libs.common.kafka.consumer import Batch, Consumer, Message, Positions, tail
from libs.common.kafka.lanes import Record
from libs.common.kafka.producer import Producer, is_refusal
from libs.common.kafka.security import PLAIN, Security, is_forbidden

__all__ = [
    "PLAIN",
    "Batch",
    "Consumer",
    "KafkaError",
    "Message",
    "Positions",
    "Producer",
    "Record",
    "Security",
    "apply_topics",
    "cluster_id",
    "end_offsets",
    "is_forbidden",
    "is_refusal",
    "log_ends",
    "tail",
]
