"""What engagement reads from Kafka: who follows, and what people allow."""

from collections.abc import Callable

from libs.common.config import Account
from libs.common.consumer import Handler
from services.engagement.usecases import handle_follows

TOPICS = ("superfan.follows",)


def make_handler(_account_of: Callable[[str], Account]) -> Handler:
    """The use case of a batch; nothing in it depends on the account's configuration."""
    return handle_follows


def keep_data(event_type: str) -> bool:
    """Consents keep their purpose and channel, which decisions about other channels will need. A follow's or
    unfollow's content is never read: its time, source and id stand in columns of their own."""
    return event_type.startswith("consent.")
