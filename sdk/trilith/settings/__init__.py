"""One settings file, one table, one order of precedence."""
