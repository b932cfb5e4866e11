"""Workers and starters that are killed with SIGKILL at random, for minutes, and the count of what became of the work.

python -m tests.kills --minutes 3 --workers 3 --backend sqlite
"""
