"""Scenes that a STAC catalogue lists."""
