"""Alembic environment of rewards."""

from libs.common.migrate import run
from services.rewards.tables import metadata

run(metadata)
