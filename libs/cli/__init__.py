"""The `superfan` command: runs the whole system on one machine and looks into a running one."""
