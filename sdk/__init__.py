"""Facade."""
