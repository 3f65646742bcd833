"""Many workers on several hosts: are they busy, and what stops it from growing."""
