"""One run from claim to report: the supervisor, the record, reporting, hooks, scratch, adopting, drain."""
