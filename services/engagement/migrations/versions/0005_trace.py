"""Messages know the trace of the event that began them, so that their sending is part of it."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("alter table message add column traceparent text")


def downgrade() -> None:
    op.execute("alter table message drop column traceparent")
