"""Writes the Grafana dashboards beside it; `--check` tells whether they are up to date."""

import sys
from pathlib import Path
from typing import Any

from panels import (
    Query,
    applied,
    dashboard,
    or_zero,
    p99,
    panel,
    quantiles,
    rate,
    rest,
    sweep,
    total,
    variable,
)

HERE = Path(__file__).resolve().parent
POSTED = 'superfan_http_requests_total{service="ingest", method="POST", status!~"404|405"}'
POSTED_5XX = 'superfan_http_requests_total{service="ingest", method="POST", status=~"5.."}'
NO_THRESHOLD: list[dict[str, Any]] = [{"color": "green", "value": None}]


def overview() -> str:
    each = "{{service}}"
    errors = f"(sum(increase({POSTED_5XX}[30d])) or on() vector(0)) / sum(increase({POSTED}[30d]))"
    burn = [
        (f"superfan:acceptance_errors:ratio_rate{window} / 0.001", window) for window in ("5m", "1h", "6h", "1d", "3d")
    ]
    available = panel("Acceptance, 30 days", "percentunit", (f"1 - {errors}", ""), show="stat")
    available["fieldConfig"]["defaults"]["decimals"] = 4
    burns = panel(
        "Acceptance: burn rate",
        "x",
        *burn,
        note="1 uses up the budget (0.1 %) in 30 days. Pages: 14.4 in 1 h, 6 in 6 h. Tickets: 3 in 1 d, 1 in 3 d.",
    )
    burns["links"] = panel("", "", alerts="AcceptanceBurnsFast AcceptanceBurnsSlowly")["links"]
    panels = [
        available,
        panel("Error budget left, 30 days", "percentunit", (f"1 - {errors} / 0.001", ""), show="stat"),
        panel(
            "Alerts that fire",
            "none",
            (or_zero('count(ALERTS{alertname=~"Superfan.+", alertstate="firing"})'), ""),
            show="stat",
        ),
        burns,
        panel(
            "Acknowledgements slower than 500 ms",
            "percentunit",
            ("superfan:acknowledgements_slow:ratio_rate30m", "30 min"),
            ("superfan:acknowledgements_slow:ratio_rate6h", "6 h"),
            alerts="AcknowledgementsSlow",
            note="1 % may.",
        ),
        panel(
            "Batches applied later than 10 s",
            "percentunit",
            ("superfan:effects_late:ratio_rate30m", "{{service}}"),
            alerts="EffectsLate",
            note="1 % may.",
        ),
        panel("Events accepted", "cps", (total("superfan_ingest_accepted_total"), "accepted")),
        panel("Events applied", "cps", (rate("superfan_events_applied_total", "service"), each)),
        panel(
            "Behind Kafka",
            "s",
            ("max by (service) (superfan_consumer_lag_seconds)", each),
            alerts="ConsumerBehind",
        ),
        panel(
            "Outbox: age",
            "s",
            ("max by (service) (superfan_outbox_oldest_seconds)", each),
            alerts="OutboxOld",
        ),
        panel(
            "Dead letters that wait",
            "none",
            ("max by (service) (superfan_dead_letters_waiting)", each),
            alerts="DeadLettersWaiting",
        ),
        panel(
            "REST: 5xx",
            "reqps",
            (
                or_zero('sum by (service) (rate(superfan_http_requests_total{status=~"5.."}[$__rate_interval]))'),
                "{{service}}",
            ),
        ),
        panel(
            "Processes by version",
            "none",
            ("count by (service, version) (superfan_build_info)", "{{service}} {{version}}"),
            alerts="ServiceGone",
        ),
        panel(
            "Configuration valid",
            "none",
            ("min by (service) (superfan_config_valid)", each),
            alerts="ConfigInvalid",
        ),
        panel(
            "Configurations in use",
            "none",
            ("count by (service) (count by (service, sha256) (superfan_config_info))", each),
            alerts="ConfigDiffers",
        ),
        panel("CPU", "percentunit", ("sum by (job) (rate(process_cpu_seconds_total[$__rate_interval]))", "{{job}}")),
        panel("Memory of the largest process", "bytes", ("max by (job) (process_resident_memory_bytes)", "{{job}}")),
        panel(
            "Event loop: late by",
            "s",
            ("max by (service, pod) (avg_over_time(superfan_event_loop_lag_seconds[10m]))", "{{service}} {{pod}}"),
            alerts="EventLoopLate",
        ),
        panel(
            "Clock: apart from Kafka's",
            "s",
            ("max by (service, pod) (abs(superfan_kafka_clock_offset_seconds))", "{{service}} {{pod}}"),
            alerts="ClockSkew",
        ),
    ]
    return dashboard("overview", "overview", panels)


def ingest() -> str:
    panels = [
        panel("Events accepted by type", "cps", (rate("superfan_ingest_accepted_total", "type"), "{{type}}")),
        *rest("ingest"),
        panel(
            "Deliveries of platforms",
            "reqps",
            (rate("superfan_webhooks_total", "platform, outcome"), "{{platform}} {{outcome}}"),
        ),
        panel(
            "Events refused",
            "cps",
            (or_zero(rate("superfan_ingest_invalid_total", "type, reason")), "{{type}} {{reason}}"),
            (total("superfan_ingest_rejected_lost_total"), "without a copy"),
            alerts="RejectedLost",
        ),
        quantiles("Kafka: time to acknowledge", "superfan_ingest_ack_seconds"),
        panel(
            "Breaker",
            "none",
            ("max by (pod) (superfan_ingest_breaker_state)", "{{pod}}"),
            alerts="IngestWithoutKafka",
            note="0: Kafka is asked; 1: one request at a time; 2: not asked.",
        ),
        panel(
            "Into the spool, or nowhere",
            "cps",
            (or_zero(rate("superfan_ingest_spooled_total", "error")), "spooled: {{error}}"),
            (or_zero(rate("superfan_ingest_not_stored_total", "error")), "not stored: {{error}}"),
            alerts="AcceptanceBurnsFast",
        ),
        panel(
            "Spool: in use",
            "percentunit",
            ("max by (pod) (superfan_spool_bytes / superfan_spool_limit_bytes)", "{{pod}}"),
            alerts="SpoolFilling",
        ),
        panel(
            "Spool: oldest event",
            "s",
            ("max by (pod) (superfan_spool_oldest_seconds)", "{{pod}}"),
            alerts="SpoolOld",
        ),
        panel("Spool: events", "none", ("sum by (pod) (superfan_spool_events)", "{{pod}}")),
        panel(
            "Spool: in and out",
            "cps",
            (total("superfan_spool_appended_total"), "written"),
            (total("superfan_spool_drained_total"), "brought to Kafka"),
        ),
        panel(
            "Spool: damage",
            "none",
            (or_zero("sum by (pod) (superfan_spool_skipped_total)"), "events skipped {{pod}}"),
            (or_zero("sum by (pod) (superfan_spool_set_aside_total)"), "files set aside {{pod}}"),
            alerts="SpoolDamaged",
        ),
        panel("Requests in hand", "none", ('max by (pod) (superfan_http_in_flight{service="ingest"})', "{{pod}}")),
    ]
    panels[9]["fieldConfig"]["defaults"]["max"] = 1
    # Its threshold is a share of requests, and this panel counts events.
    panels[8]["fieldConfig"]["defaults"]["thresholds"]["steps"] = NO_THRESHOLD
    return dashboard("ingest", "ingest", panels)


def consumers() -> str:
    chosen = '{service=~"$service", topic=~"$topic"}'
    of_service = '{service=~"$service"}'
    each = ("service, topic", "{{service}} {{topic}}")

    def per_topic(function: str, metric: str) -> Query:
        return f"{function} by ({each[0]}) ({metric}{chosen})", each[1]

    def mishaps(metric: str, window: str = "15m") -> Query:
        return or_zero(f"sum by ({each[0]}) (increase({metric}{chosen}[{window}]))"), each[1]

    panels = [
        panel("Behind, in seconds", "s", per_topic("max", "superfan_consumer_lag_seconds"), alerts="ConsumerBehind"),
        panel("Behind, in records", "none", per_topic("sum", "superfan_consumer_lag_records")),
        panel(
            "Partitions held",
            "none",
            per_topic("sum", "superfan_consumer_partitions"),
            alerts="PartitionsUnheld ConsumerGone",
            note="12 of each topic.",
        ),
        panel(
            "Events applied",
            "cps",
            (rate(f"superfan_events_applied_total{of_service}", "service, type"), "{{service}} {{type}}"),
        ),
        panel(
            "From Kafka's append to the commit: p99",
            "s",
            (p99("superfan_event_delay_seconds", chosen, "service, topic"), each[1]),
            alerts="EffectsLate",
        ),
        panel(
            "Transactions: p99",
            "s",
            (p99("superfan_batch_seconds", chosen, "service, topic"), each[1]),
        ),
        panel(
            "Copies of events already applied",
            "cps",
            (rate(f"superfan_events_repeated_total{of_service}", "service, kind"), "{{service}} {{kind}}"),
        ),
        panel("Batches tried again, 15 min", "none", mishaps("superfan_batch_retries_total")),
        panel("Kafka client replaced, 15 min", "none", mishaps("superfan_consumer_rebuilds_total")),
        panel("Rebalances, 15 min", "none", mishaps("superfan_consumer_rebalances_total"), alerts="RebalanceStorm"),
        panel(
            "Batches somebody else had applied, 15 min",
            "none",
            mishaps("superfan_offset_conflicts_total"),
            alerts="OffsetConflicts",
        ),
        panel(
            "Begun at the earliest record; expired unread, 1 h",
            "none",
            mishaps("superfan_offset_resets_total", "1h"),
            (mishaps("superfan_records_expired_total", "1h")[0], f"expired: {each[1]}"),
            alerts="RecordsExpired",
        ),
        panel(
            "Why nothing is read",
            "none",
            (per_topic("max", "superfan_consumer_held")[0], f"held by an operator: {each[1]}"),
            (per_topic("max", "superfan_consumer_paused")[0], f"outbox full: {each[1]}"),
            (f"max by (service) (superfan_consumer_stopped{of_service})", "line stopped: {{service}}"),
            alerts="LineStopped ConsumerHeld",
        ),
        panel(
            "Outbox: age",
            "s",
            (f"max by (service) (superfan_outbox_oldest_seconds{of_service})", "{{service}}"),
            alerts="OutboxOld",
        ),
        panel("Outbox: rows", "none", (f"max by (service) (superfan_outbox_rows{of_service})", "{{service}}")),
        panel(
            "Outbox: published",
            "cps",
            (rate(f"superfan_outbox_published_total{of_service}", "service"), "{{service}}"),
            (or_zero(rate(f"superfan_outbox_errors_total{of_service}", "service")), "failed: {{service}}"),
        ),
        panel(
            "Dead letters that wait",
            "none",
            (f"max by (service) (superfan_dead_letters_waiting{of_service})", "{{service}}"),
            alerts="DeadLettersWaiting",
        ),
        panel(
            "Dead letters: new, and what operators did, 1 h",
            "none",
            (
                or_zero(f"sum by (service, error) (increase(superfan_dead_letters_total{of_service}[1h]))"),
                "new: {{service}} {{error}}",
            ),
            (
                or_zero(f"sum by (service, action) (increase(superfan_dead_letter_actions_total{of_service}[1h]))"),
                "{{service}} {{action}}",
            ),
        ),
    ]
    for place in (9, 11):  # alerts on one process or on expired records alone; these panels show more
        panels[place]["fieldConfig"]["defaults"]["thresholds"]["steps"] = NO_THRESHOLD
    variables = [
        variable("service", "superfan_consumer_partitions"),
        variable("topic", 'superfan_consumer_partitions{service=~"$service"}'),
    ]
    return dashboard("consumers", "consumers", panels, variables)


def profile() -> str:
    links = rate("superfan_link_decisions_total", "outcome, why")
    panels = [
        applied("profile"),
        panel("Decisions about links", "cps", (or_zero(links), "{{outcome}} {{why}}")),
        *rest("profile"),
    ]
    return dashboard("profile", "profile", panels)


def segmentation() -> str:
    moves = "superfan_segment_moves_total"
    panels = [
        applied("segmentation"),
        panel("Moves by segment", "cps", (rate(moves, "segment, direction"), "{{segment}} {{direction}}")),
        panel("Moves by reason", "cps", (rate(moves, "reason"), "{{reason}}")),
        *sweep("segmentation"),
        quantiles("RFM: time of a run, 1 day", "superfan_rfm_run_seconds", "[1d]"),
        *rest("segmentation"),
    ]
    return dashboard("segmentation", "segmentation", panels)


def engagement() -> str:
    panels = [
        applied("engagement"),
        panel(
            "Decisions by journey",
            "cps",
            (rate("superfan_decisions_total", "journey, outcome"), "{{journey}} {{outcome}}"),
        ),
        panel(
            "Not sent, by reason",
            "cps",
            (
                or_zero('sum by (reason) (rate(superfan_decisions_total{outcome="skipped"}[$__rate_interval]))'),
                "{{reason}}",
            ),
        ),
        panel(
            "Messages: ends of calls",
            "cps",
            (or_zero(rate("superfan_messages_total", "kind, state")), "{{kind}} {{state}}"),
        ),
        panel(
            "Channels: calls",
            "cps",
            (or_zero(rate("superfan_channel_calls_total", "channel, outcome")), "{{channel}} {{outcome}}"),
        ),
        panel(
            "Channels: breaker open",
            "percentunit",
            (or_zero("max by (channel) (avg_over_time(superfan_channel_open[15m]))"), "{{channel}}"),
            alerts="ChannelOpen",
        ),
        panel("Sender: rounds that failed", "cps", (or_zero(rate("superfan_sender_errors_total", "loop")), "{{loop}}")),
        *rest("engagement"),
    ]
    return dashboard("engagement", "engagement", panels)


def rewards() -> str:
    checks = (
        "balance_entry_differences",
        "balance_lot_differences",
        "unbalanced_transactions",
        "negative_lots",
        "lot_use_differences",
    )
    panels = [
        applied("rewards"),
        panel("Points awarded by rule", "cps", (rate("superfan_points_awarded_total", "rule"), "{{rule}}")),
        panel("Points kept back by caps", "cps", (or_zero(rate("superfan_points_capped_total", "rule")), "{{rule}}")),
        panel("Sign-ins", "cps", (rate("superfan_sign_ins_total", "outcome"), "{{outcome}}")),
        panel(
            "Ledger: what does not add up",
            "none",
            *((f"max(superfan_ledger_{check})", check.replace("_", " ")) for check in checks),
            alerts="LedgerWrong",
            note="Must be 0.",
        ),
        panel(
            "Ledger: since the last audit",
            "s",
            ("time() - max(superfan_ledger_audited_timestamp_seconds)", "age"),
            alerts="LedgerAuditMissing",
        ),
        quantiles("Ledger: time of an audit, 1 h", "superfan_ledger_audit_seconds", "[1h]"),
        *sweep("rewards"),
        *rest("rewards"),
    ]
    return dashboard("rewards", "rewards", panels)


def main() -> int:
    stale = []
    for make in (overview, ingest, consumers, profile, segmentation, engagement, rewards):
        path, text = HERE / f"superfan-{make.__name__}.json", make()
        if not path.exists() or path.read_text() != text:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if stale and "--check" in sys.argv:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run `make dashboards`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
