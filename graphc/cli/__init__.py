"""The command `graphc`: one file a verb, loaded when the verb is used. Nothing imports this package."""
