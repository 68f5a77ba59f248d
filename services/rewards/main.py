"""rewards, put together."""

from libs.common.service import Service
from services.rewards import consumer, jobs, usecases
from services.rewards.api import router

SERVICE = Service(
    name="rewards",
    title="Superfan rewards 积分",
    description="What loyalty has earned: sign-in streaks, points, and the ledger that says why.",
    routers=[router],
    topics=consumer.TOPICS,
    make_handler=consumer.make_handler,
    keep_data=usecases.keep_data,
    facts=jobs.FACTS,
    tags=[
        {"name": "sign-ins", "description": "Signing in for the day 签到, and streaks 连签."},
        {"name": "points", "description": "Balances, the ledger behind them, and the rules."},
    ],
    keep_idempotency_keys_for_ever=True,
)


openapi_app = SERVICE.openapi_app
