"""The gateway's subcommands of `trilith`, one file each."""
