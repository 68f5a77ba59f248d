"""engagement over REST."""

from fastapi import APIRouter

from services.engagement.api import decisions, journeys, messages, policies

router = APIRouter()
for part in (messages, decisions, journeys, policies):
    router.include_router(part.router)
