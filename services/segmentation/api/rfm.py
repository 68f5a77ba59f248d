"""RFM over REST."""

from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from libs.common.db import AsyncSession
from libs.common.identity import resolve, user_id_of
from libs.common.web import Cursor, Limit, Page, decode_cursor, make_page, not_found, problems
from libs.common.web.database import ReadSessionDep, SessionDep
from libs.common.web.idempotency import IdempotencyDep
from services.segmentation.api.parameters import ReaderDep, Ref, WriterDep
from services.segmentation.domain.rfm import NAMES, Cuts, RfmClass
from services.segmentation.schemas import rfm as schemas
from services.segmentation.store import rfm as store
from services.segmentation.usecases import rfm as usecases

router = APIRouter(tags=["rfm"])

MOST = 2**31 - 1
Version = Annotated[int, Path(ge=1, le=MOST, description="of the run", examples=[2])]


@router.post("/v1/rfm/runs", status_code=201, summary="Score everybody who buys", responses=problems(409))
async def run_rfm(
    caller: WriterDep, session: SessionDep, idempotency: IdempotencyDep, body: schemas.RfmQuestion | None = None
) -> schemas.RfmResult:
    """R, F and M of every user who has paid an order in the window, scored from 1 to 5 and put into eight classes.

    Equal values get equal scores: 1 + floor(5 * users with a strictly worse value / users). The run and its scores stay
    as they are; a later run tells who went from which class to which.
    """
    question = body or schemas.RfmQuestion()

    async def act() -> schemas.RfmResult:
        now = datetime.now(UTC)
        fixed = question.cut if isinstance(question.cut, schemas.FixedCuts) else None
        made = await usecases.run(
            session,
            caller.account,
            usecases.Question(
                as_of=question.as_of or now,
                window_days=question.window_days,
                cut="fixed" if isinstance(question.cut, schemas.FixedCuts) else question.cut,
                cuts=Cuts(*map(Fraction, (fixed.r_days, fixed.f_orders, fixed.m_minor))) if fixed else None,
            ),
            now,
        )
        return _result(made)

    return await idempotency.run(session, caller, question, act)


@router.get("/v1/rfm/runs", summary="All runs, newest first")
async def list_rfm_runs(
    caller: ReaderDep, session: ReadSessionDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[schemas.RfmRun]:
    """What was asked in each; `/v1/rfm/runs/{version}` tells what was found."""
    before = decode_cursor(cursor, (int,))[0] if cursor else None
    if before is not None:
        before = min(max(before, 0), MOST)
    runs = await store.page_runs(session, caller.account.name, before, limit + 1)
    return make_page(runs, limit, _run, lambda run: (run.version,))


@router.get("/v1/rfm/runs/{version}", summary="What a run found", responses=problems(404))
async def get_rfm_run(version: Version, caller: ReaderDep, session: ReadSessionDep) -> schemas.RfmResult:
    """With the boundary values of each score, the thresholds of the classes, and the moves since the run before."""
    return _result(await _find(session, caller.account.name, version))


@router.get("/v1/rfm/runs/{version}/users", summary="The users of a run", responses=problems(404))
async def list_rfm_users(
    version: Version,
    caller: ReaderDep,
    session: ReadSessionDep,
    rfm_class: Annotated[RfmClass | None, Query(description="only this class", examples=["111"])] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[schemas.RfmValues]:
    """Ordered by user id, each with the values behind his scores."""
    await _find(session, caller.account.name, version)
    after = decode_cursor(cursor, (str,))[0] if cursor else ""
    scores = await store.page_scores(session, caller.account.name, version, rfm_class, after, limit + 1)
    return make_page(scores, limit, lambda score: schemas.RfmValues(**_values(score)), lambda score: (score.user_id,))


@router.get("/v1/users/{ref}/rfm", summary="What RFM makes of a user, and why", responses=problems(404))
async def get_user_rfm(
    ref: Ref,
    caller: ReaderDep,
    session: ReadSessionDep,
    run: Annotated[int | None, Query(ge=1, le=MOST, description="version of a run; the newest when absent")] = None,
) -> schemas.UserRfm:
    """404 `not_scored` for whoever has paid no order in the window of the run."""
    account = caller.account.name
    user = await resolve(session, account, ref)
    found = await _find(session, account, run)
    # The run may be older than the link that made them one user.
    own_ids = [user_id_of(account, subject) for subject in user.subjects]
    score = await store.read_score(session, account, found.version, [user.user_id, *own_ids])
    if score is None:
        raise not_found(f"Run {found.version} has not scored this user.", "not_scored")
    return schemas.UserRfm(**_values(score), run=_run(found), cuts=schemas.Cuts(**found.result["cuts"]))


async def _find(session: AsyncSession, account: str, version: int | None) -> store.Run:
    run = await store.read_run(session, account, version)
    if run is None:
        raise not_found("There is no such run." if version else "Nothing has been run yet.", "unknown_run")
    return run


def _values(score: store.Score) -> dict[str, Any]:
    return {**score._asdict(), "class_name": NAMES[score.rfm_class]}


def _run(run: store.Run) -> schemas.RfmRun:
    return schemas.RfmRun(**_asked(run))


def _result(run: store.Run) -> schemas.RfmResult:
    return schemas.RfmResult(**_asked(run), **run.result)


def _asked(run: store.Run) -> dict[str, Any]:
    return {name: value for name, value in run._asdict().items() if name not in ("account", "result")}
