"""Operators pause single topics."""

from libs.common.migrate import add_pauses_0004, remove_pauses_0004

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    add_pauses_0004()


def downgrade() -> None:
    remove_pauses_0004()
