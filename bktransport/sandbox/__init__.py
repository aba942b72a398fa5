"""A double of the BranchKey service, on loopback, to try a site on and to test with."""
