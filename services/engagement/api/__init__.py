"""engagement over REST."""

from fastapi import APIRouter

from services.engagement.api import decisions, journeys, messages

router = APIRouter()
for part in (messages, decisions, journeys):
    router.include_router(part.router)
