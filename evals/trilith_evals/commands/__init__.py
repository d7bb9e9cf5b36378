"""The actions of `trilith eval`: each module adds its arguments and does its work."""
