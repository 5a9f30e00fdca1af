"""Typed configuration shared by the five stages."""
