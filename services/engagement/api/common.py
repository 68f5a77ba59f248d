"""What the routes of engagement share."""

from typing import Annotated, Any

from fastapi import Depends, Path

from libs.common.auth import Caller, require

CallerDep = Annotated[Caller, Depends(require("engagement:read"))]
WriterDep = Annotated[Caller, Depends(require("engagement:write"))]
REF: dict[str, Any] = {"max_length": 200, "description": "a user id or any subject", "examples": ["douyin:u42"]}
Ref = Annotated[str, Path(**REF)]
