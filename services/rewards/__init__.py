"""rewards 积分: what loyalty has earned: sign-in streaks, points, and the ledger that says why."""
