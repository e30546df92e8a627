"""What happens when processes, databases and people are killed, stopped and confused: `python -m tests.chaos`."""
