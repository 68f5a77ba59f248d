"""Alembic environment of profile."""

from libs.common.migrate import run
from services.profile.tables import metadata

run(metadata)
