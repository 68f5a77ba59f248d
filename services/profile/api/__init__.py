"""profile over REST."""

from fastapi import APIRouter

from services.profile.api import links, portrait, users

router = APIRouter()
for part in (users, portrait, links):
    router.include_router(part.router)
