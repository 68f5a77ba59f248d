"""Dead letters over REST, and the line that stops."""

from libs.common.migrate import change_common_tables_0002, undo_common_tables_0002

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    change_common_tables_0002()


def downgrade() -> None:
    undo_common_tables_0002()
