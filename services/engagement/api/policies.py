"""The contact policy: caps, gap and quiet hours of an account."""

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from libs.common.web import problems
from libs.common.web.database import ReadSessionDep, SessionDep
from services.engagement.api.common import ETAG, CallerDep, IfMatch, WriterDep
from services.engagement.domain.policies import PolicyVersion, stored_form
from services.engagement.schemas import policies as schemas
from services.engagement.store.policies import read_policies
from services.engagement.usecases import policies as usecases

router = APIRouter(tags=["contact policy"])


@router.get("/v1/contact-policy", summary="How much contact one person gets", responses=ETAG)
async def get_contact_policy(caller: CallerDep, session: ReadSessionDep, response: Response) -> schemas.PolicyVersion:
    """Quiet hours, the gap between two messages and frequency caps, as they are in effect."""
    found = (await read_policies(session, [caller.account.name]))[caller.account.name]
    return _shown(found, response)


@router.put("/v1/contact-policy", summary="Change the contact policy", responses={**problems(412), **ETAG})
async def put_contact_policy(
    body: schemas.PolicyBody, caller: WriterDep, session: SessionDep, response: Response, if_match: IfMatch = None
) -> schemas.PolicyVersion:
    """In effect from the next decision on; messages that wait are asked about by the new one."""
    stored = await usecases.put_policy(
        session, caller.account.name, body.policy(), if_match, datetime.now(UTC), caller.key_id
    )
    return _shown(stored, response)


def _shown(found: PolicyVersion, response: Response) -> schemas.PolicyVersion:
    response.headers["ETag"] = f'"{found.version}"'
    return schemas.PolicyVersion(
        version=found.version,
        changed_at=found.changed_at,
        changed_by=found.changed_by,
        **stored_form(found.policy),
    )
