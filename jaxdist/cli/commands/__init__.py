"""One module a command, named as it is typed: its help, its options, and what it does."""
