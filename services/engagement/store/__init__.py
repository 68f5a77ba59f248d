"""All SQL of engagement. Rows are written in key order; reads run over all subjects of a user."""
