"""What `python -m services.segmentation job NAME` needs to know."""

from libs.common.events import ACTIVE_TYPES
from libs.common.orders import ORDER_TYPES
from libs.common.rebuild import Facts
from services.segmentation import tables
from services.segmentation.domain.ladder import INTERACTIONS
from services.segmentation.usecases import record

FACTS = Facts(
    tables=(
        tables.active_day,
        tables.following_change,
        tables.first_interaction,
        tables.order_state,
        tables.refund_state,
    ),
    types=ACTIVE_TYPES | INTERACTIONS | ORDER_TYPES | {"unfollow"},
    fold=record.fold_facts,
    with_data=True,
    announce=record.correct,
)
