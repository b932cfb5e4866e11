"""What the facts about a deployment say: one function for each question, and a finding for each answer."""
