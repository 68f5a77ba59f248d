"""segmentation, put together."""

from libs.common.service import Service
from services.segmentation import consumer
from services.segmentation.api import router

SERVICE = Service(
    name="segmentation",
    title="Superfan segmentation 用户分层",
    description="Which layer of the audience each user is in, since when, and why; who is in each segment.",
    routers=[router],
    topics=consumer.TOPICS,
    make_handler=consumer.make_handler,
    keep_data=consumer.keep_data,
    tags=[
        {"name": "users", "description": "One user: his lifecycle 生命周期, his segments and how he came into them."},
        {"name": "segments", "description": "Segments, their sizes and their members."},
    ],
)


openapi_app = SERVICE.openapi_app
