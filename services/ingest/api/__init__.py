"""ingest over REST. Bodies of events are read raw, once, and never by FastAPI."""

from fastapi import APIRouter

from services.ingest.api import events, webhooks

router = APIRouter()
router.include_router(events.router)
router.include_router(webhooks.router)
