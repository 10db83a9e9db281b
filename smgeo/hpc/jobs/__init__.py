"""Requests of jobs, checked against a site, and their batch scripts."""
