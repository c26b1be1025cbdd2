"""Settings: plain mappings and declared fields, checked key by key."""
