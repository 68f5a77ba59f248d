"""rewards over REST."""

from typing import Annotated

from fastapi import Depends, Path

from libs.common.auth import Caller, require

ReaderDep = Annotated[Caller, Depends(require("rewards:read"))]
WriterDep = Annotated[Caller, Depends(require("rewards:write"))]
Ref = Annotated[str, Path(max_length=200, description="a user id or any subject", examples=["douyin:u42"])]
