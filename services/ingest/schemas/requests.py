"""What OpenAPI says of bodies that are read raw."""

from typing import Any

_FOLLOW = {"type": "follow", "user": "u42", "id": "f-1", "time": "2026-03-01T09:00:00+08:00"}
_PAID = {
    "specversion": "1.0",
    "id": "order-1001-paid",
    "source": "/shop",
    "type": "order.paid",
    "subject": "demo:u42",
    "time": "2026-03-01T01:00:00Z",
    "data": {"order_id": "1001", "amount_minor": 9900, "currency": "CNY"},
}
_SIGNED = {
    "event": "new_follow_action",
    "client_key": "awdemo0000000000",
    "from_user_id": "ou_8f2c1a7e",
    "to_user_id": "account-open-id",
    "content": '{"action_type":1,"action_time":1790000001}',
    "log_id": "",
}

EVENTS_BODY: dict[str, Any] = {
    "security": [{"apiKey": []}],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {},
                "examples": {
                    "one": {"value": _FOLLOW},
                    "several": {"value": [_FOLLOW, {"type": "sign_in", "user": "u42", "id": "s-1"}]},
                    "wrapped": {"value": {"events": [_FOLLOW]}},
                },
            },
            "application/cloudevents+json": {"schema": {}, "examples": {"one": {"value": _PAID}}},
            "application/cloudevents-batch+json": {"schema": {}, "examples": {"several": {"value": [_PAID]}}},
        },
    },
}
WEBHOOK_BODY: dict[str, Any] = {
    "requestBody": {
        "description": "Whatever the platform sends, signed in its own way.",
        "required": True,
        "content": {"application/json": {"schema": {}, "examples": {"douyin follow": {"value": _SIGNED}}}},
    }
}
