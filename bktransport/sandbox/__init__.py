"""A double of the service on loopback, for rehearsals and test suites (`bkformat[sandbox]`)."""
