"""What recovery training is worth: quality against training time, speed, and memory."""
