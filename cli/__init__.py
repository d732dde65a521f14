"""The `backgate` command: one file per sub-command, thin."""
