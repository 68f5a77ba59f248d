"""Who is one person: by evidence in any order, by word, and apart again; with every limit and every why."""

import itertools
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.config import ConfigFile
from libs.common.db import AsyncSession, Sessions
from libs.common.events import AnyEvent, new_event, parse_event
from libs.common.identity import fold_links, user_id_of
from services.profile.domain.links import is_blocked
from services.profile.main import SERVICE
from tests.support.folding import NOW, Log, arrivals, empty, rows

A, B, C = "douyin:a", "wechat.x:b", "app:c"
NUMBERS = itertools.count()


def traits(subject: str, at: int = 0, **changes: Any) -> AnyEvent:
    attributes = {name: changes.pop(name) for name in ("account", "trust", "id") if name in changes}
    return new_event(
        "profile.traits",
        **{"account": "demo", "id": f"t{next(NUMBERS)}", **attributes},
        source="/t",
        subject=subject,
        platform=subject.partition(":")[0],
        time=NOW + timedelta(minutes=at),
        received=NOW,
        data={"traits": changes},
    )


async def groups(sessions: Sessions, account: str = "demo") -> set[tuple[str, ...]]:
    """All groups; each must be named after its smallest member."""
    found: dict[str, list[str]] = defaultdict(list)
    for row_account, subject, user_id in await rows(sessions, "alias", "account, subject, user_id"):
        if row_account == account:
            found[user_id].append(subject)
    for user_id, members in found.items():
        assert user_id == min(user_id_of(account, subject) for subject in members)
    return {tuple(sorted(members)) for members in found.values()}


async def decisions(sessions: Sessions) -> list[tuple[Any, ...]]:
    found = await rows(sessions, "link_decision", "id, subject, kind, value, outcome, why")
    return [row[1:] for row in sorted(found)]


async def told(sessions: Sessions) -> list[AnyEvent]:
    """What lies in the outbox, in order."""
    return [parse_event(bytes(value)) for _, value in sorted(await rows(sessions, "outbox", "id, value"))]


# Evidence


@st.composite
def evidence(draw: st.DrawFn) -> list[AnyEvent]:
    """Persons with subjects in spaces of their own, who show union ids and logins, some only to a chain of others."""
    events = []
    for person in range(draw(st.integers(1, 3))):
        spaces = draw(st.lists(st.sampled_from(["douyin", "douyin.live", "wechat.x", "app"]), min_size=1, unique=True))
        for space in spaces:
            subject = f"{space}:{person}"
            for name, value in (
                ("union_id", {"space": "one", "id": f"un{person}"}),
                ("login_id", f"lo{person}"),
                ("phone", draw(st.sampled_from(["13800000000", "0", "138 0000-0001"]))),
                ("nickname", "x"),
            ):
                if draw(st.booleans()):
                    trust = draw(st.sampled_from(["platform", "server", "server", "client"]))
                    account = draw(st.sampled_from(["demo", "london"]))
                    at = draw(st.integers(0, 9))
                    events.append(traits(subject, at, **{name: value}, trust=trust, account=account))
    return events or [traits(A)]


def model_groups(events: list[AnyEvent], account: str) -> set[tuple[str, ...]]:
    """Union-find in the plainest way: as long as two groups share a value, make them one."""
    values: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.account == account:
            assert event.subject
            values[event.subject] |= {
                f"{name} {value}"
                for name, value in event.data.traits.items()  # type: ignore[union-attr]
                if name in ("union_id", "login_id") and event.trust != "client"
            }
    found = [({subject}, shown) for subject, shown in values.items()]
    while pair := next((p for p in itertools.combinations(found, 2) if p[0][1] & p[1][1]), None):
        found = [group for group in found if group not in pair] + [(pair[0][0] | pair[1][0], pair[0][1] | pair[1][1])]
    return {tuple(sorted(subjects)) for subjects, _ in found}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), events=evidence())
async def test_any_order_of_evidence_gives_the_same_groups(
    database: Sessions, config: ConfigFile, data: st.DataObject, events: list[AnyEvent]
) -> None:
    await empty(database)
    log = Log("profile", database, SERVICE.make_handler(config.account), SERVICE.keep_data)
    for batch in data.draw(arrivals(events)):
        await log.apply(batch, partition=data.draw(st.integers(0, 2)))
    for account in ("demo", "london"):
        assert await groups(database, account) == model_groups(events, account)
    facts: dict[tuple[str, ...], list[datetime]] = defaultdict(list)
    for event in events:
        for name, value in event.data.traits.items():  # type: ignore[union-attr]
            if event.trust == "client" or value == "0" or name == "nickname":
                continue
            space, plain = (value["space"], value["id"]) if isinstance(value, dict) else ("", value)
            space = event.account if name == "login_id" else space
            key = (event.account, name, space, plain.replace(" ", "").replace("-", ""), event.subject or "")
            facts[key].append(event.time)
    stored = await rows(database, "identifier", "account, kind, space, value, subject, first_time, last_time")
    assert {row[:5]: row[5:] for row in stored} == {key: (min(times), max(times)) for key, times in facts.items()}
    await _told_alone_gives_the_same_groups(database, data)


async def _told_alone_gives_the_same_groups(database: Sessions, data: st.DataObject) -> None:
    """Another service, which hears only what was told, in any order, knows the same."""
    here = {row for row in await rows(database, "alias", "account, subject, user_id, revision") if row[3]}
    notices = await told(database)
    own = {(event.account, event.source, event.id) for event in notices}
    assert {row for row in await rows(database, "event", "account, source, id") if row[1] == "/profile"} == own
    await empty(database)

    async def handle(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        await fold_links(session, events)

    log = Log("segmentation", database, handle, lambda _: False)
    for batch in data.draw(arrivals(notices)) if notices else []:
        await log.apply(batch)
    assert {row for row in await rows(database, "alias", "account, subject, user_id, revision") if row[3]} == here


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_no_limit_is_ever_passed(database: Sessions, config: ConfigFile, data: st.DataObject) -> None:
    """Evidence that contradicts itself: whatever the order, everybody has one subject and one identifier a space, each
    piece is decided once, and what others are told is the whole truth."""
    await empty(database)
    shown = st.builds(
        lambda subject, at, name, value: traits(subject, at, **{name: value}),
        st.sampled_from(["douyin:1", "douyin:2", "app:1", "app:2", "x:1"]),
        st.integers(0, 5),
        st.sampled_from(["union_id", "login_id"]),
        st.sampled_from(["v1", "v2", "null"]).map(lambda value: {"space": "s", "id": value}),
    )
    log = Log("profile", database, SERVICE.make_handler(config.account), SERVICE.keep_data)
    for batch in data.draw(arrivals(data.draw(st.lists(shown, min_size=1, max_size=14)))):
        await log.apply(batch)
    decided = await decisions(database)
    assert len({row[:3] for row in decided}) == len(decided)
    holders: dict[tuple[str, str], set[str]] = defaultdict(set)
    for subject, kind, value, outcome, why in decided:
        assert (why == "blocked_value") == (value == "null")
        if outcome == "linked":
            holders[kind, value].add(subject)
    for group in await groups(database):
        assert len({subject.partition(":")[0] for subject in group}) == len(group)
        for kind in ("union_id", "login_id"):
            held = [value for (name, value), subjects in holders.items() if name == kind and subjects & set(group)]
            assert len(held) <= 1
    for subjects in holders.values():
        assert any(subjects <= set(group) for group in await groups(database))
    await _told_alone_gives_the_same_groups(database, data)


async def test_spaces_and_values(log: Log, sessions: Sessions) -> None:
    await log.apply(
        [
            traits("wechat.one:1", union_id="u"),
            traits("wechat.two:1", union_id="u"),
            traits("douyin:1", union_id="u"),  # another platform's u
            traits("kuaishou:1", union_id={"space": "wechat", "id": " u "}),
            traits("app:2", login_id="7"),
            traits("douyin:2", login_id={"id": "7"}),
            traits("app:3", union_id=17, login_id=["7"]),  # no text: nothing is shown
            traits("app:4", login_id="7", trust="client"),
            traits("other:5", login_id="7", account="london"),
        ]
    )
    assert await groups(sessions) == {
        ("kuaishou:1", "wechat.one:1", "wechat.two:1"),
        ("douyin:1",),
        ("app:2", "douyin:2"),
        ("app:3",),
        ("app:4",),
    }


@pytest.mark.parametrize("value", ["", " ", "0", "000-000", "NULL", "Unknown", "-1", "n/a", "x" * 201, "a\x07b"])
async def test_values_that_mean_not_known_link_nobody(value: str) -> None:
    assert is_blocked(value)
    assert not is_blocked("a" + value[:100].replace("\x07", ""))


async def test_of_two_identifiers_the_weaker_is_dropped(log: Log, sessions: Sessions) -> None:
    """The union id says that app:c is douyin:a, the login that it is douyin:z: both at once would be two of douyin."""
    await log.apply([traits(A, union_id={"space": "s", "id": "u"}), traits("douyin:z", login_id="7")])
    await log.apply([traits(C, login_id="7", union_id={"space": "s", "id": "u"})])
    assert await groups(sessions) == {(C, A), ("douyin:z",)}
    assert (await decisions(sessions))[2:] == [
        (C, "union_id", "u", "linked", "evidence"),
        (C, "login_id", "7", "dropped", "over_limit"),
    ]
    details = await rows(sessions, "link_decision", "detail")
    assert ({"kind": "open_id", "space": "douyin", "limit": 1, "subjects": [A, "douyin:z"]},) in details
    await log.apply([traits(C, login_id="7", at=9)])
    assert len(await decisions(sessions)) == 4


async def test_what_is_told(log: Log, sessions: Sessions) -> None:
    first, second = traits(A, 1, login_id="7"), traits(B, 2, login_id="7")
    second.backfill = True
    await log.apply([first])
    assert await told(sessions) == []
    await log.apply([second, traits(C)])
    await log.apply([traits(C, 3, login_id="7")])
    two, three = await told(sessions)
    assert two.data.subjects == [A, B]  # type: ignore[union-attr]
    assert three.data.subjects == sorted([A, B, C])  # type: ignore[union-attr]
    assert two.data.revision < three.data.revision  # type: ignore[union-attr]
    assert two.data.since == second.time  # type: ignore[union-attr]
    assert (two.backfill, three.backfill) == (True, False)
    assert user_id_of("demo", two.subject or "") == two.data.user_id  # type: ignore[union-attr]


# Over REST


async def post(api: httpx.AsyncClient, path: str, body: dict[str, Any], status: int = 200) -> Any:
    response = await api.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


async def link(api: httpx.AsyncClient, *subjects: str, status: int = 200) -> Any:
    return await post(api, "/v1/links", {"subjects": subjects, "evidence": "login", "reason": "both"}, status)


async def unlink(api: httpx.AsyncClient, ref: str, *subjects: str, status: int = 200) -> Any:
    return await post(api, f"/v1/users/{ref}/unlink", {"subjects": subjects, "reason": "a family"}, status)


async def test_a_link_by_word(api: httpx.AsyncClient, log: Log, sessions: Sessions) -> None:
    await log.apply([traits(A, nickname="x")])
    answer = await link(api, A, B)
    assert answer == {
        "user_id": min(user_id_of("demo", subject) for subject in (A, B)),
        "subjects": [A, B],
        "revision": answer["revision"],
    }
    for ref in (A, B, user_id_of("demo", A), user_id_of("demo", B)):
        assert (await api.get(f"/v1/users/{ref}")).json()["user_id"] == answer["user_id"]
    assert await link(api, B, A) == answer
    assert len(await told(sessions)) == 1
    assert (await link(api, C, B))["subjects"] == sorted([A, B, C])

    refused = await link(api, A, "douyin:other", status=409)
    assert (refused["code"], "douyin:a, douyin:other" in refused["detail"]) == ("over_limit", True)
    assert (await api.get("/v1/users/douyin:other")).status_code == 404
    await link(api, A, "content:c", status=422)
    await link(api, A, status=422)
    await link(api, "douyin:new", "douyin:new", status=422)


async def test_taken_apart_and_linked_again(api: httpx.AsyncClient, log: Log, sessions: Sessions) -> None:
    await log.apply([traits(A, login_id="7"), traits(B, login_id="7"), traits(C, union_id={"space": "s", "id": "u"})])
    whole = await link(api, A, C)
    assert whole["subjects"] == sorted([A, B, C])
    parts = (await unlink(api, C, B))["groups"]
    assert [part["subjects"] for part in parts] == [sorted([A, C]), [B]]
    assert parts[0]["revision"] == parts[1]["revision"] > whole["revision"]
    assert [notice.data.subjects for notice in (await told(sessions))[-2:]] == [sorted([A, C]), [B]]  # type: ignore[union-attr]

    # The same evidence, later, from others, or new evidence: none of it links them again.
    await log.apply([traits(B, 5, login_id="7"), traits(A, 6, login_id="7")])
    await log.apply([traits("x:1", 7, login_id="7"), traits("x:1", 8, union_id={"space": "wechat", "id": "w"})])
    await log.apply([traits(B, 9, union_id="w")])
    assert await groups(sessions) == {tuple(sorted([A, C, "x:1"])), (B,)}
    assert (await decisions(sessions))[-1] == (B, "union_id", "w", "dropped", "taken_apart")

    found = (await api.get(f"/v1/users/{B}/links")).json()
    assert [(one["subject"], one["other"]) for one in found["taken_apart"]] == [(B, C), (B, A)]
    assert [(one["kind"], one["value"], one["held"]) for one in found["identifiers"]] == [
        ("login_id", "7", False),
        ("union_id", "w", False),
    ]
    assert {(one["kind"], one["outcome"], one["why"], one["decided_by"]) for one in found["decisions"]} == {
        ("login_id", "linked", "evidence", None),
        ("login_id", "unlinked", "explicit", "test"),
        (None, "unlinked", "explicit", "test"),
        ("union_id", "dropped", "taken_apart", None),
    }

    assert (await link(api, B, A))["subjects"] == sorted([A, B, C, "x:1"])
    assert (await api.get(f"/v1/users/{B}/links")).json()["taken_apart"] == []
    # The one after whom the group is named is taken out.
    named = min((A, B, C, "x:1"), key=lambda subject: user_id_of("demo", subject))
    assert (await unlink(api, A, named))["groups"][1]["subjects"] == [named]
    rest = next(subject for subject in (A, B, C) if subject != named)
    assert (await api.get(f"/v1/users/{rest}")).json()["user_id"] != user_id_of("demo", named)


async def test_what_cannot_be_taken_apart(api: httpx.AsyncClient) -> None:
    await link(api, A, B)
    for subjects, code in (
        ((A, B), "not_a_part_of_user"),
        ((C,), "not_a_part_of_user"),
        ((A, C), "not_a_part_of_user"),
    ):
        assert (await unlink(api, A, *subjects, status=409))["code"] == code
    assert (await unlink(api, "douyin:nobody", A, status=404))["code"] == "unknown_user"
    assert (await unlink(api, A, B))["groups"]
    assert (await unlink(api, A, A, status=409))["code"] == "not_a_part_of_user"


async def test_phones_and_devices_are_kept_up_to_their_limit_and_masked(api: httpx.AsyncClient, log: Log) -> None:
    await log.apply([traits(A, at, phone=f"1380000000{at}", device_id=[f"d{at}", "0"]) for at in range(7)])
    await log.apply([traits(B, 9, phone="138 0000 0000", email="Lin@Example.com")])
    await link(api, A, B)
    found = (await api.get(f"/v1/users/{A}/links")).json()["identifiers"]
    held = {(one["kind"], one["value"], one["subject"]) for one in found if one["held"]}
    assert held == {
        *(("device_id", f"d{at}", A) for at in range(2, 7)),
        ("phone", "138****06", A),
        ("phone", "138****00", A),
        ("phone", "138****00", B),
        ("email", "l***@example.com", B),
    }
    assert len(found) == 7 + 7 + 2
