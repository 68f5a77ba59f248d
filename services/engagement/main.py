"""engagement, put together."""

from libs.common.service import Service
from services.engagement import consumer, jobs
from services.engagement.api import router

SERVICE = Service(
    name="engagement",
    title="Superfan engagement 用户触达",
    description="Whom we write to, whom not, and why: the in-app inbox and every decision with its values.",
    routers=[router],
    topics=consumer.TOPICS,
    make_handler=consumer.make_handler,
    keep_data=consumer.keep_data,
    facts=jobs.FACTS,
    tags=[
        {"name": "messages", "description": "The in-app inbox."},
        {"name": "decisions", "description": "Sent or skipped: one decision per event and journey, never revised."},
        {"name": "journeys", "description": "What can be sent, and what starts it."},
    ],
)

openapi_app = SERVICE.openapi_app
