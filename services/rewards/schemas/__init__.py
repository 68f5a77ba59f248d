"""Bodies of rewards' API."""

USER_ID = "usr_pzk3vejgs6bqi3mwhfd5qbjamranai3u"
ENTRY_ID = "5d0a3e0c-6a3f-b0d1-3a0b-6a4f0a9d6e21"
SPENT_ID = "9b2f4c1e-77a0-4a3d-8e15-2c6f90d1ab34"
