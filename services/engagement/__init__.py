"""engagement 用户触达: whom we write to, whom not, and why."""
