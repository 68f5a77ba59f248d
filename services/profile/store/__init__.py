"""All SQL of profile. Writes are commutative and touch rows in key order, or hold the lock on the account's groups;
reads run over all subjects of a user."""
