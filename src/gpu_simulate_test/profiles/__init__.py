"""Profiles: the bundle on disk, and the sources that fill one."""
