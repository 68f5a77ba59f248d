"""What rewards does beside requests and events: `job NAME`, what falls due by the calendar, and the ledger's audit."""

from collections.abc import Sequence

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.orders import ORDER_TYPES
from libs.common.outbox import Relay
from libs.common.process import Component
from libs.common.rebuild import Facts
from libs.common.sweep import DueWork
from services.rewards import tables
from services.rewards.store.ledger import recount_balances
from services.rewards.store.levels import read_oldest_flip
from services.rewards.usecases.auditing import keep_auditing
from services.rewards.usecases.earning import fold_facts
from services.rewards.usecases.levels import judge_due

FACTS = Facts(
    tables=(tables.sign_in_day, tables.order_state, tables.refund_state, tables.balance),
    types=ORDER_TYPES | {"sign_in"},
    fold=fold_facts,
    with_data=True,
    recount=recount_balances,
)
DUE_WORK = DueWork(read_oldest_flip, judge_due)


def background(_config: ConfigFile, sessions: Sessions, _relay: Relay) -> Sequence[Component]:
    """The audit."""
    return [Component("ledger audit", run=lambda: keep_auditing(sessions))]
