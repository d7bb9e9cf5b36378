"""Reads source files into documents; one module per format."""

from trilith_rag.parsing.parsed import Heading, Parsed, title_of
from trilith_rag.parsing.source import SUFFIXES, Failure, SourceFile, list_source, parse

__all__ = ["SUFFIXES", "Failure", "Heading", "Parsed", "SourceFile", "list_source", "parse", "title_of"]
