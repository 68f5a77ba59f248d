"""What `python -m services.segmentation job NAME` needs to know."""

from libs.common.events import ACTIVE_TYPES
from libs.common.rebuild import Facts
from services.segmentation import tables, usecases

FACTS = Facts(
    tables=(tables.active_day,),
    types=ACTIVE_TYPES,
    fold=usecases.fold_activity,
    announce=usecases.correct_states,
)
