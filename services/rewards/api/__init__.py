"""rewards over REST."""

from typing import Annotated

from fastapi import Depends, Header, Path, Request, Response

from libs.common.auth import Caller, require
from libs.common.web.idempotency import Idempotency

ReaderDep = Annotated[Caller, Depends(require("rewards:read"))]
WriterDep = Annotated[Caller, Depends(require("rewards:write"))]
Ref = Annotated[str, Path(max_length=200, description="a user id or any subject", examples=["douyin:u42"])]


class Keyed(Idempotency):
    """An `Idempotency-Key` that must be there, so that a repeated request changes nothing."""

    def __init__(
        self,
        request: Request,
        response: Response,
        idempotency_key: Annotated[
            str,
            Header(
                pattern=r"^[\x21-\x7e]{1,255}$",
                description="Any text of your choice, one per intended effect: a repeat with the same key and body "
                "gets the first answer and changes nothing.",
                examples=["mug-17"],
            ),
        ],
    ) -> None:
        super().__init__(request, response, idempotency_key)
        self.request_id = idempotency_key


KeyedDep = Annotated[Keyed, Depends()]
