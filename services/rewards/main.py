"""rewards, put together."""

from libs.common.service import Service
from services.rewards import consumer, jobs
from services.rewards.api import definitions, levels, points, sign_ins
from services.rewards.usecases.earning import keep_data

SERVICE = Service(
    name="rewards",
    title="Superfan rewards 积分",
    description="What loyalty has earned: points and the ledger that says why, sign-in streaks, levels.",
    routers=[sign_ins.router, points.router, definitions.router, levels.router],
    topics=consumer.TOPICS,
    make_handler=consumer.make_handler,
    keep_data=keep_data,
    facts=jobs.FACTS,
    due_work=jobs.DUE_WORK,
    background=jobs.background,
    tags=[
        {"name": "sign-ins", "description": "Signing in for the day 签到, and streaks 连签."},
        {"name": "points", "description": "Balances, the ledger behind them, and spending."},
        {"name": "rules", "description": "What earns points."},
        {"name": "levels", "description": "Levels 等级 by growth value 成长值."},
    ],
    keep_idempotency_keys_for_ever=True,
)


openapi_app = SERVICE.openapi_app
