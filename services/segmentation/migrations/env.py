"""Alembic environment of segmentation."""

from libs.common.migrate import run
from services.segmentation.tables import metadata

run(metadata)
