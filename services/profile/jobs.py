"""What `python -m services.profile job NAME` needs to know."""

from libs.common.events import EVENT_TYPES
from libs.common.rebuild import Facts
from services.profile import tables
from services.profile.domain.notices import FAMILIES
from services.profile.usecases import activity, zones

FACTS = Facts(
    tables=(
        tables.activity_day,
        tables.activity_hour,
        tables.watch_day,
        tables.sign_in_day,
        tables.fan,
        tables.trait,
        tables.notice_state,
        tables.identifier,
        tables.order_state,
        tables.refund_state,
    ),
    types=[name for name, kind in EVENT_TYPES.items() if kind.direction == "input" or name in FAMILIES],
    fold=activity.fold,
    with_data=True,
    announce=zones.tell_all_zones,
)
