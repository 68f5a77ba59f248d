"""What the routes of engagement share."""

from typing import Annotated, Any

from fastapi import Depends, Header, Path

from libs.common.auth import Caller, require

CallerDep = Annotated[Caller, Depends(require("engagement:read"))]
WriterDep = Annotated[Caller, Depends(require("engagement:write"))]
REF: dict[str, Any] = {"max_length": 200, "description": "a user id or any subject", "examples": ["douyin:u42"]}
Ref = Annotated[str, Path(**REF)]
IfMatch = Annotated[
    str | None,
    Header(max_length=200, description="The `ETag` of the version that is to be changed.", examples=['"3"']),
]
ETAG: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"ETag": {"description": "Of this version.", "schema": {"type": "string"}, "example": '"3"'}}}
}
