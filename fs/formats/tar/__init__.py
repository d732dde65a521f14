"""Tar archives as trees: plain, gzip, bzip2, xz and zstd; v7, ustar, GNU and pax.

`format` finds the archives, `build` makes a member index of one, `tree` shows it. A reader of
headers (`header`, `pax`, `sparse`) gives members (`members`), which `extraction` files as tar would
extract them.
"""
