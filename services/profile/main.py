"""profile, put together."""

from libs.common.service import Service
from services.profile import consumer, jobs
from services.profile.api import router

SERVICE = Service(
    name="profile",
    title="Superfan profile 用户画像",
    description="What each fan has done: counts, firsts and lasts, following now, and the timeline of all events.",
    routers=[router],
    topics=consumer.TOPICS,
    make_handler=consumer.make_handler,
    keep_data=consumer.keep_data,
    facts=jobs.FACTS,
    tags=[{"name": "users", "description": "Fans, each with all subjects that belong to him."}],
)


openapi_app = SERVICE.openapi_app
