"""One settings file, one table, one order of precedence."""

from trilith.settings.load import LoadedSettings, load_settings
from trilith.settings.schema import Settings

__all__ = ["LoadedSettings", "Settings", "load_settings"]
