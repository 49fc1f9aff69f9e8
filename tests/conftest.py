"""Fixtures every test may use; those of one kind live in the conftest of their folder."""

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
