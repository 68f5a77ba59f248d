"""segmentation, put together."""

from libs.common.service import Service
from libs.common.sweep import DueWork
from services.segmentation import consumer, jobs
from services.segmentation.api import router
from services.segmentation.store.due import read_oldest_flip
from services.segmentation.usecases import move_due

SERVICE = Service(
    name="segmentation",
    title="Superfan segmentation 用户分层",
    description="Which layer of the audience each user is in, since when, and why; who is in each segment.",
    routers=[router],
    topics=consumer.TOPICS,
    make_handler=consumer.make_handler,
    keep_data=consumer.keep_data,
    due_work=DueWork(read_oldest_flip, move_due),
    facts=jobs.FACTS,
    tags=[
        {"name": "users", "description": "One user: his lifecycle 生命周期, his segments and how he came into them."},
        {"name": "segments", "description": "Segments, their sizes and their members."},
    ],
)


openapi_app = SERVICE.openapi_app
