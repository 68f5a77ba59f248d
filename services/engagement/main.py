"""engagement, put together."""

from libs.common.service import Service
from services.engagement import consumer
from services.engagement.api import router
from services.engagement.jobs.rebuilding import FACTS
from services.engagement.jobs.sender import background

SERVICE = Service(
    name="engagement",
    title="Superfan engagement 用户触达",
    description="Whom we write to, whom not, and why: journeys, messages, and every decision with its values.",
    routers=[router],
    topics=consumer.TOPICS,
    make_handler=consumer.make_handler,
    keep_data=consumer.keep_data,
    facts=FACTS,
    background=background,
    tags=[
        {"name": "messages", "description": "The in-app inbox and what went by other channels; what people allow."},
        {"name": "decisions", "description": "Sent, held or skipped, and why; never revised."},
        {"name": "contact policy", "description": "Caps, gap and quiet hours of the account."},
        {"name": "journeys", "description": "What can be sent, and what starts it; in versions."},
    ],
)

openapi_app = SERVICE.openapi_app
