"""segmentation, put together."""

from libs.common.service import Service
from libs.common.sweep import DueWork
from services.segmentation import consumer, jobs
from services.segmentation.api import ROUTERS
from services.segmentation.store.due import read_oldest_flip
from services.segmentation.usecases.lifecycle import move_due

SERVICE = Service(
    name="segmentation",
    title="Superfan segmentation 用户分层",
    description="Which layer of the audience each user is in, since when, and why; who is in each segment.",
    routers=ROUTERS,
    topics=consumer.TOPICS,
    make_handler=consumer.make_handler,
    keep_data=consumer.keep_data,
    due_work=DueWork(read_oldest_flip, move_due),
    facts=jobs.FACTS,
    tags=[
        {"name": "users", "description": "One user: his lifecycle 生命周期, his rung, how he came there."},
        {"name": "segments", "description": "Segments, their sizes, their members, and the flow between them."},
        {"name": "rfm", "description": "Runs of RFM: who buys how recently, how often, for how much."},
    ],
)


openapi_app = SERVICE.openapi_app
