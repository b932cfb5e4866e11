"""What becomes of a run: started, read, listed, awaited, cancelled, retried, and found again by the reaper."""
