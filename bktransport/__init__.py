"""Sends validated updates to BranchKey and receives aggregates (needs `bkformat[transport]`)."""
