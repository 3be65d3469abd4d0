"""Fixtures that several test files share."""

from hub_server import hub  # noqa: F401
