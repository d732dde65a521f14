"""Random access to compressed objects: gzip, bzip2, xz and zstd as seekable sources.

The first pass (`firstpass`) decompresses an object once, checks all that its format lets one check,
and notes where decompression can start again (`gzip`, `bzip2`, `xz`, `zstd`), a digest of every
piece, and a copy of pieces that lie too far behind any restart. From then on any range is had
(`source`).
"""
