"""The command line: `main` finds and runs the subcommands, one file per subcommand."""
