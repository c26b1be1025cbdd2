"""Words of messages: counts that fit their nouns, and addresses without their secrets."""
