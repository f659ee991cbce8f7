"""What stands before the queue: the look at each prompt, and the pack's HTTP routes."""
