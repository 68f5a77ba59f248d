"""Who is one person: linking, unlinking, and why."""

from datetime import UTC, datetime

from fastapi import APIRouter

from libs.common.identity import UnknownUserError, resolve
from libs.common.web import Problem, conflict, invalid, not_found, problems
from libs.common.web.database import ReadSessionDep, SessionDep
from libs.common.web.idempotency import IdempotencyDep
from services.profile.api.parameters import ReaderDep, Ref, WriterDep
from services.profile.domain.links import KINDS, held_of
from services.profile.domain.traits import mask
from services.profile.schemas import links as schemas
from services.profile.store import links as store
from services.profile.usecases import links as usecases

router = APIRouter(tags=["links"])

MOST_DECISIONS = 500


@router.post("/v1/links", summary="Make subjects one user", responses=problems(409))
async def create_link(
    body: schemas.NewLink, caller: WriterDep, session: SessionDep, idempotency: IdempotencyDep
) -> schemas.Group:
    """Links all that belongs to the subjects, also what was taken apart before. The user id is the smallest of theirs;
    the others stay valid. 409 `over_limit` when the user would have two subjects of one id space, or two union ids or
    logins of one."""
    if any(subject.startswith("content:") for subject in body.subjects):
        raise invalid("names a piece of content; only people are linked", pointer="/subjects")

    async def act() -> schemas.Group:
        try:
            linked = await usecases.link(
                session,
                caller.account.name,
                body.subjects,
                body.evidence,
                body.reason,
                caller.key_id,
                datetime.now(UTC),
            )
        except usecases.ConflictError as error:
            raise _over_limit(error) from None
        return schemas.Group.model_validate(linked)

    return await idempotency.run(session, caller, body, act)


@router.post("/v1/users/{ref}/unlink", summary="Take subjects out of a user", responses=problems(404, 409))
async def unlink(
    ref: Ref, body: schemas.Unlink, caller: WriterDep, session: SessionDep, idempotency: IdempotencyDep
) -> schemas.Unlinked:
    """The subjects become a user of their own, together. Every fact goes with its subject, so both have what they had
    before they were linked. No evidence links the two again; `POST /v1/links` does."""

    async def act() -> schemas.Unlinked:
        try:
            groups = await usecases.unlink(
                session, caller.account.name, ref, body.subjects, body.reason, caller.key_id, datetime.now(UTC)
            )
        except UnknownUserError:
            raise not_found(f"No event has named the user {ref}.", "unknown_user") from None
        except usecases.NotOfUserError:
            raise conflict("Name some of the user's subjects, but not all of them.", "not_a_part_of_user") from None
        return schemas.Unlinked(groups=[schemas.Group.model_validate(group) for group in groups])

    return await idempotency.run(session, caller, body, act)


@router.get("/v1/users/{ref}/links", summary="Why these subjects are one user", responses=problems(404))
async def get_links(ref: Ref, caller: ReaderDep, session: ReadSessionDep) -> schemas.Links:
    """The group, the identifiers that its subjects showed, what was decided about them and why."""
    user = await resolve(session, caller.account.name, ref)
    known = await store.read_identifiers(session, user.account, user.subjects)
    decisions = await store.read_decisions(session, user.account, user.subjects, MOST_DECISIONS)
    linked = await store.read_linked(session, user.account, user.subjects)
    held = held_of(known)
    return schemas.Links(
        user_id=user.user_id,
        subjects=list(user.subjects),
        revision=await store.read_revision(session, user.account, user.user_id),
        identifiers=[
            schemas.Identifier(
                kind=one.kind,
                space=one.space,
                value=mask(one.kind, one.value),
                subject=one.subject,
                first_time=one.first_time,
                last_time=one.last_time,
                trust=one.trust,
                held=(one.subject, one.kind, one.space, one.value) in linked if KINDS[one.kind].links else held[one],
            )
            for one in known
        ],
        decisions=[schemas.Decision(**row._mapping) for row in decisions],
        taken_apart=[
            schemas.Separation(**row._mapping)
            for row in await store.read_separations(session, user.account, user.subjects)
        ],
    )


def _over_limit(error: usecases.ConflictError) -> Problem:
    values = error.conflict.values
    space = f" in the id space {values['space']}" if values["space"] else ""
    found = ", ".join(values.get("subjects") or values["values"])
    return conflict(f"A user has {values['limit']} {values['kind']}{space} at most; these are {found}.", "over_limit")
