"""profile, put together."""

from libs.common.service import Service
from services.profile import consumer, jobs
from services.profile.api import router

SERVICE = Service(
    name="profile",
    title="Superfan profile 用户画像",
    description="Who each fan is, what he has done and bought: portraits, links between subjects, and the timeline.",
    routers=[router],
    topics=consumer.TOPICS,
    make_handler=consumer.make_handler,
    keep_data=consumer.keep_data,
    facts=jobs.FACTS,
    tags=[
        {"name": "users", "description": "Fans, each with all subjects that belong to him."},
        {"name": "links", "description": "Which subjects are one person, and why."},
    ],
)


openapi_app = SERVICE.openapi_app
