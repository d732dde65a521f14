"""Stores, their metadata cache, and the bytes on the way to and from them; knows neither FUSE nor
backup formats.
"""
