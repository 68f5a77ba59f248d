"""What several routes take."""

from typing import Annotated

from fastapi import Depends, Path, Query

from libs.common.auth import Caller, require
from libs.common.events import EventTime

ReaderDep = Annotated[Caller, Depends(require("profile:read"))]
WriterDep = Annotated[Caller, Depends(require("profile:write"))]
Ref = Annotated[str, Path(max_length=200, description="a user id or any subject", examples=["douyin:u42"])]
AsOf = Annotated[
    EventTime | None, Query(description="what was true at this instant, with all that is known today; now if absent")
]
