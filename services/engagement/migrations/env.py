"""Alembic environment of engagement."""

from libs.common.migrate import run
from services.engagement.tables import metadata

run(metadata)
